"""The gateway's port: its TLS files, renewed while it serves."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from coin_protocol.ops import http_server as gateway_server
from provider_sdk.gateway.app import Gateway
from provider_sdk.gateway.server import Server
from tests.integration.gateway.standing import gateway_settings
from tests.support.certificates import certificate_shown, put_certificate
from tests.support.parties import WAIT_SECONDS, Parties
from tests.support.upstreams import Upstream, running


async def test_a_renewed_certificate_is_shown_without_a_restart(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_server, "LOOK_SECONDS", 0.02)
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    put_certificate(certificate, key, "first")
    async with running(Upstream(None, None)) as upstream, asyncio.timeout(WAIT_SECONDS):
        settings = gateway_settings(upstream, tls_certificate=certificate, tls_key=key)
        with parties.provider() as provider:
            started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            server = Server(Gateway(settings, provider), started=started.set_result)
            task = asyncio.create_task(server.serve())
            port = await started
            first = await certificate_shown(port)
            put_certificate(certificate, key, "second")
            wanted = ssl.PEM_cert_to_DER_cert(certificate.read_text())
            while await certificate_shown(port) != wanted:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)
            assert first != wanted
            server.should_exit = True
            await task
