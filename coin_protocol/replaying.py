"""What a replay of a verdict finds (protocol, section 9), and who replays.

The deterministic part of a verdict is derived again by `offline`. A judge's part takes the judge,
which the core does not have: packages bring a replayer as an entry point of the group
`coin.replayers`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, Protocol, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from coin_protocol.checks import Report, Trust
from coin_protocol.errors import MissingDependencyError
from coin_protocol.models import Models
from coin_protocol.profile import Policy
from coin_protocol.v1 import receipt_pb2

GROUP: Final = "coin.replayers"
JUDGE: Final = "judge"

ABSENT: Final = "absent"
"""What a difference says of a value that one side has not."""

_LONGEST: Final = 400
"""Characters of a value that a difference shows."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a bundle says other than its evidence gives.

    Attributes:
        path: Of the verdict's field, like `scores[3].value`; or of the bundle's, like `rounds[1]`,
            where the audit itself went otherwise than the policy says.
        found: What the bundle says there.
        replayed: What the replay gives.
    """

    path: str
    found: str
    replayed: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What replaying an audit gave.

    Attributes:
        verdict: As signed by the verifier.
        report: Of the checks, run again.
        difference: The first; None where the replay gives the same verdict.
        judge: Whether graded evidence was judged again; None where none was there to judge.
        reference: Whether a reference model read blocks again; None where none had read any.
        matches: Sentences about blocks of other sessions, which are the verifier's word.
    """

    verdict: receipt_pb2.Verdict
    report: Report
    difference: Difference | None
    judge: bool | None
    reference: bool | None
    matches: int


class Replayer(Protocol):
    """Decides an audit again from its bundle, without a network."""

    def __call__(
        self,
        bundle: receipt_pb2.Bundle,
        *,
        trust: Trust,
        models: Models,
        policy: Policy,
        judge: str,
        reference: str | None,
    ) -> Replayed:
        """Replay.

        Args:
            bundle: As `receipt.read_bundle` returns it.
            trust: Pinned roots of the provider, and keys of the verifier.
            models: Of the commitment's profile.
            policy: The verdict's.
            judge: As `coin audit --judge` takes it: `policy`, `rules` or a model file.
            reference: Name or folder of the reference model that the verifier used.

        Raises:
            VerificationError: The verdict is not signed by a known verifier.
            InvalidInputError: The verdict is under another profile or policy, or the verifier's
                part of the bundle is malformed.
            ConfigurationError: The judge or a model is not there, or not the one that is named.
        """


def judge_replayer() -> Replayer:
    """Return what replays a judge's part.

    Raises:
        MissingDependencyError: No installed package does.
        ModuleNotFoundError: The one that does lacks a package.
    """
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP, name=JUDGE):
        return cast("Replayer", entry.load())
    msg = f"no installed package brings a {JUDGE!r} in the group {GROUP!r} of entry points"
    raise MissingDependencyError(msg)


def cannot_replay(error: MissingDependencyError | ModuleNotFoundError) -> MissingDependencyError:
    """Return the error of a replay that lacks a package, with the ways out."""
    why = str(error)
    if isinstance(error, ModuleNotFoundError):
        why = f"{error.name} is not installed"
    return MissingDependencyError(
        f"the judge's part cannot be replayed: {why}; install coin-audit[embedding,verifier], "
        "or check the deterministic part alone with --checks-only"
    )


def judge_file(name: str) -> Path | None:
    """Return the model file that `--judge` names, if it names one."""
    return None if name in ("policy", "rules") else Path(name)


def first_difference(found: Message, replayed: Message, path: str = "") -> Difference | None:
    """Return where two messages of one type first differ, in the order of their field numbers.

    Numbers in floating point are compared by their bits.
    """
    fields = cast("Sequence[FieldDescriptor]", found.DESCRIPTOR.fields)
    for field in sorted(fields, key=lambda field: field.number):
        name = f"{path}.{field.name}" if path else field.name
        one, other = getattr(found, field.name), getattr(replayed, field.name)
        if field.is_repeated:
            for number, (left, right) in enumerate(zip_longest(one, other)):
                difference = _compared(field, left, right, f"{name}[{number}]")
                if difference is not None:
                    return difference
            continue
        if field.has_presence:
            one = one if found.HasField(field.name) else None
            other = other if replayed.HasField(field.name) else None
        difference = _compared(field, one, other, name)
        if difference is not None:
            return difference
    return None


def _compared(field: FieldDescriptor, one: Any, other: Any, path: str) -> Difference | None:  # noqa: ANN401
    if one is None and other is None:
        return None
    if one is not None and other is not None:
        if field.message_type is not None:
            return first_difference(one, other, path)
        if _bits(one) == _bits(other):
            return None
    return Difference(path, _shown(field, one), _shown(field, other))


def _bits(value: Any) -> Any:  # noqa: ANN401
    return struct.pack(">d", value) if isinstance(value, float) else value


def _shown(field: FieldDescriptor, value: Any) -> str:  # noqa: ANN401
    if value is None:
        return ABSENT
    if field.message_type is not None:
        text = " ".join(str(value).split()) or "empty"
    elif field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        text = str(value) if known is None else known.name
    elif isinstance(value, bytes):
        text = value.hex()
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
