"""What the demo plays: who lies, and which check must catch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from coin_protocol.testing.adversaries import ADVERSARIES
from coin_protocol.v1 import receipt_pb2


@dataclass(frozen=True, slots=True)
class Scenario:
    """One reply and its audit.

    Attributes:
        model: Name of the replay that the provider serves.
        title: For people.
        caught_by: Code of the check that must fail; empty for the honest reply.
        tamper: What a lying client does to its receipt.
    """

    model: str
    title: str
    caught_by: str
    tamper: Callable[[receipt_pb2.Receipt], None] | None = None

    @property
    def expected(self) -> str:
        """The verdict that the audit must give."""
        return "FAIL" if self.caught_by else "PASS"


def _alter_answer(receipt: receipt_pb2.Receipt) -> None:
    receipt.answer = receipt.answer.replace(b"the", b"not the", 1) + b" (altered)"


HONEST: Final = "honest"

SCENARIOS: Final = (
    Scenario(HONEST, "honest", ""),
    *(Scenario(liar.name, liar.title, liar.caught_by) for liar in ADVERSARIES[:5]),
    Scenario(HONEST, "answer altered by the client", "ANSWER_DIGEST", _alter_answer),
    *(Scenario(liar.name, liar.title, liar.caught_by) for liar in ADVERSARIES[5:]),
)
