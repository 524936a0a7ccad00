"""Put a provider together from its settings: keys, database, models, and what runs beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from coin_protocol.clock import SteadyClock
from coin_protocol.errors import CoinError
from coin_protocol.files import read_file
from coin_protocol.keyset import KeySetSource, pinned_verifiers, read_signed_key_set
from coin_protocol.models import Models
from coin_protocol.rotation import RotatingSigner
from coin_protocol.signer import Signer, signer_from_uri
from coin_protocol.statements import read_key_set
from provider_sdk.fingerprints import FingerprintWorker
from provider_sdk.ops.metrics import Metrics
from provider_sdk.ops.observers import StoreCounter, purge_observer
from provider_sdk.ops.settings import ProviderSettings
from provider_sdk.provider import Provider
from provider_sdk.recovery import Keeper
from provider_sdk.store import SqlStore, sealer_from_uri
from provider_sdk.store.jobs import lag

_WATCH_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Assembly:
    """A provider over its database."""

    provider: Provider
    store: SqlStore


@contextmanager
def assembled(settings: ProviderSettings, models: Models, metrics: Metrics) -> Iterator[Assembly]:
    """Give a provider over its database, with recovery and retention under way.

    Args:
        settings: Of this process.
        models: Of the profile that the settings name.
        metrics: Told what happens.

    Raises:
        ConfigurationError: Keys, database or verifiers cannot be used.
        StoreUnavailableError: The database does not answer.
    """
    with ExitStack() as stack:
        clock = SteadyClock()
        signer, key_set = _keys(settings, clock)
        verifiers = {name: read_file(path) for name, path in settings.verifiers.items()}
        store = SqlStore(
            settings.database.get_secret_value(),
            profile=models.profile,
            sealer=sealer_from_uri(settings.sealing_uri),
            deadline=settings.store_deadline_seconds,
            lease_seconds=settings.lease_seconds,
            observer=StoreCounter(metrics),
        )
        stack.callback(store.close)
        metrics.store.queue_length.set_function(lambda: float(store.writer.waiting))
        provider = stack.enter_context(
            Provider(
                name=settings.name,
                signer=signer,
                key_set=key_set,
                models=models,
                verifiers=pinned_verifiers(verifiers),
                store=store,
                clock=clock,
                retention=timedelta(days=settings.retention_days),
            )
        )
        keeper = Keeper(
            provider,
            store,
            retention_days=settings.retention_days,
            recovered=metrics.store.recovered.labels(outcome="crashed").inc,
            purged=purge_observer(metrics),
        )
        stack.callback(keeper.close)
        stop = threading.Event()
        watch = _Watch(provider, store, metrics)
        watcher = threading.Thread(target=watch.run, args=(stop,), name="coin-watch")
        watcher.start()
        stack.callback(watcher.join)
        stack.callback(stop.set)
        yield Assembly(provider, store)


@contextmanager
def embedding(assembly: Assembly, threads: int, metrics: Metrics) -> Iterator[None]:
    """Make fingerprints on so many threads, until the block ends; what is made then is kept."""
    stop = threading.Event()
    workers = [
        FingerprintWorker(
            assembly.provider,
            assembly.store,
            embedded=metrics.fingerprints.blocks.inc,
            failed=metrics.fingerprints.failures.inc,
        )
        for _ in range(threads)
    ]
    running = [
        threading.Thread(target=worker.run, args=(stop,), name=f"coin-embed-{number}")
        for number, worker in enumerate(workers)
    ]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join()


def _keys(settings: ProviderSettings, clock: SteadyClock) -> tuple[Signer, KeySetSource]:
    """Return what signs, and the key set to serve; a key folder follows rotations."""
    if settings.signer is None:
        rotating = RotatingSigner(settings.keys, settings.name, clock=clock.utc)
        return rotating, rotating
    key_set = read_signed_key_set(settings.keys / "keyset.binpb")
    return signer_from_uri(settings.signer_uri, settings.name), key_set


class _Watch:
    """Sets what is measured by looking, every few seconds."""

    def __init__(self, provider: Provider, store: SqlStore, metrics: Metrics) -> None:
        """Hold what is looked at."""
        self._provider = provider
        self._store = store
        self._metrics = metrics
        self._failures = 0
        self._keyid = provider.signer.public.keyid

    def run(self, stop: threading.Event) -> None:
        """Look until `stop` is set."""
        while True:
            for look in (self._keys, self._writes, self._lag):
                with suppress(CoinError):  # one that cannot be had leaves the others
                    look()
            if stop.wait(_WATCH_SECONDS):
                return

    def _keys(self) -> None:
        keyid = self._provider.signer.public.keyid
        if keyid != self._keyid:
            self._metrics.keys.rotations.inc()
            self._keyid = keyid
        listed = read_key_set(self._provider.key_set.payload).find(keyid)
        if listed is not None:
            self._metrics.keys.signing_key_ends.set(listed.end.timestamp())

    def _writes(self) -> None:
        failures = self._store.writer.failures
        self._metrics.store.write_retries.inc(failures - self._failures)
        self._failures = failures

    def _lag(self) -> None:
        behind = lag(self._store)
        self._metrics.fingerprints.lag_blocks.set(behind.blocks)
        self._metrics.fingerprints.oldest_waiting_seconds.set(behind.seconds)
        self._metrics.fingerprints.given_up.set(behind.failed)
