"""Signing keys are added, overlap, end and are revoked, while statements are signed.

Each statement must verify under the key set that a client has or can get at that time; no key signs
outside its window; key sets only grow, and so do their sequence numbers; what is listed once is
taken back by a revocation alone. Clocks jump, by no more than honest ones may differ where they go
back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from coin_protocol import envelope
from coin_protocol.errors import VerificationError
from coin_protocol.keys import KeyRing, VerificationKey
from coin_protocol.statements import read_key_set
from coin_protocol.testing.machines.rules import Makes, require
from coin_protocol.testing.machines.stream import PICKS
from coin_protocol.v1 import envelope_pb2

Clock = Callable[[], datetime]

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
SKEW: Final = timedelta(seconds=300)
"""By how much honest clocks differ."""

MOST_KEYS: Final = 500
"""Fewer than a key set may list."""

_DAY: Final = 86_400
_OVERLAPS: Final = st.integers(2 * int(SKEW.total_seconds()), 10 * _DAY)
"""In seconds. A shorter one could end before what was signed by a clock that was ahead."""


class KeySystem(Protocol):
    """What signs statements with keys that change, by a clock that it is given."""

    @property
    def root(self) -> VerificationKey:
        """What clients pin."""

    def rotate(
        self, valid_for: timedelta, overlap: timedelta, *, dies_after: int | None = None
    ) -> bool | None:
        """Add a signing key; those in use stay valid for the overlap at least.

        Args:
            valid_for: Length of the new key's window, from now on.
            overlap: As above.
            dies_after: What changes the keys dies after so many steps, if it takes so many. None
                to let it live. A system without steps may take no notice.

        Returns:
            Whether there is a new key; None where it died.
        """

    def revoke(self, keyid: str, at: datetime) -> bool:
        """Date the revocation of a key; return whether that was done."""

    def sign(self, payload: bytes) -> envelope_pb2.Envelope | None:
        """Sign a commitment's bytes now; None where no window holds."""

    def served(self) -> envelope_pb2.Envelope:
        """Return the key set as a client is given it now."""

    def restart(self) -> None:
        """Have what signs die, and start again over what was on disk."""

    def close(self) -> None:
        """Let go of everything."""


@dataclass(frozen=True)
class _Window:
    """When a key's signatures count."""

    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None

    def holds(self, at: datetime) -> bool:
        """Whether a signature dated so counts."""
        return self.not_before <= at < self.not_after and (
            self.revoked_at is None or at < self.revoked_at
        )


@dataclass(frozen=True)
class _KeySet:
    """A key set as somebody has it."""

    signed: envelope_pb2.Envelope = field(repr=False)
    ring: KeyRing = field(repr=False)
    sequence: int
    issued_at: datetime
    windows: Mapping[str, _Window]

    @classmethod
    def read(cls, signed: envelope_pb2.Envelope, root: VerificationKey) -> _KeySet:
        """Read what was served.

        Raises:
            VerificationError: The root has not signed it, or it is malformed.
        """
        ring = read_key_set(envelope.verify_with_key(signed, envelope.KEY_SET, root))
        windows = {
            listed.key.keyid: _Window(listed.not_before, listed.not_after, listed.revoked_at)
            for listed in ring.keys
        }
        return cls(signed, ring, ring.sequence, ring.issued_at or START, windows)

    def valid(self, at: datetime) -> list[str]:
        """Return the keys whose window holds then."""
        return [keyid for keyid, window in self.windows.items() if window.holds(at)]


@dataclass(frozen=True)
class _Statement:
    """A statement, and when it was signed by the provider's clock."""

    at: datetime
    signed: envelope_pb2.Envelope = field(repr=False)

    @property
    def keyid(self) -> str:
        """Of the key that signed it."""
        return self.signed.signatures[0].keyid


@dataclass(eq=False)
class _Client:
    """Somebody who has a key set, which may be an old one."""

    held: _KeySet


class RotationMachine(RuleBasedStateMachine):
    """Rotations, revocations, restarts and clocks that jump, between signatures.

    Attributes:
        make: Makes the system; a subclass sets it.
    """

    make: ClassVar[Makes[Clock, KeySystem]]
    system: KeySystem

    statements: Bundle[_Statement] = Bundle("statements")
    clients: Bundle[_Client] = Bundle("clients")

    def __init__(self) -> None:
        """Begin at some time."""
        super().__init__()
        self.stack = ExitStack()
        self.now = self.latest = START
        self.newest: _KeySet | None = None
        self.signed = 0

    @initialize()
    def begin(self) -> None:
        """Make the first key."""
        self.system = type(self).make(lambda: self.now)
        self.stack.callback(self.system.close)
        self._looked()

    @rule(seconds=st.integers(0, 600) | st.integers(0, 40 * _DAY))
    def time_passes(self, seconds: int) -> None:
        """Let the clock go on."""
        self.now += timedelta(seconds=seconds)
        self.latest = max(self.latest, self.now)

    @rule(seconds=st.integers(1, int(SKEW.total_seconds())))
    def clock_is_set_back(self, seconds: int) -> None:
        """Set the clock back, by as much as honest ones may be behind."""
        self.now = max(self.now - timedelta(seconds=seconds), self.latest - SKEW)

    @precondition(lambda self: self._keys < MOST_KEYS)
    @rule(
        valid_for=st.integers(3600, 60 * _DAY),
        overlap=_OVERLAPS,
        dies_after=st.none() | st.integers(0, 25),
    )
    def rotate(self, valid_for: int, overlap: int, dies_after: int | None) -> None:
        """Add a key; whoever does it may die meanwhile."""
        before, then = self._looked(), timedelta(seconds=overlap)
        done = self.system.rotate(timedelta(seconds=valid_for), then, dies_after=dies_after)
        after = self._looked()
        require(done is not False, "a rotation was refused")
        if after.sequence == before.sequence:
            require(done is None, "there is no new key")
            return
        added = [keyid for keyid in after.windows if keyid not in before.windows]
        require(len(added) == 1, f"{len(added)} keys came by one rotation")
        require(after.windows[added[0]].holds(self.now), "the new key does not count yet")
        for keyid in before.valid(self.now):
            old, new = before.windows[keyid], after.windows[keyid]
            require(
                new.not_after >= min(old.not_after, self.now + then),
                "a key in use ends before the overlap does",
            )
            require(new.revoked_at == old.revoked_at, "a rotation changed a revocation")

    @rule(pick=PICKS, ago=st.integers(-600, 2 * _DAY))
    def revoke(self, pick: int, ago: int) -> None:
        """Revoke a key, dated back or ahead."""
        before = self._looked()
        keyid = [*before.windows][pick % len(before.windows)]
        at, window = self.now - timedelta(seconds=ago), before.windows[keyid]
        revoked = replace(before, windows={**before.windows, keyid: replace(window, revoked_at=at)})
        # Dated ahead, it must leave a key for then.
        can = window.holds(at) and revoked.valid(max(self.now, before.issued_at, at))
        done = self.system.revoke(keyid, at)
        after = self._looked()
        require(done == bool(can), f"a revocation was {'done' if done else 'refused'}")
        wanted = revoked if done else before
        require(after.windows == wanted.windows, "a revocation changed something else")

    @rule(target=statements)
    def sign(self) -> _Statement | MultipleResults[_Statement]:
        """Sign a statement: a client verifies it under the key set that it is given then."""
        self.signed += 1
        signed = self.system.sign(f"statement {self.signed}".encode())
        newest = self._looked()
        if signed is None:
            require(not newest.valid(self.now), "nothing was signed, though a window holds")
            return multiple()
        made = _Statement(self.now, signed)
        self._verified(made, newest)
        require(newest.windows[made.keyid].holds(self.now), "a key signed outside its window")
        return made

    @rule(target=clients)
    def meet(self) -> _Client:
        """Give somebody the key set of now, to keep."""
        return _Client(self._looked())

    @rule(client=clients, statement=statements)
    def check(self, client: _Client, statement: _Statement) -> None:
        """Have somebody check a statement, under an old key set where it lists the key."""
        if statement.keyid not in client.held.windows:
            client.held = self._looked()
        self._verified(statement, client.held)
        window = client.held.windows[statement.keyid]
        require(
            window.not_before <= statement.at < window.not_after,
            "a window was drawn in past a statement that it held",
        )

    @rule(client=clients)
    def refresh(self, client: _Client) -> None:
        """Give somebody the key set of now, in place of an older one."""
        self._continues(client.held, self._looked())
        client.held = self._looked()

    @rule()
    def restart(self) -> None:
        """Have the signing process die, and start again."""
        self.system.restart()

    @invariant()
    def key_sets_only_grow(self) -> None:
        """Look at the key set that is served."""
        self._looked()

    def teardown(self) -> None:
        """Close the system."""
        self.stack.close()

    @property
    def _keys(self) -> int:
        return 0 if self.newest is None else len(self.newest.windows)

    def _looked(self) -> _KeySet:
        """Return the key set that is served now, held against the one before."""
        signed = self.system.served()
        if self.newest is not None and self.newest.signed == signed:
            return self.newest
        try:
            found = _KeySet.read(signed, self.system.root)
        except VerificationError as error:
            require(holds=False, message=f"a client cannot take the key set: {error}")
            raise
        if self.newest is not None:
            self._continues(self.newest, found)
        self.newest = found
        return found

    def _continues(self, older: _KeySet, newer: _KeySet) -> None:
        """Check that a client with one key set may take the other in its place."""
        if newer.signed == older.signed:
            return
        require(
            newer.sequence > older.sequence,
            f"key set {newer.sequence} came after {older.sequence}, and is another",
        )
        for keyid, old in older.windows.items():
            new = newer.windows.get(keyid)
            if new is None:
                require(holds=False, message="a key was dropped from the key set")
                return
            require(new.not_before == old.not_before, "a window begins at another time")
            require(new.not_after <= old.not_after, "a window was drawn out")
            earlier = old.revoked_at is None or (
                new.revoked_at is not None and new.revoked_at <= old.revoked_at
            )
            require(earlier, "a revocation was taken back, or put off")

    def _verified(self, statement: _Statement, held: _KeySet) -> None:
        try:
            envelope.verify(statement.signed, envelope.COMMITMENT, held.ring)
        except VerificationError as error:
            require(holds=False, message=f"a statement does not verify: {error}")
