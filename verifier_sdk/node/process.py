"""What a process of a node has, whatever it does: logs, traces, metrics, the database, an end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Engine

from coin_protocol.ops.certificates import certificate_end
from coin_protocol.ops.exposition import serve_metrics
from coin_protocol.ops.heap import give_back, share_heap
from coin_protocol.ops.logs import configure_logging
from coin_protocol.ops.tracing import configure_tracing
from verifier_sdk.node.assembly import open_database
from verifier_sdk.node.metrics import NodeMetrics
from verifier_sdk.node.repeating import repeating
from verifier_sdk.node.settings import NodeSettings

_GIVE_BACK_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Process:
    """A process of a node.

    Attributes:
        engine: Of the node's database.
        metrics: Of this process.
        metrics_port: Where they are served; None where they are not.
        stop: Set by SIGTERM and SIGINT.
    """

    engine: Engine
    metrics: NodeMetrics
    metrics_port: int | None
    stop: asyncio.Event


@asynccontextmanager
async def running_process(settings: NodeSettings) -> AsyncIterator[Process]:
    """Set a process up, and take it down when the block ends.

    Raises:
        ConfigurationError: A port or the database cannot be used.
        MissingDependencyError: Traces are asked for, and no exporter is installed.
        StoreUnavailableError: The database does not answer.
    """
    configure_logging(
        level=settings.log_level, output=settings.log_format, secrets=settings.secret_values()
    )
    share_heap()
    metrics, port = NodeMetrics(), None
    with ExitStack() as stack:
        stack.callback(configure_tracing())
        if settings.metrics_listen is not None:
            served = serve_metrics(metrics.registry, settings.metrics_listen)
            port = stack.enter_context(served).port
        _watch_certificates(settings, metrics)
        # Before models are loaded: the first process of a container gets no signal unhandled.
        stop = _stop()
        engine = open_database(settings)
        stack.callback(engine.dispose)
        async with repeating(partial(asyncio.to_thread, give_back), _GIVE_BACK_SECONDS):
            yield Process(engine, metrics, port, stop)


def _watch_certificates(settings: NodeSettings, metrics: NodeMetrics) -> None:
    """Have the metrics say when the first of the certificates ends."""
    files = [] if settings.tls is None else [settings.tls.certificate]
    if settings.http_certificate is not None:
        files.append(settings.http_certificate)
    if files:
        # 0 where one cannot be read now.
        metrics.certificate_ends.set_function(lambda: min(map(certificate_end, files)))


def _stop() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
