"""The port of a node's pages: its TLS files, renewed while it serves."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from coin_protocol.doctor import State
from coin_protocol.errors import ConfigurationError
from coin_protocol.transport import make_token
from tests.support.certificates import make_certificates
from tests.support.parties import WAIT_SECONDS
from verifier_sdk.node import doctor, http_server
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
    made = make_certificates(_folder(folder / name)).server
    other = made if key is None else make_certificates(_folder(folder / key)).server
    shutil.copy(made.certificate, folder / "node.pem")
    shutil.copy(other.key, folder / "node.key")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


async def shown(port: int) -> bytes:
    """Return the certificate that a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    raw: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return raw


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
    monkeypatch.setattr(http_server, "_LOOK_SECONDS", 0.02)
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
