"""CoIn as an ASGI middleware: in process what the gateway does as a proxy.

Add the class to an application that speaks OpenAI's API; settings come from the environment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Final

from coin_protocol.errors import CoinError
from provider_sdk.gateway.app import KEYS, RECEIPTS, Gateway
from provider_sdk.gateway.asgi import Message, Receive, Scope, Send
from provider_sdk.gateway.dialects import Endpoint
from provider_sdk.integrations.host import Host, host_from_environment
from provider_sdk.integrations.inner import OUTER_SCOPE, Application, AsgiUpstream

_LOG = logging.getLogger(__name__)

_UNAVAILABLE: Final = b"CoIn is not started: this server calls no lifespan\n"


class CoinMiddleware:
    """Commits to the reasoning of an application's replies. Pure ASGI.

    The provider is opened when the server starts and closed after the application has stopped. A
    server whose settings are wrong does not start.
    """

    def __init__(
        self,
        app: Application,
        host: Callable[[], AbstractContextManager[Host]] = host_from_environment,
    ) -> None:
        """Hold the application; nothing is opened yet.

        Args:
            app: Whatever answers requests.
            host: Opens the provider. Called on a thread.
        """
        self._app = app
        self._opening = host
        self._stack = ExitStack()
        self._gateway: Gateway | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer requests to committed paths and for receipts; all else is the application's."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        path = _path(scope) if scope["type"] == "http" else ""
        endpoint = Endpoint.of(path) is not None and scope["method"] == "POST"
        if not (endpoint or path == KEYS or path.startswith(RECEIPTS)):
            await self._app(scope, receive, send)
        elif self._gateway is None:
            await _refuse(send)
        elif endpoint and not self._gateway.settings.sign:
            await self._app(scope, receive, send)
        else:
            token = OUTER_SCOPE.set(scope)
            try:
                await self._gateway({**scope, "path": path}, receive, send)
            finally:
                OUTER_SCOPE.reset(token)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        first: Message | None = await receive()
        try:
            await self._start()
        except Exception as error:  # noqa: BLE001 - not started, whatever the reason
            # Said as the protocol has it: servers take an exception for "no lifespan", and serve.
            if not isinstance(error, CoinError):
                _LOG.exception("CoIn cannot start")
                error = CoinError(type(error).__name__)
            await send({"type": "lifespan.startup.failed", "message": f"CoIn: {error}"})
            return

        async def told() -> Message:
            nonlocal first
            if first is not None:
                message, first = first, None
                return message
            message = await receive()
            # Before the application stops: what still streams is closed while it generates.
            await self._stop()
            return message

        try:
            await self._app(scope, told, send)
        finally:
            await self._stop()

    async def _start(self) -> None:
        host = await asyncio.to_thread(self._stack.enter_context, self._opening())
        upstream = AsgiUpstream(self._app, host.settings)
        gateway = Gateway(host.settings, host.provider, metrics=host.metrics, upstream=upstream)
        await gateway.start()
        self._gateway = gateway

    async def _stop(self) -> None:
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            await gateway.stop()
        await asyncio.to_thread(self._stack.close)


def _path(scope: Scope) -> str:
    """Return the path below the application's own root."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % len(_UNAVAILABLE)),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _UNAVAILABLE})
