"""Close what dead processes left open, and delete what is past its retention."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from coin_protocol.errors import CoinError, TryLaterError
from coin_protocol.limits import CLOCK_SKEW_SECONDS
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import statements_pb2
from provider_sdk.provider import Provider
from provider_sdk.record import Delivered
from provider_sdk.store.jobs import Abandoned, purge, take_abandoned
from provider_sdk.store.sql import SqlStore

_LOG = logging.getLogger(__name__)

_NOTE: Final = (
    "The process that generated this reply died. The commitment covers the full blocks that were "
    "on disk, and bills nothing else."
)
_DAY: Final = 86_400.0


def recover(provider: Provider, store: SqlStore) -> int:
    """Close every session whose process is dead, as crashed; return how many there were.

    What a client holds of them stays true: no checkpoint left before its block was on disk, so
    each is a prefix of what is committed to here. One that cannot be closed (its sealing key is
    gone) does not hold up the others, and is tried again the next time.

    Raises:
        TryLaterError: Store or signer do not answer.
    """
    closed, failed = 0, set[bytes]()
    while (left := take_abandoned(store, besides=failed)) is not None:
        try:
            _close(provider, store, left)
        except TryLaterError:
            store.give_up(left.session_id)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next one gets its turn
            store.give_up(left.session_id)
            failed.add(left.session_id)
            _LOG.error("session %s cannot be closed: %s", left.session_id.hex(), _why(error))
        else:
            closed += 1
    return closed


def _close(provider: Provider, store: SqlStore, left: Abandoned) -> None:
    opened = store.opened(left.row)
    session = provider.session_class(provider, opened)
    for row in left.block_rows:
        session.take(store.safe.open_ids(left.session_id, row).slice(0, row.token_count))
    record = session.close(
        answer=b"",
        answer_tokens=0,
        usage=usage_for(
            prompt_tokens=0, reasoning_tokens=session.token_count, answer_tokens=0, counting=INSIDE
        ),
        summary=None,
        id_source=statements_pb2.ID_SOURCE_SAMPLED,
        abort_reason=statements_pb2.ABORT_REASON_CRASHED,
    )
    store.finish(record, session.block(session.block_count), Delivered((_NOTE,))).result()


def _why(error: Exception) -> str:
    """Say what happened; of an error that is not ours only its kind, as its text may be a key's."""
    return str(error) if isinstance(error, CoinError) else type(error).__name__


class Keeper:
    """Recovers and purges in the background, until it is closed."""

    def __init__(
        self,
        provider: Provider,
        store: SqlStore,
        *,
        retention_days: float,
        recovered: Callable[[int], None] = lambda _count: None,
        purged: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """Start the thread.

        Args:
            provider: Signs what is closed.
            store: Where sessions are kept.
            retention_days: After which a session's secrets are deleted, give or take the skew of
                honest clocks.
            recovered: Told each time how many sessions were closed as crashed.
            purged: Told each time how many sessions were purged.
        """
        self._provider = provider
        self._store = store
        # Longer than promised, or a verifier whose clock is a little behind would call it broken.
        self._retention_seconds = retention_days * _DAY + CLOCK_SKEW_SECONDS
        self._recovered = recovered
        self._purged = purged
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="coin-keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and wait for what is under way."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            for what, job, told in (
                ("recovery", self._recover, self._recovered),
                ("retention", self._purge, self._purged),
            ):
                try:
                    count = job()
                except CoinError as error:
                    _LOG.warning("%s is put off: %s", what, error)
                except Exception:  # noqa: BLE001 - the thread must live on
                    _LOG.exception("%s failed", what)
                else:
                    told(count)
            if self._stop.wait(self._store.lease_seconds / 2):
                return

    def _recover(self) -> int:
        return recover(self._provider, self._store)

    def _purge(self) -> int:
        return purge(self._store, older_than_seconds=self._retention_seconds)
