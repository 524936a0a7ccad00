"""The gateway as a pure ASGI application.

gateway = Gateway(settings, provider, rules)
uvicorn.run(gateway)          # or `coin gateway`, which does it with the right options
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from coin_protocol.delivery import RECEIPTS_PATH
from coin_protocol.errors import CoinError, LimitError, NotReadyError, TryLaterError
from coin_protocol.ops.exposition import exposition
from coin_protocol.ops.http_server import RETRY_SECONDS as BUSY_SECONDS
from coin_protocol.v1 import provider_service_pb2
from provider_sdk.gateway import problems
from provider_sdk.gateway.asgi import CROWDED, Client, ClientGoneError, Receive, Scope, Send
from provider_sdk.gateway.commits import Issuer
from provider_sdk.gateway.config import Reasoning, Settings
from provider_sdk.gateway.delivery import Deliveries, as_json
from provider_sdk.gateway.dialects import Endpoint, Rules
from provider_sdk.gateway.exchange import Exchange, House
from provider_sdk.gateway.headers import caller_digest
from provider_sdk.gateway.markers import MarkerIds, markers_from
from provider_sdk.gateway.passing import pass_through
from provider_sdk.gateway.plain import answer
from provider_sdk.gateway.problems import Problem
from provider_sdk.gateway.upstream import HttpUpstream, Upstream, UpstreamError
from provider_sdk.ops.metrics import Metrics
from provider_sdk.provider import Provider

_LOG = logging.getLogger(__name__)

RECEIPTS: Final = RECEIPTS_PATH
KEYS: Final = "/coin/v1/keys"
RETRY_SECONDS: Final = 1
_ALIVE: Final = "/healthz"
_GO_AWAY: Final = ((b"retry-after", b"%d" % BUSY_SECONDS), (b"connection", b"close"))
_PROTOBUF: Final = b"application/x-protobuf"


class Gateway:
    """Stands between clients and one upstream, and commits to what passes."""

    def __init__(
        self,
        settings: Settings,
        provider: Provider,
        *,
        metrics: Metrics | None = None,
        upstream: Upstream | None = None,
    ) -> None:
        """Resolve the models' markers; the upstream is not asked for anything yet.

        Args:
            settings: All of them.
            provider: Commits and signs. It stays the caller's to close.
            metrics: Of this process; by default of their own.
            upstream: What answers; by default the server that the settings name.

        Raises:
            ConfigurationError: Markers are unknown, or are no tokens of the tokenizer.
        """
        self.settings = settings
        self.provider = provider
        self.metrics = Metrics() if metrics is None else metrics
        self.upstream: Upstream = HttpUpstream(settings) if upstream is None else upstream
        self.deliveries = Deliveries(provider, settings.keep_missing)
        self._rules = all_rules(settings, provider)
        secret = settings.caller_key
        self._caller_key = b"" if secret is None else secret.get_secret_value().encode()
        self._house = House(
            settings=settings,
            issuer=Issuer(provider, self.deliveries, self.metrics, settings.vendor),
            upstream=self.upstream,
            rules=self._rules.get,
            default_rules=self._rules[""],
            caller_key=self._caller_key,
            metrics=self.metrics,
        )
        self._active: set[asyncio.Task[Any]] = set()
        self._open = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            # Nothing that passes here could be committed to.
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def start(self) -> None:
        """Open the pool of connections to the upstream."""
        await self.upstream.open()
        self._open = True

    async def stop(self) -> None:
        """Close what still streams as cancelled, then the pool. The server has stopped by now."""
        self._open = False
        left = set(self._active)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=self.settings.abort_seconds)
        await self.upstream.close()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - ASGI applications run in tasks
        self._active.add(task)
        settings = self.settings
        client = Client(scope, receive, send, stall_seconds=settings.client_stall_seconds)
        path: str = scope["path"]
        try:
            async with client:
                await self._guarded(client, scope, path)
        except asyncio.CancelledError:
            if not client.gone:
                raise
            # Cancelled by ourselves, for a client that is gone: nobody waits for an answer.
            task.uncancel()
        finally:
            self._active.discard(task)
            known = RECEIPTS.rstrip("/") if path.startswith(RECEIPTS) else path
            status = "499" if client.gone else str(client.status)
            self.metrics.gateway.requests.labels(path=known, status=status).inc()

    async def _guarded(self, client: Client, scope: Scope, path: str) -> None:
        """Answer, and let no exception reach another request."""
        try:
            await self._route(client, scope, path)
        except ClientGoneError:
            return
        except UpstreamError as error:
            self.metrics.gateway.upstream_failures.labels(kind=error.kind).inc()
            problem = Problem(error.status, f"upstream_{error.kind}", str(error))
            await self._fail(client, problem)
        except LimitError as error:
            self.metrics.gateway.upstream_failures.labels(kind="too_large").inc()
            await self._fail(client, Problem(502, "upstream_too_large", str(error)))
        except CoinError as error:
            await self._fail(client, Problem(502, "upstream_malformed", str(error)))
        except Exception:  # noqa: BLE001 - a bug of ours; the client can be told of it
            _LOG.exception("a request failed")
            await self._fail(client, problems.INTERNAL)

    async def _fail(self, client: Client, problem: Problem) -> None:
        if client.started:
            await client.cut()
        else:
            await answer(client, problem)

    async def _route(self, client: Client, scope: Scope, path: str) -> None:
        settings = self.settings
        if scope.get("extensions", {}).get(CROWDED) and path != _ALIVE:
            # Whoever asks whether the process lives must not end it, and every stream with it.
            await answer(client, problems.CROWDED, headers=_GO_AWAY)
            return
        own = self._own(path)
        if own is not None:
            if scope["method"] not in {"GET", "HEAD"}:
                await answer(client, problems.GET_ONLY)
            else:
                await own(client, scope)
            return
        endpoint = Endpoint.of(path)
        if endpoint is not None and scope["method"] == "POST" and settings.sign:
            await Exchange(self._house, client, scope, endpoint).run()
        elif not settings.sign or _passes(path, settings.pass_prefixes):
            await pass_through(client, scope, self.upstream, self.metrics)
        else:
            await answer(client, problems.NOT_FOUND)

    def _own(self, path: str) -> Any:  # noqa: ANN401 - one of four methods of one type
        if path.startswith(RECEIPTS):
            return self._receipt
        found = {KEYS: self._keys, _ALIVE: self._health, "/readyz": self._ready}.get(path)
        if found is None and path == self.settings.metrics_path:
            return self._metrics
        return found

    async def _receipt(self, client: Client, scope: Scope) -> None:
        """Hand a reply's delivery over again, to the caller that made it."""
        response_id = scope["path"].removeprefix(RECEIPTS)
        caller = caller_digest(scope["headers"], self._caller_key)
        try:
            found = await asyncio.to_thread(self.deliveries.find, response_id, caller)
        except NotReadyError as error:
            document = problems.Problem(202, "not_ready", str(error)).json()
            await _send(client, 202, b"application/json", document, retry=True)
        except TryLaterError:
            document = problems.STORE_DOWN.json()
            await _send(client, 503, b"application/json", document, retry=True)
        else:
            if found is None:
                await answer(client, problems.UNKNOWN_REPLY)
            else:
                await _send(client, 200, b"application/json", as_json(found))

    async def _keys(self, client: Client, scope: Scope) -> None:
        """Serve the signed key set, as a file of `coin keys` or as JSON."""
        raw = self.provider.served.to_bytes()
        if b"application/json" in dict(scope["headers"]).get(b"accept", b""):
            message = provider_service_pb2.GetKeySetResponse.FromString(raw)
            await _send(client, 200, b"application/json", as_json(message))
        else:
            await _send(client, 200, _PROTOBUF, raw)

    async def _health(self, client: Client, scope: Scope) -> None:
        """Say that the process runs."""
        del scope
        await _send(client, 200, b"text/plain", b"ok\n")

    async def _ready(self, client: Client, scope: Scope) -> None:
        """Say whether requests are taken: started, and neither stopping nor without a provider."""
        del scope
        if self._open and not self.provider.closed:
            await _send(client, 200, b"text/plain", b"ready\n")
        else:
            await answer(client, problems.CLOSING)

    async def _metrics(self, client: Client, scope: Scope) -> None:
        """Serve the metrics on this port, where that is configured."""
        del scope
        kind, body = exposition(self.metrics.registry)
        await _send(client, 200, kind.encode(), body)


def _passes(path: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a path begins with one of these, and stays below it."""
    return path.startswith(prefixes) and ".." not in path.split("/")


async def _send(
    client: Client, status: int, kind: bytes, body: bytes, *, retry: bool = False
) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    if retry:
        headers.append((b"retry-after", b"%d" % RETRY_SECONDS))
    await client.start(status, headers)
    await client.write(body)
    await client.end()


def all_rules(settings: Settings, provider: Provider) -> Mapping[str, Rules]:
    """Return the rules of each model that has its own, and under "" those of all others."""
    resolved: dict[str, MarkerIds] = {}
    found = {}
    for model, config in {"": settings.markers, **settings.model_markers}.items():
        key = repr(config)
        if key not in resolved:
            resolved[key] = MarkerIds.resolve(markers_from(config), provider.tokenizer)
        found[model] = Rules(
            tokenizer=provider.tokenizer,
            markers=resolved[key],
            hide_reasoning=settings.reasoning is Reasoning.HIDE,
        )
    return found
