"""A verifier's log: leaves, heads as signed notes, cosignatures of witnesses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol.checkpoint import (
    MAX_SIZE,
    Checkpoint,
    Cosignature,
    VerifiedCheckpoint,
    cosign,
    sign_checkpoint,
    verify_checkpoint,
)
from coin_protocol.log_leaf import CommitmentLeaf, VerdictLeaf
from coin_protocol.merkle import EMPTY_ROOT
from coin_protocol.note import (
    Note,
    NoteAlgorithm,
    NoteSignature,
    NoteSigner,
    NoteVerifier,
    add_signatures,
    open_note,
)
from coin_protocol.testing.strategies.pool import POOL, pooled
from coin_protocol.testing.strategies.values import Ints, digests, names, session_ids, sizes

Leaf = CommitmentLeaf | VerdictLeaf

_LOG: Final = 0
"""Number in the pool of each log's key; witnesses have the numbers after it."""

_LINES: Final = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=24
)
_TIMES: Final = st.integers(1, (1 << 63) - 1)


def commitment_leaves(
    *, provider: SearchStrategy[str] | None = None
) -> SearchStrategy[CommitmentLeaf]:
    """Return a strategy of leaves that say that a provider committed.

    Args:
        provider: Its name.
    """
    provider = names() if provider is None else provider
    return st.builds(CommitmentLeaf, provider, session_ids(), digests())


def verdict_leaves() -> SearchStrategy[VerdictLeaf]:
    """Return a strategy of leaves that say that there is a verdict."""
    return st.builds(VerdictLeaf, digests(), digests())


def log_leaves() -> SearchStrategy[Leaf]:
    """Return a strategy of leaves of either kind."""
    return commitment_leaves() | verdict_leaves()


@cache
def log_names() -> SearchStrategy[str]:
    """Return a strategy of names that keys of notes may have: no spaces, no `+`."""
    letters = st.characters(
        codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp"), exclude_characters="+"
    )
    return st.text(letters, min_size=1, max_size=60)


@st.composite
def heads(
    draw: st.DrawFn, *, origin: SearchStrategy[str] | None = None, size: Ints = None
) -> Checkpoint:
    """Draw heads of logs; that of no leaves has the root of no leaves.

    Args:
        draw: Of Hypothesis.
        origin: Which log.
        size: Leaves in its tree.
    """
    leaves = draw(sizes(256, MAX_SIZE) if size is None else size)
    return Checkpoint(
        origin=draw(log_names() if origin is None else origin),
        size=leaves,
        root=draw(digests()) if leaves else EMPTY_ROOT,
        extensions=tuple(draw(st.lists(_LINES, max_size=2))),
    )


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head as its log and witnesses signed it.

    Attributes:
        head: What is signed.
        note: Exact bytes.
        log: The log's key, named after its origin.
        witnesses: Keys of those who cosigned, each once.
    """

    head: Checkpoint
    note: bytes
    log: NoteVerifier
    witnesses: tuple[NoteVerifier, ...]


def note_signers(*, algorithm: NoteAlgorithm | None = None) -> SearchStrategy[NoteSigner]:
    """Return a strategy of signers of notes.

    Args:
        algorithm: Of a log's key, or of a witness's; either by default.
    """
    kinds = st.sampled_from(NoteAlgorithm) if algorithm is None else st.just(algorithm)
    return st.builds(
        lambda name, number, kind: NoteSigner(pooled(name, number), kind),
        log_names(),
        st.integers(0, POOL - 1),
        kinds,
    )


def note_verifiers(*, algorithm: NoteAlgorithm | None = None) -> SearchStrategy[NoteVerifier]:
    """Return a strategy of public keys that sign notes; options as of `note_signers`."""
    return note_signers(algorithm=algorithm).map(lambda signer: signer.verifier)


def note_signatures() -> SearchStrategy[NoteSignature]:
    """Return a strategy of signature lines of keys that nobody knows."""
    return st.builds(
        NoteSignature,
        log_names(),
        st.integers(0, (1 << 32) - 1),
        st.binary(min_size=1, max_size=80),
    )


@st.composite
def signed_heads(
    draw: st.DrawFn,
    *,
    head: SearchStrategy[Checkpoint] | None = None,
    witnesses: Ints = None,
    strangers: Ints = None,
) -> SignedHead:
    """Draw heads that their log signed, and witnesses.

    Args:
        draw: Of Hypothesis.
        head: What is signed; its origin is a name that a key may have.
        witnesses: Who cosigned it, three at most by default.
        strangers: Signatures of unknown keys, one at most by default.
    """
    found = draw(heads() if head is None else head)
    log = NoteSigner(pooled(found.origin, _LOG))
    note = sign_checkpoint(found, [log])
    count = draw(st.integers(0, 3) if witnesses is None else witnesses)
    cosigners = draw(st.lists(st.tuples(log_names(), _TIMES), min_size=count, max_size=count))
    known = []
    for number, (name, at) in enumerate(cosigners, _LOG + 1):
        signer = NoteSigner(pooled(name, number), NoteAlgorithm.COSIGNATURE)
        note = add_signatures(note, [cosign(found, signer, at)])
        known.append(signer.verifier)
    count = draw(st.integers(0, 1) if strangers is None else strangers)
    others = draw(st.lists(note_signatures(), min_size=count, max_size=count))
    return SignedHead(found, add_signatures(note, others), log.verifier, tuple(known))


def verified_heads(*, witnesses: Ints = None) -> SearchStrategy[VerifiedCheckpoint]:
    """Return a strategy of heads that were verified; options as of `signed_heads`."""
    return signed_heads(witnesses=witnesses).map(
        lambda signed: verify_checkpoint(
            signed.note, signed.log, signed.witnesses, len(signed.witnesses)
        )
    )


def notes() -> SearchStrategy[Note]:
    """Return a strategy of notes that were opened with every key that is known."""
    return signed_heads().map(
        lambda signed: open_note(signed.note, [signed.log, *signed.witnesses])
    )


def cosignatures() -> SearchStrategy[Cosignature]:
    """Return a strategy of what witnesses say."""
    return st.builds(Cosignature, log_names(), _TIMES)
