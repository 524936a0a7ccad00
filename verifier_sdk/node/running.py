"""A node that runs: servers, workers and what has to be done from time to time."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Engine
from starlette.applications import Starlette

from coin_protocol import transport
from coin_protocol.errors import CoinError, ConfigurationError, TryLaterError
from coin_protocol.profile import Policy, Profile
from verifier_sdk.log.http import log_app
from verifier_sdk.memory import SqlMemory
from verifier_sdk.node.assembly import (
    Bench,
    draw_secret,
    open_queue,
    open_targets,
)
from verifier_sdk.node.ending import end
from verifier_sdk.node.hosts import Hosts
from verifier_sdk.node.http import (
    Front,
    HttpSettings,
    health_routes,
    interface_routes,
    with_problems,
)
from verifier_sdk.node.http_server import serving_http
from verifier_sdk.node.intake import Intake
from verifier_sdk.node.log_keeping import keeping_log
from verifier_sdk.node.memory import NodeMemory
from verifier_sdk.node.metrics import NodeMetrics
from verifier_sdk.node.providers import Providers
from verifier_sdk.node.queues import DatabaseQueue
from verifier_sdk.node.repeating import repeating
from verifier_sdk.node.service import ServiceSettings, make_server
from verifier_sdk.node.settings import NodeSettings
from verifier_sdk.node.worker import Worker
from verifier_sdk.store.claims import Budget, Lease
from verifier_sdk.store.reading import answers, backlog, failed_share
from verifier_sdk.store.retention import purge
from verifier_sdk.store.signs import leave, sign
from verifier_sdk.web.app import web_app
from verifier_sdk.web.node_log import NodeLog

_LOG = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 10.0
_ANNOUNCE_SECONDS: Final = 0.5
_PURGE_SECONDS: Final = 3600.0
_MAINTAIN_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Ports:
    """Where a node is reached.

    Attributes:
        grpc: TCP port.
        http: TCP port; None where it serves no HTTP.
    """

    grpc: int
    http: int | None


@asynccontextmanager
async def working(
    settings: NodeSettings,
    engine: Engine,
    providers: Providers,
    bench: Bench,
    metrics: NodeMetrics,
    bell: asyncio.Event,
) -> AsyncIterator[None]:
    """Audit, as many at once as the settings say, until the block ends.

    Audits under way then have the grace period to finish; what is left of them others take over.

    Raises:
        ConfigurationError: A provider's TLS files, or the queue, cannot be used.
        TryLaterError: The message queue does not answer.
    """
    lease = Lease(
        worker=f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}",
        seconds=settings.lease_seconds,
        budgets=providers.budgets(settings.chosen_share),
        default_budget=Budget.of(settings.audits_per_day, settings.chosen_share),
    )
    async with AsyncExitStack() as stack:
        profile = bench.models.profile
        memory = SqlMemory(engine, profiles=[profile], folder=settings.memory_folder)
        stack.push_async_callback(asyncio.to_thread, memory.close)
        await stack.enter_async_context(
            repeating(partial(asyncio.to_thread, memory.maintain), _MAINTAIN_SECONDS)
        )
        remembered = NodeMemory(memory)
        targets = await open_targets(settings, bench, providers, remembered, stack)
        queue = await open_queue(settings, engine, bell)
        stack.push_async_callback(queue.close)
        await asyncio.to_thread(sign, engine, lease.worker)
        stack.push_async_callback(_leave, engine, lease.worker)
        await stack.enter_async_context(
            repeating(partial(asyncio.to_thread, sign, engine, lease.worker), _LOOK_SECONDS)
        )
        if not isinstance(queue, DatabaseQueue):
            await stack.enter_async_context(repeating(queue.announce, _ANNOUNCE_SECONDS))
        worker = Worker(
            engine,
            queue,
            targets,
            lease,
            observer=metrics,
            weigher=bench.weigher,
            remember=lambda name, bundle: remembered.with_verdict(
                bundle, trust=providers[name].trust, profile=profile, policy=bench.policy
            ),
            pauses=settings.retry_seconds,
        )
        stop = asyncio.Event()
        tasks = [asyncio.create_task(worker.run(stop)) for _ in range(settings.audits_at_once)]
        try:
            yield
        finally:
            stop.set()
            bell.set()
            _, late = await asyncio.wait(tasks, timeout=settings.grace_seconds)
            await asyncio.gather(*map(end, late), return_exceptions=True)


@asynccontextmanager
async def serving(
    settings: NodeSettings,
    engine: Engine,
    providers: Providers,
    profile: Profile,
    policy: Policy,
    metrics: NodeMetrics,
    bell: asyncio.Event,
) -> AsyncIterator[Ports]:
    """Serve gRPC and HTTP until the block ends.

    Raises:
        ConfigurationError: A port or a file of TLS cannot be used.
    """

    def kept(receipts: int) -> None:
        metrics.kept(receipts)
        bell.set()

    intake = Intake(
        engine,
        providers,
        secret=await asyncio.to_thread(draw_secret, engine),
        block_size=profile.message.block_size,
        failed_share=partial(failed_share, engine),
        quota=settings.quota,
        kept=kept,
    )
    tokens = None
    if settings.tokens is not None:
        tokens = transport.TokenFile(settings.tokens, metrics)
    rate = transport.RateLimit(per_second=settings.calls_per_second, burst=settings.calls_burst)
    async with AsyncExitStack() as stack:
        kept_log = None
        if settings.log is not None:
            kept_log = await stack.enter_async_context(keeping_log(settings.log, engine, metrics))
        server = await make_server(
            engine,
            intake,
            ServiceSettings(tokens=tokens, rate=rate, observer=metrics),
            asked=bell.set,
            log=None if kept_log is None else kept_log.log,
        )
        server.notice_seconds = settings.notice_seconds
        await stack.enter_async_context(repeating(partial(_look, engine, metrics), _LOOK_SECONDS))
        await stack.enter_async_context(
            repeating(partial(_purge, engine, settings.retention_days), _PURGE_SECONDS)
        )
        port = transport.bind(server, settings.listen, _grpc_tls(settings))
        http = None
        leaving = asyncio.Event()
        if settings.http_listen is not None:
            workers = transport.Workers(threads=4, queue=256)
            stack.callback(workers.close)
            # The log is everybody's: whoever floods it holds up no receipt.
            readers = transport.Workers(threads=4, queue=256)
            stack.callback(readers.close)
            routes = interface_routes(
                engine, intake, workers, HttpSettings(tokens=tokens, rate=rate), asked=bell.set
            )
            app = Front(
                interface=with_problems(
                    Starlette(
                        routes=[*routes, *health_routes(partial(_not_ready, engine, leaving))]
                    )
                ),
                log=None if kept_log is None else log_app(kept_log.log, readers),
                hosts=Hosts.of(
                    settings.http_hosts, settings.web.origins, tokens=tokens is not None
                ),
                pages=web_app(
                    engine=engine,
                    log=None
                    if kept_log is None
                    else NodeLog(kept_log.log, engine, kept_log.witnesses),
                    providers=providers.names,
                    settings=settings.web,
                    policies=[policy],
                ),
            )
            http = await stack.enter_async_context(serving_http(settings, app, metrics))
        await server.start()
        try:
            yield Ports(port, http)
        finally:
            leaving.set()
            await server.stop(settings.grace_seconds)


def _grpc_tls(settings: NodeSettings) -> transport.ServerTls | None:
    files = settings.tls
    if files is None:
        return None
    if files.authorities is not None:
        return transport.TlsFiles(files.certificate, files.key, files.authorities)
    if settings.tokens is None:
        msg = "tls needs authorities (client certificates) or a file of tokens: who may call?"
        raise ConfigurationError(msg)
    return transport.ServerTlsFiles(files.certificate, files.key)


async def _look(engine: Engine, metrics: NodeMetrics) -> None:
    metrics.behind(await asyncio.to_thread(backlog, engine))


async def _purge(engine: Engine, days: int) -> None:
    count = await asyncio.to_thread(purge, engine, days=days)
    if count:
        _LOG.info("%d audits are past their retention: receipts and bundles deleted", count)


async def _not_ready(engine: Engine, leaving: asyncio.Event) -> str:
    if leaving.is_set():
        return "the node is leaving"
    # Anybody may ask, as often as they like: it must cost next to nothing.
    try:
        await asyncio.wait_for(asyncio.to_thread(answers, engine), 2.0)
    except (TryLaterError, TimeoutError):
        return "the database does not answer"
    return ""


async def _leave(engine: Engine, worker: str) -> None:
    with suppress(CoinError):
        await asyncio.to_thread(leave, engine, worker)
