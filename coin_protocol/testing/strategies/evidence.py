"""Evidence: two statements that nobody honest signs both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol import envelope
from coin_protocol.checkpoint import sign_checkpoint
from coin_protocol.checks import Trust
from coin_protocol.evidence import Kind, commitment_equivocation, head_equivocation
from coin_protocol.keys import ListedKey, read_time
from coin_protocol.keyset import SignedKeySet, pinned, sign_key_set
from coin_protocol.note import NoteSigner, NoteVerifier
from coin_protocol.testing.strategies.certifying import roots
from coin_protocol.testing.strategies.keys import signed
from coin_protocol.testing.strategies.logs import heads
from coin_protocol.testing.strategies.pool import pooled
from coin_protocol.testing.strategies.statements import commitments
from coin_protocol.testing.strategies.values import EARLIEST, LATEST, times
from coin_protocol.testing.world import PROVIDER, START
from coin_protocol.v1 import evidence_pb2 as pb
from coin_protocol.v1 import statements_pb2

_PROVIDERS: Final = st.just(PROVIDER)
_LATEST: Final = LATEST - timedelta(days=1)
"""When what is signed may have ended: a key must outlast it."""


@dataclass(frozen=True)
class Proof:
    """Evidence, and whom to believe to see what it proves.

    Attributes:
        evidence: As it stands in its file.
        trust: Roots of the provider; None where it is about a log.
        log_key: The log's; None where it is about a provider.
    """

    evidence: pb.Evidence
    trust: Trust | None = None
    log_key: NoteVerifier | None = None


def _another(digest: bytes) -> bytes:
    return bytes((digest[0] ^ 1, *digest[1:]))


def _another_answer(told: statements_pb2.Commitment) -> None:
    told.answer_sha256 = _another(told.answer_sha256)


def _another_tree(told: statements_pb2.Commitment) -> None:
    told.token_root = _another(told.token_root)


def _another_model(told: statements_pb2.Commitment) -> None:
    told.model = "y" if told.model == "x" else "x"


def _another_bill(told: statements_pb2.Commitment) -> None:
    more = -1 if told.answer_tokens else 1
    told.answer_tokens += more
    told.usage.completion_tokens += more


_TALES: Final[tuple[Callable[[statements_pb2.Commitment], None], ...]] = (
    _another_answer,
    _another_tree,
    _another_model,
    _another_bill,
)


@st.composite
def _of_commitments(draw: st.DrawFn) -> Proof:
    first = draw(commitments(provider=_PROVIDERS, latest=_LATEST))
    second = statements_pb2.Commitment()
    second.CopyFrom(first)
    draw(st.sampled_from(_TALES))(second)
    if statements_pb2.ABORT_REASON_CRASHED in (first.abort_reason, second.abort_reason):
        # Else a provider that restored a backup might have signed both.
        second.flip_anchor = _another(second.flip_anchor)
    ended_at = read_time(first.ended_at)
    revoked_at = draw(st.none() | times(least=ended_at + timedelta(seconds=1)))
    listed = ListedKey(pooled(PROVIDER).public, EARLIEST, LATEST, revoked_at)
    root = draw(roots(at=START))
    signed_keys = sign_key_set(PROVIDER, [listed], root=root.signer, issued_at=START, sequence=1)
    believed = root.trust(pinned("verifiers", ()))
    evidence = commitment_equivocation(
        signed(first, envelope.COMMITMENT),
        signed(second, envelope.COMMITMENT),
        key_set=SignedKeySet(signed_keys, root.chain),
        trust=believed,
    )
    return Proof(evidence, trust=believed)


@st.composite
def _of_heads(draw: st.DrawFn) -> Proof:
    first = draw(heads(size=st.integers(1, 1 << 40)))
    second = replace(first, root=_another(first.root))
    log = NoteSigner(pooled(first.origin))
    evidence = head_equivocation(
        sign_checkpoint(first, [log]), sign_checkpoint(second, [log]), log_key=log.verifier
    )
    return Proof(evidence, log_key=log.verifier)


def proofs(*, kind: Kind | None = None) -> SearchStrategy[Proof]:
    """Return a strategy of evidence, with whom to believe.

    Args:
        kind: Of what there are two; either by default.
    """
    if kind is None:
        return _of_commitments() | _of_heads()
    return _of_commitments() if kind is Kind.COMMITMENTS else _of_heads()


def evidences(*, kind: Kind | None = None) -> SearchStrategy[pb.Evidence]:
    """Return a strategy of evidence; options as of `proofs`."""
    return proofs(kind=kind).map(lambda proof: proof.evidence)
