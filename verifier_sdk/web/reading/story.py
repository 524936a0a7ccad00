"""All that a page tells of one bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from coin_protocol.errors import CoinError
from coin_protocol.profile import Policy
from coin_protocol.receipt import read_bundle
from coin_protocol.statements import read_commitment, read_verdict
from coin_protocol.v1 import receipt_pb2, statements_pb2
from verifier_sdk.web.reading.blocks import BlockMap
from verifier_sdk.web.reading.rounds import RoundLine, read_rounds
from verifier_sdk.web.reading.timeline import Timeline, timeline
from verifier_sdk.web.reading.verdict import CheckLine, Graded, check_lines, graded

MOST_MATCHES: Final = 100
"""Matches to other sessions on a page."""


@dataclass(frozen=True, slots=True)
class PrivateText:
    """A text that is not shown.

    Attributes:
        what: `request`, `answer` or `summary`.
        size: Its length in bytes.
        sha256: Its digest.
    """

    what: str
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Match:
    """A block that another session of the provider showed, too."""

    block: int
    commitment_sha256: bytes
    other_block: int
    cosine: float


@dataclass(frozen=True)
class Story:
    """One audit, as its bundle tells it.

    Attributes:
        verdict: As signed.
        commitment: None where it cannot be read.
        unread: Why it cannot.
        checks: In the order in which they ran.
        graded: Scores and limits.
        timeline: When the tokens came.
        rounds: By time.
        blocks: What was opened.
        texts: Of the conversation, by size and digest.
        matches: To other sessions, the first `MOST_MATCHES`.
        no_manifest: Why no manifest came, where none did.
    """

    verdict: receipt_pb2.Verdict
    commitment: statements_pb2.Commitment | None
    unread: str
    checks: Sequence[CheckLine]
    graded: Graded
    timeline: Timeline
    rounds: Sequence[RoundLine]
    blocks: BlockMap
    texts: Sequence[PrivateText]
    matches: Sequence[Match]
    no_manifest: str


def read_story(raw: bytes, policies: Mapping[bytes, Policy]) -> Story:
    """Return what a bundle tells.

    Args:
        raw: The bundle, as the node keeps it.
        policies: Those known here, by digest.

    Raises:
        InvalidInputError: It is no bundle.
        StatementError: Its verdict cannot be read.
    """
    bundle = read_bundle(raw)
    verdict = read_verdict(bundle.verdict.payload)
    commitment, unread = _commitment(bundle.receipt)
    rounds, blocks = read_rounds(bundle, 0 if commitment is None else commitment.block_count)
    return Story(
        verdict=verdict,
        commitment=commitment,
        unread=unread,
        checks=check_lines(verdict),
        graded=graded(verdict, policies),
        timeline=timeline(bundle.receipt, commitment),
        rounds=rounds,
        blocks=blocks,
        texts=list(_texts(bundle.receipt)),
        matches=[
            Match(
                match.block_index,
                match.other_commitment_sha256,
                match.other_block_index,
                match.cosine,
            )
            for match in bundle.matches[:MOST_MATCHES]
        ],
        no_manifest=bundle.no_manifest,
    )


def _commitment(
    receipt: receipt_pb2.Receipt,
) -> tuple[statements_pb2.Commitment | None, str]:
    try:
        return read_commitment(receipt.commitment.payload), ""
    except CoinError as error:
        return None, str(error)


def _texts(receipt: receipt_pb2.Receipt) -> Iterable[PrivateText]:
    for what in ("request", "answer", "summary"):
        if what != "summary" or receipt.HasField("summary"):
            text: bytes = getattr(receipt, what)
            yield PrivateText(what, len(text), sha256(text).digest())
