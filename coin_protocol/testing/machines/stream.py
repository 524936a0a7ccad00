"""Reasoning tokens stream in, in chunks of any size, and the process dies now and then.

However ids arrive, the roots must be those of the whole list at once; no checkpoint that was
given out may be lost; what a crash cut off is closed at a full block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from coin_protocol.commitment import SessionSecret
from coin_protocol.profile import Profile
from coin_protocol.testing.machines.rules import Makes, require, token_root, tree_root
from coin_protocol.testing.small import VOCABULARY, small_profile

MOST_STREAMS: Final = 6
"""Open at a time."""

PICKS: Final = st.integers(0, 1 << 16)
"""Which of those that there are now, counted round and round."""


def chunk(count: int, seed: int) -> list[int]:
    """Return token ids of the small vocabulary, the same for the same numbers."""
    return [(seed + at * (2 * seed + 1)) % VOCABULARY for at in range(count)]


def chunks(most: int) -> st.SearchStrategy[list[int]]:
    """Return chunks of up to so many ids."""
    return st.builds(chunk, st.integers(0, most), st.integers(0, VOCABULARY - 1))


CHUNKS: Final = chunks(60)
"""Token ids, from none to several blocks of them."""

_BAD_IDS: Final = st.sampled_from([-1, VOCABULARY, 1 << 32])


class Head(NamedTuple):
    """A tree of blocks as it is signed: a checkpoint's, or a commitment's."""

    blocks: int
    tokens: int
    root: bytes


@dataclass(frozen=True)
class Closed:
    """How a stream ended.

    Attributes:
        head: As committed.
        blocks: Tokens and token root of each block, as the manifest lists them.
        heads: Checkpoints that had not been given out before.
    """

    head: Head
    blocks: Sequence[tuple[int, bytes]]
    heads: Sequence[Head] = ()


class StreamSystem(Protocol):
    """What commits to streams, over the small models (`coin_protocol.testing.small`)."""

    def begin(self) -> SessionSecret:
        """Begin a stream; tell its secret, which nobody else is told."""

    def append(self, session_id: bytes, token_ids: Sequence[int], *, wait: bool) -> Sequence[Head]:
        """Take ids; return the checkpoints given out now.

        Args:
            session_id: Of the stream.
            token_ids: As sampled.
            wait: Whether to wait until all that are due can be given out; else they may lag.

        Raises:
            ValueError: An id is outside the vocabulary; none of them was taken.
        """

    def finish(self, session_id: bytes) -> Closed:
        """End a stream."""

    def crash(self) -> Mapping[bytes, Closed]:
        """Die and start again over what was on disk.

        Returns:
            How each stream that was open has been closed, by session id. One of which no
            checkpoint was given out may be gone.
        """

    def close(self) -> None:
        """Let go of everything."""


@dataclass(eq=False)
class _Stream:
    """A stream as it must come out.

    Attributes:
        secret: As the system told it.
        block_size: Of the profile.
        token_ids: Taken so far.
        given: Blocks of the last checkpoint that was given out.
    """

    secret: SessionSecret
    block_size: int
    token_ids: list[int] = field(default_factory=list)
    given: int = 0
    _full: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def full_blocks(self) -> int:
        """Blocks that are full."""
        return len(self.token_ids) // self.block_size

    def blocks(self, tokens: int) -> list[tuple[int, bytes]]:
        """Return tokens and root of each block, had the stream ended after so many tokens."""
        whole, rest = divmod(tokens, self.block_size)
        while len(self._full) < whole:
            self._full.append((self.block_size, self._root(len(self._full), self.block_size)))
        last = [(rest, self._root(whole, rest))] if rest else []
        return [*self._full[:whole], *last]

    def head(self, tokens: int) -> Head:
        """Return what is signed of the first `tokens`."""
        blocks = self.blocks(tokens)
        return Head(len(blocks), tokens, tree_root(self.secret.session_id, blocks))

    def take(self, heads: Sequence[Head]) -> None:
        """Check checkpoints that were given out."""
        for head in heads:
            require(
                self.given < head.blocks <= self.full_blocks,
                f"a checkpoint of {head.blocks} blocks after one of {self.given}, "
                f"with {self.full_blocks} full",
            )
            require(
                head == self.head(head.blocks * self.block_size),
                f"the checkpoint after {head.blocks} blocks is not that of the ids at once",
            )
            self.given = head.blocks

    def require_all_given(self) -> None:
        """Check that the last checkpoint is that of the last full block."""
        require(
            self.given == self.full_blocks,
            f"{self.full_blocks} blocks are full, the last checkpoint is of {self.given}",
        )

    def end(self, closed: Closed, tokens: int) -> None:
        """Check that a stream ended after its first `tokens`."""
        require(closed.head == self.head(tokens), "the tree is not that of the ids at once")
        require([*closed.blocks] == self.blocks(tokens), "the manifest lists other blocks")

    def _root(self, index: int, count: int) -> bytes:
        start = index * self.block_size
        ids = self.token_ids[start : start + count]
        return token_root(self.secret.session_id, self.secret.secret, index, ids)


class StreamMachine(RuleBasedStateMachine):
    """Streams in chunks of any size, crashes between them.

    Attributes:
        make: Makes the system; a subclass sets it.
    """

    make: ClassVar[Makes[Profile, StreamSystem]]
    system: StreamSystem

    def __init__(self) -> None:
        """Begin with nothing open."""
        super().__init__()
        self.block_size = 1
        self.open: list[_Stream] = []
        self.stack = ExitStack()

    @initialize(block_size=st.integers(1, 9))
    def agree(self, block_size: int) -> None:
        """Agree on a profile."""
        self.block_size = block_size
        self.system = type(self).make(
            small_profile(block_size=block_size, window_tokens=min(block_size, 4))
        )
        self.stack.callback(self.system.close)

    @precondition(lambda self: len(self.open) < MOST_STREAMS)
    @rule()
    def begin(self) -> None:
        """Begin one more stream."""
        self._begun()

    @rule(pick=PICKS, token_ids=CHUNKS, wait=st.booleans())
    def append(self, pick: int, token_ids: list[int], *, wait: bool) -> None:
        """Append a chunk, of none to several blocks."""
        stream = self._picked(pick)
        stream.token_ids += token_ids
        stream.take(self.system.append(stream.secret.session_id, token_ids, wait=wait))
        if wait:
            stream.require_all_given()

    @rule(pick=PICKS, token_ids=CHUNKS, bad=_BAD_IDS, at=PICKS)
    def append_what_is_no_id(self, pick: int, token_ids: list[int], bad: int, at: int) -> None:
        """Append a chunk with a number in it that is no id: nothing of it may be taken."""
        stream = self._picked(pick)
        wrong = [*token_ids]
        wrong.insert(at % (len(wrong) + 1), bad)
        try:
            self.system.append(stream.secret.session_id, wrong, wait=True)
        except ValueError:
            return
        require(holds=False, message=f"{bad} was taken for a token id")

    @rule(pick=PICKS)
    def finish(self, pick: int) -> None:
        """End a stream: its tree is that of all ids at once, with a checkpoint a full block."""
        stream = self._picked(pick)
        self.open.remove(stream)
        closed = self.system.finish(stream.secret.session_id)
        stream.take(closed.heads)
        stream.require_all_given()
        stream.end(closed, len(stream.token_ids))

    @rule()
    def crash(self) -> None:
        """Die: what a checkpoint said stands, in what a stream is closed with."""
        found = self.system.crash()
        for stream in self.open:
            closed = found.get(stream.secret.session_id)
            if closed is None:
                require(stream.given == 0, f"{stream.given} blocks were given out, and are gone")
                continue
            kept = closed.head.tokens
            require(
                kept % self.block_size == 0, f"a crash left {kept} tokens, which no blocks hold"
            )
            require(
                stream.given <= closed.head.blocks <= stream.full_blocks,
                f"{stream.given} to {stream.full_blocks} blocks were full, "
                f"{closed.head.blocks} are left",
            )
            stream.end(closed, kept)
        self.open.clear()

    def teardown(self) -> None:
        """Close the system."""
        self.stack.close()

    def _begun(self) -> _Stream:
        secret = self.system.begin()
        used = {stream.secret.session_id for stream in self.open}
        require(secret.session_id not in used, "two streams have one session id")
        self.open.append(_Stream(secret, self.block_size))
        return self.open[-1]

    def _picked(self, pick: int) -> _Stream:
        return self.open[pick % len(self.open)] if self.open else self._begun()
