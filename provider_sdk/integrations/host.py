"""The provider inside of somebody else's process: set up from the environment alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from provider_sdk.gateway.config import Settings
from provider_sdk.ops.metrics import Metrics
from provider_sdk.provider import Provider

T = TypeVar("T")

CONFIG: Final = "COIN_CONFIG"
"""Variable that names the TOML file; without it, settings come from `COIN_…` alone."""

_NOWHERE: Final = "http://in-process.invalid"


@dataclass(frozen=True)
class Host:
    """What a hook works with.

    Attributes:
        settings: The gateway's. Those of addresses and connections mean nothing here.
        provider: Commits and signs.
        metrics: Of this process.
    """

    settings: Settings
    provider: Provider
    metrics: Metrics


@contextmanager
def host_from_environment() -> Iterator[Host]:
    """Give a provider over its database, as `coin gateway` has it.

    Logging and tracing are left as the serving stack has set them up.

    Raises:
        ConfigurationError: A setting is missing or wrong, or keys or database cannot be used.
        StoreUnavailableError: The database does not answer.
    """
    # Here, as models and database are loaded by whoever uses them, and by no import.
    from coin_protocol.cli.common import load_profile, table_models
    from coin_protocol.ops.exposition import serve_metrics
    from provider_sdk.assembly import assembled, embedding
    from provider_sdk.gateway.config import load_settings
    from provider_sdk.ops import settings as shared

    named = os.environ.get(CONFIG)
    file = Path(named) if named else None
    own = load_settings(file, upstream=_NOWHERE)
    common = shared.load_settings(shared.ProviderSettings, file)
    metrics = Metrics()
    with ExitStack() as stack:
        if common.metrics_listen is not None:
            stack.enter_context(serve_metrics(metrics.registry, common.metrics_listen))
        with table_models(load_profile(common.profile)) as models:
            _ = models.table
        assembly = stack.enter_context(assembled(common, models, metrics))
        stack.enter_context(embedding(assembly, common.embedding_workers, metrics))
        yield Host(own, assembly.provider, metrics)


def open_for_good(opening: AbstractContextManager[T]) -> T:
    """Return what is opened, to be closed when this process ends.

    For stacks that say when they begin and not when they end. Handlers of `atexit` run after
    threads are waited for, and those of a provider wait to be told.
    """
    stack = ExitStack()
    opened = stack.enter_context(opening)

    def close() -> None:
        threading.main_thread().join()
        stack.close()

    threading.Thread(target=close, name="coin-close", daemon=False).start()
    return opened
