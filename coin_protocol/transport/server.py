"""A `grpc.aio` server that says it is leaving before it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1.health import aio as health

from coin_protocol.transport.guard import Guard


class Server(aio.Server):
    """Another server with its health: stopping it turns health to NOT_SERVING first."""

    def __init__(
        self, inner: aio.Server, servicer: health.HealthServicer, guard: Guard | None
    ) -> None:
        """Stand before `inner`."""
        self.guard = guard
        self.health = servicer
        self.notice_seconds = 0.0
        self._inner = inner
        self._at_stop: list[Callable[[], None]] = []

    def at_stop(self, call: Callable[[], None]) -> None:
        """Call this when the last call has ended."""
        self._at_stop.append(call)

    async def stop(self, grace: float | None) -> None:
        """Tell health, leave `notice_seconds` for balancers to look, then drain for `grace`."""
        await self.health.enter_graceful_shutdown()
        if grace:
            await asyncio.sleep(self.notice_seconds)
        await self._inner.stop(grace)
        while self._at_stop:
            self._at_stop.pop()()

    async def start(self) -> None:
        """Serve."""
        await self._inner.start()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as in grpc
        """Wait until the server has stopped."""
        return await self._inner.wait_for_termination(timeout)

    def add_insecure_port(self, address: str) -> int:
        """Listen in plaintext."""
        return self._inner.add_insecure_port(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen under TLS."""
        return self._inner.add_secure_port(address, server_credentials)

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        """Serve these methods."""
        self._inner.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:  # noqa: ANN401 - as in grpc
        """Serve these methods."""
        self._inner.add_registered_method_handlers(service_name, method_handlers)
