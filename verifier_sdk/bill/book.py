"""All receipts at hand, by what a line may be matched with; none vouches for two replies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from coin_protocol.collection import Found, collected
from coin_protocol.errors import InvalidInputError, LimitError
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.bill.limits import MAX_PROBLEMS, MAX_RECEIPTS
from verifier_sdk.bill.receipts import Examiner, Facts, State


@dataclass(frozen=True, slots=True)
class Problem:
    """A receipt that does not count.

    Attributes:
        origin: File, and line where there are several.
        reason: Why.
    """

    origin: str
    reason: str


class ReceiptBook:
    """Receipts in memory, each once.

    Attributes:
        reused: By the id of a reply, the receipt that was noted for it and for another reply.
        problems: What does not count, the first of it.
        problem_count: How much that is.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.reused: dict[str, Facts] = {}
        self.problems: list[Problem] = []
        self.problem_count = 0
        self._facts: dict[bytes, Facts] = {}
        self._sessions: dict[bytes, bytes] = {}

    @classmethod
    def read(
        cls,
        paths: Sequence[Path],
        examiner: Examiner,
        told: Callable[[int], object] = lambda _: None,
    ) -> ReceiptBook:
        """Read and examine every receipt in these folders and files.

        Args:
            paths: As `collected` takes them.
            examiner: Decides which can be believed.
            told: Is told how many were read.

        Raises:
            InvalidInputError: There is no such folder or file.
            LimitError: There are too many receipts.
        """
        book = cls()
        for found in collected(paths):
            book._examine(found, examiner)
            told(len(book))
        return book

    def add(self, facts: Facts) -> None:
        """Add a receipt; one that is there already is not added again.

        Raises:
            LimitError: There are too many.
        """
        earlier = self._facts.get(facts.commitment_sha256)
        if earlier is not None:
            if not earlier.response_id:
                self._facts[facts.commitment_sha256] = facts
            elif facts.response_id not in {"", earlier.response_id}:
                self.reused[facts.response_id] = earlier
            return
        if len(self._facts) >= MAX_RECEIPTS:
            msg = f"more than {MAX_RECEIPTS} receipts; cut bill and receipts into shorter periods"
            raise LimitError(msg)
        if facts.counts:
            facts = self._alone_in_its_session(facts)
        self._facts[facts.commitment_sha256] = facts
        if not facts.counts:
            self._name(Problem(facts.origin, facts.reason))

    def __len__(self) -> int:
        """Return the number of receipts, each counted once."""
        return len(self._facts)

    def __iter__(self) -> Iterator[Facts]:
        """Yield the receipts in the order they were added."""
        return iter(self._facts.values())

    @property
    def states(self) -> Counter[State]:
        """How many receipts are in which state."""
        return Counter(facts.state for facts in self)

    @cached_property
    def by_id(self) -> dict[str, list[Facts]]:
        """The receipts of each reply, one a choice. Asked for once all are added."""
        found: dict[str, list[Facts]] = {}
        for facts in self:
            if facts.response_id:
                found.setdefault(facts.response_id, []).append(facts)
        return found

    def _examine(self, found: Found, examiner: Examiner) -> None:
        message = found.message
        if found.problem:
            self._name(Problem(found.name, found.problem))
        if message is None:
            return
        try:
            if isinstance(message, receipt_pb2.Bundle):
                facts = examiner.bundle(message, found.name, found.response_id)
            else:
                facts = examiner.receipt(message, found.name, found.response_id)
        except InvalidInputError as error:
            self._name(Problem(found.name, str(error)))
            return
        self.add(facts)

    def _alone_in_its_session(self, facts: Facts) -> Facts:
        """Return the facts; as of no worth where the session has another commitment, too."""
        named = self._sessions.setdefault(facts.session_id, facts.commitment_sha256)
        if named == facts.commitment_sha256:
            return facts
        reason = "the provider made two commitments for one session"
        other = self._facts[named]
        if other.counts:
            self._facts[named] = replace(other, state=State.INVALID, reason=reason)
            self._name(Problem(other.origin, reason))
        return replace(facts, state=State.INVALID, reason=reason)

    def _name(self, problem: Problem) -> None:
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
