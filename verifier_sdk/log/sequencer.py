"""Give entries their places, and sign heads over them: one pass at a time over all processes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, func, insert, select, text, update

from coin_protocol.checkpoint import Checkpoint, sign_checkpoint
from coin_protocol.database.engine import reading, writing
from coin_protocol.errors import CoinError, ConfigurationError, LimitError, VerificationError
from coin_protocol.note import NoteAlgorithm, NoteSigner, NoteVerifier
from verifier_sdk.log import tree
from verifier_sdk.log.errors import LogDamagedError, LogForkError
from verifier_sdk.log.heads import Head, add_head, newest_head
from verifier_sdk.log.memory import HeadFile, own_head
from verifier_sdk.log.tables import ENTRY, SUBTREE
from verifier_sdk.log.tiles import TILE_WIDTH, Tile, TileCache, TileKey, TreeReader, read_hashes

HEAD_INTERVAL_SECONDS: Final = 0.9
"""From one head to the next while entries come: with the work of a pass, an entry has its head
within a second."""
POLL_SECONDS: Final = 0.1
"""How often the outbox is looked at: what comes after a pause waits no longer."""
MOST_AT_ONCE: Final = 2048
"""Entries in one transaction: some 50 ms of work, so that others get their turn to write."""

_LOG = logging.getLogger(__name__)
_LOCK: Final = 0x434F494E_4C4F47  # "CoINLOG": any number that others do not lock by
_CACHED_TILES: Final = 64
_PAUSE_AFTER_ERROR: Final = 1.0


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass did.

    Attributes:
        sequenced: Entries that were given their places.
        more: Whether some still waited, so that another pass is due at once.
        head: Signed now; None where nothing was new.
        seconds: That it took.
    """

    sequenced: int
    more: bool
    head: Head | None
    seconds: float


class Sequencer:
    """Appends what waits to the tree, and signs its heads. Any number may run on one database.

    A head is on disk before it leaves. None is signed unless the last one, that in the database
    and that in `head_file`, is a prefix of the tree: `LogForkError` then ends it all until an
    operator has decided.
    """

    def __init__(
        self,
        engine: Engine,
        signer: NoteSigner,
        *,
        origin: str,
        head_file: Path | None,
        older_keys: Sequence[NoteVerifier] = (),
    ) -> None:
        """Sequence the log in a database.

        Args:
            engine: Of the database, its tables made.
            signer: The log's key, Ed25519, named as `origin`.
            origin: Which log; the first line of its heads. Never another for one database.
            head_file: Where the last head is kept outside the database; kept out of its backups,
                it shows that the database is an old one. None leaves that to witnesses.
            older_keys: Keys of this log that signed before.

        Raises:
            ConfigurationError: The key is none of a log, or has another name than it.
        """
        key = signer.key
        if key.algorithm is not NoteAlgorithm.ED25519 or key.name != origin:
            msg = f"the key {signer.verifier.vkey} signs no heads of {origin!r}: name it so"
            raise ConfigurationError(msg)
        self.origin = origin
        self._engine = engine
        self._signer = signer
        self._keys = signer.verifier, *older_keys
        self._file = None if head_file is None else HeadFile(head_file)
        self._cache = TileCache(_CACHED_TILES)
        self._refused = ""

    def refuse(self, why: str) -> None:
        """Sign nothing more: a witness, say, holds a head that this tree does not bear out."""
        self._refused = why

    def run_once(self) -> Pass:
        """Sequence what waits, for a second at most, and sign a head if there is anything new.

        The first head of a log is signed even where it is empty.

        Raises:
            LogForkError: A head that was signed is not a prefix of the tree.
            LogDamagedError: Rows of the tree are missing.
            StoreUnavailableError: The database does not answer.
            InvalidInputError: The head file cannot be read or written.
        """
        start = time.monotonic()
        sequenced = count = self._sequence()
        while count == MOST_AT_ONCE and time.monotonic() - start < HEAD_INTERVAL_SECONDS:
            count = self._sequence()
            sequenced += count
        head = self._sign()
        return Pass(sequenced, count == MOST_AT_ONCE, head, time.monotonic() - start)

    def run(
        self,
        stop: threading.Event,
        *,
        head_interval: float = HEAD_INTERVAL_SECONDS,
        passed: Callable[[Pass], None] = lambda _pass: None,
    ) -> None:
        """Make passes until `stop`, also where the database fails; for a thread of its own.

        Args:
            stop: Ends it after the pass under way.
            head_interval: Seconds from one head to the next, another process's counted too.
            passed: Told of each pass that signed a head.

        Raises:
            LogForkError: A head that was signed is not a prefix of the tree.
            LogDamagedError: Rows of the tree are missing.
        """
        pause, due_at, own, more = 0.0, 0.0, -1, False
        while not stop.wait(pause):
            start = time.monotonic()
            pause = min(POLL_SECONDS, max(0.0, due_at - start))
            if not more and start < due_at:
                continue
            try:
                if not more and not self._is_due(own, head_interval):
                    pause = POLL_SECONDS
                    continue
                done = self.run_once()
            except (LogForkError, LogDamagedError) as error:
                _LOG.critical("the log is stopped: %s", error)
                raise
            except Exception as error:  # noqa: BLE001 - the thread must live on
                ours = isinstance(error, CoinError)
                shown = error if ours else type(error).__name__
                _LOG.warning("the log waits: %s", shown, exc_info=not ours)
                pause, more = _PAUSE_AFTER_ERROR, False
                continue
            more = done.more
            if done.head is not None:
                due_at, own = start + head_interval, done.head.size
                passed(done)

    def _is_due(self, own: int, head_interval: float) -> bool:
        """Whether anything is new, and no other process has signed just now."""
        with reading(self._engine) as connection:
            head = newest_head(connection)
            if head is None:
                return True
            since = time.time() - head.signed_at
            if head.size != own and 0 <= since < head_interval:  # below 0: a clock ahead of ours
                return False
            unsequenced = select(ENTRY.c.id).where(ENTRY.c.leaf_index.is_(None)).limit(1)
            if connection.execute(unsequenced).scalar() is not None:
                return True
            return _size(connection) != head.size

    def _sequence(self) -> int:
        """Give some entries their places; return how many."""
        with writing(self._engine) as connection:
            _lock(connection)
            size = _size(connection)
            self._require_ours(connection, size)
            ranked = (
                select(ENTRY.c.id, (func.row_number().over(order_by=ENTRY.c.id) - 1).label("rank"))
                .where(ENTRY.c.leaf_index.is_(None))
                .order_by(ENTRY.c.id)
                .limit(MOST_AT_ONCE)
                .subquery()
            )
            placed = connection.execute(
                update(ENTRY)
                .where(ENTRY.c.id == ranked.c.id)
                .values(leaf_index=size + ranked.c.rank)
                .returning(ENTRY.c.leaf_index, ENTRY.c.leaf_hash)
            ).all()
            if placed:
                fresh = [row.leaf_hash for row in sorted(placed, key=lambda row: row.leaf_index)]
                _add_subtrees(connection, size, fresh)
        return len(placed)

    def _sign(self) -> Head | None:
        """Sign a head over the whole tree, if there is none yet."""
        with writing(self._engine) as connection:
            _lock(connection)
            size = _size(connection)
            last = self._require_ours(connection, size)
            if last is not None and last.size == size:
                return None
            found = tree.root(size, TreeReader(connection, size, self._cache).node)
            note = sign_checkpoint(Checkpoint(self.origin, size, found), [self._signer])
            if self._file is not None:
                # Before it is committed, so that nothing ever leaves that this file has not seen.
                # The entries under it are on disk already, whatever becomes of this transaction.
                self._file.keep(note)
            head = Head(size, found, note, time.time())
            add_head(connection, head)
        return head

    def _require_ours(self, connection: Connection, size: int) -> Head | None:
        """Return the last head in the database, having checked that it and the file's hold.

        Raises:
            LogForkError: One of them is not a prefix of the tree.
        """
        if self._refused:
            raise LogForkError(self._refused)
        last = newest_head(connection)
        known = []
        if last is not None:
            try:
                known.append(("database", own_head(last.note, self._keys, self.origin)))
            except (VerificationError, LimitError) as error:
                msg = (
                    f"the newest head in the database is none of {self.origin!r} under a key that "
                    f"is known: {error}"
                )
                raise LogForkError(msg) from error
        kept = None if self._file is None else self._file.read(self._keys, self.origin)
        if kept is not None:
            known.append(("head file", kept))
        for where, head in known:
            self._require_prefix(connection, size, head, where)
        return last

    def _require_prefix(
        self, connection: Connection, size: int, head: Checkpoint, where: str
    ) -> None:
        if head.size > size:
            msg = (
                f"the {where} holds a head of {head.size} entries that this log signed, and its "
                f"tree has {size}: the database lost entries. Signing on would fork the log"
            )
            raise LogForkError(msg)
        found = tree.root(head.size, TreeReader(connection, head.size, self._cache).node)
        if found != head.root:
            msg = (
                f"this log signed {head.root.hex()} as root of {head.size} entries, as the {where} "
                f"shows, and its tree gives {found.hex()}: signing on would fork the log"
            )
            raise LogForkError(msg)


def _lock(connection: Connection) -> None:
    """Wait until no other process sequences; on SQLite a transaction that writes is alone."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _size(connection: Connection) -> int:
    """Return how many entries have their places."""
    last = connection.execute(select(func.max(ENTRY.c.leaf_index))).scalar()
    return 0 if last is None else int(last) + 1


def _add_subtrees(connection: Connection, size: int, fresh: Sequence[bytes]) -> None:
    """Add the full subtrees that fresh leaf hashes complete in a tree of `size` entries."""
    level, hashes = 0, list(fresh)
    while hashes:
        begun = size % TILE_WIDTH
        first = size // TILE_WIDTH
        if begun:
            if begun + len(hashes) < TILE_WIDTH:
                return
            hashes = read_hashes(connection, TileKey(level, first, begun)) + hashes
        roots = [
            Tile(hashes[at : at + TILE_WIDTH]).root
            for at in range(0, len(hashes) - TILE_WIDTH + 1, TILE_WIDTH)
        ]
        rows = [
            {"level": level + 1, "subtree_index": first + place, "root": found}
            for place, found in enumerate(roots)
        ]
        if rows:
            connection.execute(insert(SUBTREE), rows)
        level, size, hashes = level + 1, first, roots
