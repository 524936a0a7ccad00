"""Embed committed sessions in the background, oldest first, in any number of processes.

The queue is the database: a worker takes one session at a time, holds it while it works, and
writes down block by block what it made, so that whoever goes on after a crash does not begin
again. Nothing piles up in memory, however far the workers are behind.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Row

from coin_protocol.embedding import quantised_windows, window_dimension, window_texts
from coin_protocol.errors import CoinError, StoreUnavailableError
from coin_protocol.quantise import row_bytes
from provider_sdk.provider import Provider
from provider_sdk.store.jobs import (
    MOST_ATTEMPTS,
    Claim,
    MadeBlock,
    claim,
    keep_fingerprints,
    keep_windows,
    let_go,
    put_off,
)
from provider_sdk.store.sql import SqlStore

_LOG = logging.getLogger(__name__)

CLAIM_SECONDS: Final = 120.0
"""How long a session is held without a word; a batch takes some seconds."""
BATCH_BLOCKS: Final = 16
"""Blocks embedded, and written down, together."""
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 3600.0


class FingerprintWorker:
    """Makes fingerprints, one session after the other."""

    def __init__(
        self,
        provider: Provider,
        store: SqlStore,
        *,
        batch_blocks: int = BATCH_BLOCKS,
        claim_seconds: float = CLAIM_SECONDS,
        embedded: Callable[[int], None] = lambda _blocks: None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; nothing is done before `run_once` or `run`.

        Args:
            provider: Embeds and signs.
            store: Where sessions are kept.
            batch_blocks: Blocks that are embedded, and written down, together.
            claim_seconds: How long a session is held without a word.
            embedded: Told of each batch: its blocks.
            failed: Told of each attempt that failed.
        """
        self.name = store.process_id + secrets.token_hex(16)
        self._provider = provider
        self._store = store
        self._batch_blocks = batch_blocks
        self._claim_seconds = claim_seconds
        self._embedded = embedded
        self._failed = failed

    def run(self, stop: threading.Event, idle_seconds: float = 1.0) -> None:
        """Work until `stop` is set, looking for more every `idle_seconds` where there is none."""
        failed = False
        while not stop.is_set():
            try:
                if failed:
                    let_go(self._store, self.name)
                    failed = False
                found = self.run_once(stop)
            except CoinError as error:
                _LOG.warning("fingerprints are put off: %s", error)
                failed, found = True, False
            except Exception:  # noqa: BLE001 - the thread must live on
                _LOG.exception("fingerprints are put off")
                failed, found = True, False
            if not found:
                stop.wait(idle_seconds)

    def run_once(self, stop: threading.Event | None = None) -> bool:
        """Make the fingerprints of the session that has waited longest.

        Args:
            stop: Ends the work between two batches; what was made by then is kept.

        Returns:
            Whether there was one.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        found = claim(self._store, self.name, self._claim_seconds)
        if found is None:
            return False
        session_id = found.session_id
        try:
            self._make(found, stop)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next one gets its turn
            _LOG.exception("fingerprints of session %s failed", session_id.hex())
            self._failed()
            pause = min(_FIRST_PAUSE * 2 ** (found.attempts - 1), _LONGEST_PAUSE)
            put_off(
                self._store,
                session_id,
                worker=self.name,
                failure=f"{type(error).__name__}, attempt {found.attempts} of {MOST_ATTEMPTS}",
                seconds=pause,
            )
        return True

    def _make(self, found: Claim, stop: threading.Event | None) -> None:
        session_id, safe = found.session_id, self._store.safe
        record = self._store.record(found.row, found.block_rows)
        windows = {
            row.block_index: safe.open_windows(session_id, row.block_index, row.windows)
            for row in found.block_rows
            if row.windows is not None
        }
        opener = self._provider.answerer.opener(record)
        missing = [row for row in found.block_rows if row.windows is None]
        for at in range(0, len(missing), self._batch_blocks):
            if stop is not None and stop.is_set():
                let_go(self._store, self.name)
                return
            batch = missing[at : at + self._batch_blocks]
            made = dict(self.embed(session_id, batch))
            blocks = {at: MadeBlock(made[at], opener.kept_nodes(at)) for at in made}
            if not keep_windows(
                self._store, session_id, blocks, worker=self.name, seconds=self._claim_seconds
            ):
                return  # taken for dead: another worker has it
            self._embedded(len(made))
            windows |= made
        record.windows = b"".join(windows[row.block_index] for row in found.block_rows)
        signed = self._provider.sign_fingerprints(record)
        keep_fingerprints(self._store, session_id, signed, worker=self.name)

    def embed(self, session_id: bytes, rows: Sequence[Row[Any]]) -> Iterator[tuple[int, bytes]]:
        """Yield each block's index and its quantised windows, one after the other."""
        provider = self._provider
        spec = provider.profile.message.embedding
        texts = [
            window_texts(
                provider.tokenizer,
                spec,
                self._store.safe.open_ids(session_id, row).slice(0, row.token_count).tolist(),
            )
            for row in rows
        ]
        flat = [text for block in texts for text in block]
        made = b"".join(quantised_windows(provider.embedder, spec, flat))
        width, at = row_bytes(window_dimension(spec)), 0
        for row, block in zip(rows, texts, strict=True):
            end = at + width * len(block)
            yield row.block_index, made[at:end]
            at = end
