"""The port of a node's pages: its TLS files, renewed while it serves."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from coin_protocol.doctor import State
from coin_protocol.errors import ConfigurationError
from coin_protocol.ops import http_server as shared
from coin_protocol.transport import make_token
from tests.support.certificates import certificate_shown as shown
from tests.support.certificates import put_certificate
from tests.support.parties import WAIT_SECONDS
from verifier_sdk.node import doctor, http
from verifier_sdk.node.http import health_routes
from verifier_sdk.node.http_server import serving_http
from verifier_sdk.node.metrics import NodeMetrics
from verifier_sdk.node.settings import NodeSettings
from verifier_sdk.web.accounts import add_account


async def well() -> str:
    return ""


APP = Starlette(routes=health_routes(well))


def settings_of(folder: Path, **instead: Any) -> NodeSettings:
    """Return settings of a node with TLS files in a folder."""
    (folder / "tokens").write_text(make_token("ann").line + "\n")
    given: dict[str, Any] = {
        "name": "verifier",
        "key": "file:unused",
        "http_listen": "127.0.0.1:0",
        "http_certificate": folder / "node.pem",
        "http_key": folder / "node.key",
        "tokens": folder / "tokens",
    }
    return NodeSettings(**(given | instead))


def put(folder: Path, name: str, *, key: str | None = None) -> None:
    """Put a certificate of a new authority, and a key, where a node looks for them."""
    put_certificate(folder / "node.pem", folder / "node.key", name, key=key)


def reloads(metrics: NodeMetrics, outcome: str) -> float:
    found = metrics.registry.get_sample_value(
        "coin_reloads_total", {"what": "certificate", "outcome": outcome}
    )
    return found or 0.0


async def soon(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    while True:
        if holds():
            return
        await asyncio.sleep(0.02)


async def test_a_renewed_certificate_is_shown_and_one_that_does_not_fit_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "LOOK_SECONDS", 0.02)
    put(tmp_path, "first")
    metrics = NodeMetrics()
    async with (
        asyncio.timeout(WAIT_SECONDS),
        serving_http(settings_of(tmp_path), APP, metrics) as port,
    ):
        first = await shown(port)
        put(tmp_path, "second", key="foreign")
        await soon(lambda: reloads(metrics, "refused") > 0)
        assert await shown(port) == first
        put(tmp_path, "third")
        await soon(lambda: reloads(metrics, "used") > 0)
        wanted = ssl.PEM_cert_to_DER_cert((tmp_path / "node.pem").read_text())
        assert await shown(port) == wanted


async def test_however_many_ask_whether_it_is_ready_the_node_looks_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks, why = 0, "the database does not answer"

    async def ready() -> str:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        return why

    transport = httpx.ASGITransport(Starlette(routes=health_routes(ready)))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:

        async def asked() -> set[int]:
            answers = await asyncio.gather(*(client.get("/readyz") for _ in range(20)))
            return {answer.status_code for answer in answers}

        assert (await asked(), looks) == ({503}, 1)
        why = ""
        assert (await asked(), looks) == ({503}, 1)
        monkeypatch.setattr(http, "READY_SECONDS", 0.0)
        later = time.monotonic() + 1.0
        monkeypatch.setattr("verifier_sdk.node.http.time.monotonic", lambda: later)
        assert await asked() == {200}


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        ({"http_listen": "0.0.0.0:0", "tokens": None}, "needs http_certificate, http_key and"),
        (
            {"http_listen": "0.0.0.0:0", "http_certificate": None, "http_key": None},
            "needs http_certificate, http_key and tokens",
        ),
        ({"http_listen": "203.0.113.1:1"}, r"cannot listen on 203\.0\.113\.1:1: Cannot assign"),
        ({"http_listen": "nowhere.invalid:1"}, r"cannot listen on nowhere\.invalid:1: "),
        ({"http_key": Path("missing.key")}, "wanted readable PEM"),
    ],
)
async def test_what_cannot_be_served_is_said_before_anything_is(
    tmp_path: Path, instead: dict[str, Any], said: str
) -> None:
    put(tmp_path, "first")
    with pytest.raises(ConfigurationError, match=said):
        async with serving_http(settings_of(tmp_path, **instead), APP, NodeMetrics()):
            pass


def test_the_doctor_says_the_same(tmp_path: Path) -> None:
    put(tmp_path, "first")
    (tmp_path / "accounts").touch(mode=0o600)
    tls = {"certificate": tmp_path / "node.pem", "key": tmp_path / "node.key"}
    web = {"accounts": tmp_path / "accounts"}
    given = {"http_listen": "0.0.0.0:0", "tokens": None, "tls": tls, "web": web}
    found = {one.what: one for one in doctor._doors(settings_of(tmp_path, **given))}
    assert {what for what, one in found.items() if one.state is State.WRONG} == {
        *("gRPC", "HTTP", "pages")
    }
    assert found["certificate of HTTPS"].state is State.NOTE
    add_account(tmp_path / "some", "ann", "correct horse battery")
    mended = settings_of(tmp_path, tls=tls, web={"accounts": tmp_path / "some"})
    assert State.WRONG not in {one.state for one in doctor._doors(mended)}
