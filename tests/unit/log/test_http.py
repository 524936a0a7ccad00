"""The log over HTTP, through a real server."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from coin_protocol.checkpoint import verify_checkpoint
from coin_protocol.merkle import leaf_hash, node_hash, verify_consistency, verify_inclusion
from tests.support.log_entries import House, leaves
from tests.support.parties import WAIT_SECONDS
from verifier_sdk.log.http import log_app

FOR_EVER = "public, max-age=31536000, immutable"
INCLUSION, CONSISTENCY = "/coin/v1/log/inclusion", "/coin/v1/log/consistency"
ENTRIES = "/coin/v1/log/entries"


@asynccontextmanager
async def asking(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a log as part of another application, and give a client."""
    app = Starlette(routes=[Mount("/logs/1", app=log_app(house.log))])
    config = uvicorn.Config(app, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        task = asyncio.create_task(server.serve(sockets=[listening]))
        base = f"http://127.0.0.1:{port}/logs/1"
        async with httpx.AsyncClient(base_url=base, timeout=WAIT_SECONDS) as client:
            yield client
        server.should_exit = True
        await task


def hashes(document: dict[str, Any], name: str = "proof") -> list[bytes]:
    return [base64.b64decode(each, validate=True) for each in document[name]]


async def test_what_a_client_is_given_verifies(house: House) -> None:
    house.append(300)
    house.append(7)
    data = leaves(0, 307)
    hashed = leaf_hash(data[5])
    async with asking(house) as client:
        answer = await client.get("/checkpoint")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        head = verify_checkpoint(answer.content, house.signer.verifier).checkpoint
        newest = await client.get(INCLUSION, params={"leaf_hash": hashed.hex()})
        assert newest.json()["checkpoint"].encode() == answer.content
        assert newest.headers["cache-control"] == "no-cache"
        old = await client.get(INCLUSION, params={"index": 5, "size": 300})
        assert old.headers["cache-control"] == FOR_EVER
        assert "checkpoint" not in old.json()
        proof = await client.get(CONSISTENCY, params={"old": 300, "new": 307})
        assert proof.headers["cache-control"] == FOR_EVER
        some = await client.get(ENTRIES, params={"start": 299, "count": 3})
        assert some.headers["cache-control"] == FOR_EVER
        rest = await client.get(ENTRIES, params={"start": 299, "count": 300})
        assert rest.headers["cache-control"] == "no-cache"
    for answer, size in ((newest, 307), (old, 300)):
        document = answer.json()
        assert (document["index"], document["size"]) == (5, size)
        verify_inclusion(
            leaf_hash=hashed,
            index=5,
            size=size,
            proof=hashes(document),
            root=house.tree.root(size),
        )
    verify_consistency(
        old_size=300,
        new_size=307,
        old_root=house.tree.root(300),
        new_root=head.root,
        proof=hashes(proof.json()),
    )
    assert hashes(some.json(), "entries") == data[299:302]
    assert hashes(rest.json(), "entries") == data[299:]


async def test_a_head_that_a_client_has_is_not_sent_again(lite: House) -> None:
    lite.append(3)
    async with asking(lite) as client:
        tag = (await client.get("/checkpoint")).headers["etag"]
        for given in (tag, f'"x", W/{tag}', "*"):
            again = await client.get("/checkpoint", headers={"if-none-match": given})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
        lite.append(1)
        fresh = await client.get("/checkpoint", headers={"if-none-match": tag})
        assert fresh.status_code == 200
        assert fresh.headers["etag"] != tag


async def test_heads_of_answers_can_be_asked_for(lite: House) -> None:
    lite.append(300)
    async with asking(lite) as client:
        for path in (
            "/checkpoint",
            "/tile/0/000",
            f"{INCLUSION}?index=3",
            f"{ENTRIES}?start=0&count=1",
        ):
            whole, head = await client.get(path), await client.head(path)
            assert head.status_code == whole.status_code == 200
            assert head.content == b""
            for name in ("content-length", "content-type", "cache-control"):
                assert head.headers[name] == whole.headers[name]


async def test_tiles_have_the_paths_that_clients_of_tiled_logs_know(lite: House) -> None:
    lite.append(600)
    data = leaves(0, 600)
    async with asking(lite) as client:
        full = await client.get("/tile/0/001")
        assert full.headers["content-type"] == "application/octet-stream"
        assert full.headers["cache-control"] == FOR_EVER
        assert full.content == b"".join(leaf_hash(each) for each in data[256:512])
        part = await client.get("/tile/0/002.p/88")
        assert part.content == b"".join(leaf_hash(each) for each in data[512:])
        above = (await client.get("/tile/1/000.p/2")).content
        assert node_hash(above[:32], above[32:]) == lite.tree.root(512)
        bundle = (await client.get("/tile/entries/002.p/3")).content
    assert list(bundled(bundle)) == data[512:515]


def bundled(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        (length,) = struct.unpack_from(">H", raw, at)
        yield raw[at + 2 : at + 2 + length]
        at += 2 + length


@pytest.mark.parametrize(
    ("path", "status", "reason", "said"),
    [
        (INCLUSION, 400, "ARGUMENT_INVALID", "say which entry"),
        (f"{INCLUSION}?index=1&leaf_hash={'0' * 64}", 400, "ARGUMENT_INVALID", "say which entry"),
        (f"{INCLUSION}?index=01", 400, "ARGUMENT_INVALID", "index must be a decimal number"),
        (f"{INCLUSION}?index=-1", 400, "ARGUMENT_INVALID", "index must be a decimal number"),
        (f"{INCLUSION}?index=%D9%A1", 400, "ARGUMENT_INVALID", "index must be a decimal number"),
        (f"{INCLUSION}?index={1 << 63}", 400, "ARGUMENT_INVALID", "below 2^63"),
        (f"{INCLUSION}?index=1&index=1", 400, "ARGUMENT_INVALID", "index is given twice"),
        (f"{INCLUSION}?index=1&sise=3", 400, "ARGUMENT_INVALID", "no parameter 'sise'"),
        (f"{INCLUSION}?leaf_hash={'A' * 64}", 400, "ARGUMENT_INVALID", "64 hex digits"),
        (f"{INCLUSION}?leaf_hash={'a' * 62}", 400, "ARGUMENT_INVALID", "64 hex digits"),
        (f"{INCLUSION}?leaf_hash={'a' * 64}", 404, "ENTRY_UNKNOWN", "no entry with leaf hash"),
        (f"{INCLUSION}?index=1&size=2", 404, "HEAD_UNKNOWN", "no head of size 2"),
        (f"{CONSISTENCY}?old=1", 400, "ARGUMENT_INVALID", "new= is missing"),
        (f"{CONSISTENCY}?old=3&new=1", 400, "ARGUMENT_INVALID", "old size <= new size"),
        (f"{ENTRIES}?start=0&count=0", 400, "ARGUMENT_INVALID", "a count from 1"),
        ("/checkpoint?x=1", 400, "ARGUMENT_INVALID", "there are: none"),
        ("/tile/0/0", 400, "ARGUMENT_INVALID", "wanted a tile such as"),
        ("/tile/00/000", 400, "ARGUMENT_INVALID", "the level of a tile"),
        ("/tile/0/x000/001", 400, "ARGUMENT_INVALID", "wanted a tile such as"),
        ("/tile/0/000.p/256", 400, "ARGUMENT_INVALID", "width of a part below 256"),
        ("/tile/0/000.p/0", 400, "ARGUMENT_INVALID", "wanted a tile such as"),
        ("/tile/0/x999/x999/x999/x999/x999/x999/999", 400, "ARGUMENT_INVALID", "below 2^63"),
        ("/tile/0/000", 404, "ENTRY_UNKNOWN", "no tile 0 of level 0 and width 256"),
        ("/tile/63/000", 404, "ENTRY_UNKNOWN", "no tile 0 of level 63"),
        ("/tile/entries/000.p/4", 404, "ENTRY_UNKNOWN", "no tile 0"),
        ("/nowhere", 404, "NOT_FOUND", "Not Found"),
    ],
)
async def test_what_cannot_be_answered_is_a_problem_with_its_reason(
    lite: House, path: str, status: int, reason: str, said: str
) -> None:
    lite.append(3)
    transport = httpx.ASGITransport(log_app(lite.log))
    async with httpx.AsyncClient(transport=transport, base_url="http://log") as client:
        answer = await client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-cache"
    document = json.loads(answer.content)
    assert (document["status"], document["reason"]) == (status, reason)
    assert set(document) == {"type", "title", "status", "detail", "reason"}
    assert said in document["detail"]


async def test_other_methods_and_what_waits(lite: House) -> None:
    (hashed,) = lite.say(leaves(0, 1))
    async with asking(lite) as client:
        refused = await client.post("/checkpoint")
        assert refused.status_code == 405
        assert refused.json()["reason"] == "METHOD_NOT_ALLOWED"
        assert "GET" in refused.headers["allow"]
        for path in ("/checkpoint", f"{INCLUSION}?leaf_hash={hashed.hex()}"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert answer.json()["reason"] == "NOT_LOGGED_YET"
            assert answer.headers["retry-after"] == "1"


async def test_an_error_of_ours_tells_nothing(
    lite: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("verifier_sdk.log.heads._one", lambda *_: 1 / 0)
    async with asking(lite) as client:
        answer = await client.get("/checkpoint")
    assert answer.status_code == 500
    assert answer.json()["detail"] == "internal error, see the log"
    assert "ZeroDivisionError" in caplog.text
