"""Fingerprint work that a dead or failed worker left behind goes on, and waits for no clock."""

from __future__ import annotations

import asyncio
import threading

from coin_protocol.encoding import digest
from coin_protocol.errors import StoreUnavailableError
from provider_sdk.fingerprints import FingerprintWorker
from provider_sdk.store.jobs import claim
from tests.support.parties import Parties
from tests.unit.store.conftest import MakeStore
from tests.unit.store.test_jobs import soon
from tests.unit.store.test_sql_store import reply


async def test_what_a_killed_worker_held_is_free_once_its_process_is_taken_for_dead(
    parties: Parties, make_store: MakeStore
) -> None:
    dead, living = make_store(lease_seconds=0.5), make_store(lease_seconds=0.5)
    with parties.provider(store=dead) as before, parties.provider(store=living) as after:
        key = digest((await reply(before)).choice.commitment.payload)
        assert claim(dead, FingerprintWorker(before, dead).name, 3600.0) is not None
        worker = FingerprintWorker(after, living)
        assert not worker.run_once()  # its process lives
        dead.writer.close()  # it shows no more signs of life, as if it had been killed
        assert await soon(worker.run_once)
        assert after.manifest(key)


async def test_a_worker_lets_go_of_what_it_held_when_the_database_failed_it(
    parties: Parties, make_store: MakeStore
) -> None:
    store, stop = make_store(), threading.Event()

    class Failed(FingerprintWorker):
        """Its connection dies right after it has taken a session."""

        failures = 0

        def run_once(self, stop: threading.Event | None = None) -> bool:
            if self.failures == 0:
                self.failures += 1
                assert claim(store, self.name, 3600.0) is not None
                msg = "the database does not answer"
                raise StoreUnavailableError(msg)
            assert stop is not None
            stop.set()
            return super().run_once()

    with parties.provider(store=store) as provider:
        key = digest((await reply(provider)).choice.commitment.payload)
        await asyncio.to_thread(Failed(provider, store).run, stop, 0.01)
        assert provider.manifest(key)
