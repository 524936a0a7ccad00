"""Slow, greedy and curious clients of a node's HTTP port, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from coin_protocol.ops import http_server as witness_server
from coin_protocol.signer import KeySigner, write_private_key
from coin_protocol.transport import make_token
from provider_sdk.provider import Provider
from tests.support.nodes import NodeParts, running_node
from tests.support.parties import WAIT_SECONDS, Parties, run_session
from tests.support.servers import serving
from tests.support.web_site import write_accounts
from verifier_sdk.node import http as interface

PROTOBUF = {"content-type": "application/x-protobuf"}


@asynccontextmanager
async def node(
    parties: Parties, engine: Engine, folder: Path, target: str = "127.0.0.1:1", **settings: Any
) -> AsyncIterator[int]:
    """Run a node with HTTP; give the port."""
    given = {"http_listen": "127.0.0.1:0"} | settings
    parts = NodeParts(parties, engine, target, share=0.0, settings=given)
    async with running_node(parts, folder, workers=target != "127.0.0.1:1") as client:
        assert client.ports.http is not None
        yield client.ports.http


async def all_of(port: int, sent: bytes) -> bytes:
    """Send bytes and nothing more; return what comes until the other side hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), WAIT_SECONDS)
    finally:
        writer.close()


async def test_a_head_that_does_not_end_is_hung_up_on(
    parties: Parties, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness_server, "HEAD_SECONDS", 0.2)
    async with node(parties, engine, tmp_path) as port:
        for sent in (b"", b"GET / HT", b"POST /coin/v1/receipts HTTP/1.1\r\nhost: n\r\n"):
            assert await all_of(port, sent) == b""
        assert b"200 OK" in await all_of(
            port, b"GET /livez HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n"
        )


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/coin/v1/receipts", "application/x-protobuf"),
        ("/login", "application/x-www-form-urlencoded"),
    ],
)
async def test_a_body_that_does_not_end_is_given_up(
    parties: Parties,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    kind: str,
) -> None:
    monkeypatch.setattr(interface, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(witness_server, "HEAD_SECONDS", 0.2)
    web = {"accounts": write_accounts(tmp_path)}
    async with node(parties, engine, tmp_path, web=web) as port:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: {kind}\r\n"
            "sec-fetch-site: same-origin\r\ncontent-length: 1000\r\n\r\nx"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_SECONDS)
        assert answer.startswith(b"HTTP/1.1 400")
        # What comes after the answer is waited for no longer than a head is.
        writer.write(b"x")
        await asyncio.wait_for(reader.read(), WAIT_SECONDS)
        writer.close()


async def test_a_head_without_end_costs_no_memory(
    parties: Parties, engine: Engine, tmp_path: Path
) -> None:
    async with node(parties, engine, tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: n\r\nx: ")
        sent = 0
        async with asyncio.timeout(WAIT_SECONDS):
            with suppress(ConnectionError):
                while not reader.at_eof() and sent < 64 << 20:
                    writer.write(b"a" * 65_536)
                    await writer.drain()
                    sent += 65_536
                    await asyncio.sleep(0)
        writer.close()
    # What the kernel holds on both sides is all that was taken.
    assert sent < 32 << 20


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "x"])
async def test_no_compressed_body_is_unpacked(
    parties: Parties, engine: Engine, tmp_path: Path, encoding: str
) -> None:
    async with node(parties, engine, tmp_path) as port:
        url = f"http://127.0.0.1:{port}/coin/v1/receipts"
        async with httpx.AsyncClient(trust_env=False) as http:
            headers = PROTOBUF | {"content-encoding": encoding}
            reply = await http.post(url, content=b"\x1f\x8b", headers=headers)
    assert reply.status_code == 415


async def test_no_path_leads_out_of_what_is_served(
    parties: Parties, engine: Engine, tmp_path: Path
) -> None:
    key = KeySigner.generate("example.org/log")
    write_private_key(tmp_path / "log.pem", key, None)
    log = {
        "origin": "example.org/log",
        "key": f"file:{tmp_path / 'log.pem'}",
        "head_file": tmp_path / "head.note",
    }
    web = {"accounts": write_accounts(tmp_path)}
    async with node(parties, engine, tmp_path, log=log, web=web) as port:
        for place in (b"/tile/", b"/static/", b"/coin/v1/audits/", b"/tile/0/", b"/static/vendor/"):
            for step in (
                b"../../../../../../etc/passwd",
                b"..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
                b"%2e%2e/%2e%2e/%2e%2e/pages.py",
                b"..%5c..%5cpages.py",
                b"//etc/passwd",
                b"%00",
                b"....//pages.py",
                b"guard.py%00.css",
            ):
                request = b"GET %s%s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nconnection: close\r\n\r\n"
                answer = await all_of(port, request % (place, step, port))
                status = int(answer.split(b" ", 2)[1])
                assert status in {303, 400, 404}, answer[:400]
                assert b"root:" not in answer
                assert b"import" not in answer


async def test_no_name_of_a_stranger_reads_interface_or_log(
    parties: Parties, engine: Engine, tmp_path: Path
) -> None:
    """A browser asks under the stranger's name, once that name is pointed here."""
    paths = ("/coin/v1/audits/" + "0" * 64, "/checkpoint", "/tile/0/000", "/coin/v1/log/entries")
    web = {"origins": ["https://pages.example"]}

    async def asked(path: str, host: str) -> bytes:
        request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        return await all_of(port, request.encode())

    async with node(parties, engine, tmp_path, web=web, http_hosts=["Node.example"]) as port:
        for path in paths:
            for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "a b"):
                answer = await asked(path, host)
                assert answer.startswith(b"HTTP/1.1 421 "), (path, host)
                assert b"the setting http_hosts" in answer
            for host in ("node.example", "NODE.example:8443", f"127.0.0.1:{port}", "pages.example"):
                assert not (await asked(path, host)).startswith(b"HTTP/1.1 421 "), (path, host)
        for path in ("/livez", "/readyz"):
            assert (await asked(path, "evil.example")).startswith(b"HTTP/1.1 200 ")


async def test_a_bundle_is_handed_to_who_handed_it_in(
    parties: Parties, provider: Provider, engine: Engine, tmp_path: Path
) -> None:
    ann, ben = make_token("ann"), make_token("ben")
    file = tmp_path / "tokens"
    file.write_text(f"{ann.line}\n{ben.line}\n")
    receipt = run_session(provider).receipt
    async with (
        serving(provider) as target,
        node(parties, engine, tmp_path, target, tokens=file) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/coin/v1", trust_env=False) as http,
    ):
        mine, other = ({"authorization": f"Bearer {one.token}"} for one in (ann, ben))
        sent = await http.post(
            "/receipts", content=receipt.SerializeToString(), headers=PROTOBUF | mine
        )
        where = sent.headers["location"].removeprefix("/coin/v1")
        await http.post(f"{where}/run", headers=mine)
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                if (await http.get(f"{where}/bundle", headers=mine)).status_code == 200:
                    break
                await asyncio.sleep(0.02)
        refused = await http.get(f"{where}/bundle", headers=other)
        assert refused.status_code == 404
        assert "another client's" in refused.json()["detail"]
        shown = await http.get(where, headers=other)
        assert shown.json()["outcome"] == "OUTCOME_PASS"
        assert "bundle" not in shown.json()
