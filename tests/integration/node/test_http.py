"""The HTTP interface: receipts in, audits out, the log, health; who may call."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from sqlalchemy import Engine

from coin_protocol.checkpoint import verify_checkpoint
from coin_protocol.encoding import digest
from coin_protocol.errors import StoreUnavailableError
from coin_protocol.log_leaf import CommitmentLeaf, VerdictLeaf
from coin_protocol.merkle import leaf_hash, verify_inclusion
from coin_protocol.note import NoteAlgorithm, NoteSigner
from coin_protocol.receipt import read_bundle
from coin_protocol.signer import KeySigner, write_private_key
from coin_protocol.transport import make_token
from coin_protocol.v1 import receipt_pb2
from provider_sdk.provider import Provider
from tests.support.audits import bear_out
from tests.support.nodes import NodeParts, running_node
from tests.support.parties import Parties, run_session
from tests.support.servers import serving

ORIGIN = "example.org/coin-log"
PROTOBUF = {"content-type": "application/x-protobuf"}


@asynccontextmanager
async def node(
    parties: Parties, engine: Engine, folder: Path, target: str = "127.0.0.1:1", **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a node with HTTP, and connect to it."""
    given = {"http_listen": "127.0.0.1:0"} | settings
    parts = NodeParts(parties, engine, target, share=0.0, settings=given)
    async with running_node(parts, folder) as client:
        url = f"http://127.0.0.1:{client.ports.http}"
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            yield http


async def decided(http: httpx.AsyncClient, audit_id: str) -> dict[str, Any]:
    """Ask for an audit, and wait for its end."""
    assert (await http.post(f"/coin/v1/audits/{audit_id}/run")).status_code == 202
    async with asyncio.timeout(20):
        while True:
            found: dict[str, Any] = (await http.get(f"/coin/v1/audits/{audit_id}")).json()
            if found["state"] in {"AUDIT_STATE_DECIDED", "AUDIT_STATE_ERROR"}:
                return found
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("form", ["protobuf", "json"])
async def test_a_receipt_is_audited_over_http(
    parties: Parties, provider: Provider, engine: Engine, tmp_path: Path, form: str
) -> None:
    receipt = run_session(provider).receipt
    if form == "json":
        body, kind = json_format.MessageToJson(receipt).encode(), "application/json; charset=utf-8"
    else:
        body, kind = receipt.SerializeToString(), PROTOBUF["content-type"]
    async with serving(provider) as target, node(parties, engine, tmp_path, target) as http:
        reply = await http.post("/coin/v1/receipts", content=body, headers={"content-type": kind})
        assert reply.status_code == 202
        assert reply.json()["state"] == "AUDIT_STATE_SUBMITTED"
        audit_id = reply.json()["audit_id"]
        assert reply.headers["location"] == f"/coin/v1/audits/{audit_id}"
        assert (await http.get(f"/coin/v1/audits/{audit_id}/bundle")).status_code == 404
        found = await decided(http, audit_id)
        assert (found["outcome"], found["provider"]) == ("OUTCOME_PASS", "acme")
        raw = (await http.get(f"/coin/v1/audits/{audit_id}/bundle")).content
    bear_out(parties, read_bundle(raw), parties.policy)


async def test_commitment_and_verdict_are_in_the_log(
    parties: Parties, provider: Provider, engine: Engine, tmp_path: Path
) -> None:
    key = KeySigner.generate(ORIGIN)
    write_private_key(tmp_path / "log.pem", key, None)
    log = {
        "origin": ORIGIN,
        "key": f"file:{tmp_path / 'log.pem'}",
        "head_file": tmp_path / "head.note",
        "interval_seconds": 0.05,
    }
    vkey = NoteSigner(key, NoteAlgorithm.ED25519).verifier
    reply = run_session(provider)
    async with (
        serving(provider) as target,
        node(parties, engine, tmp_path, target, log=log) as http,
    ):
        body = reply.receipt.SerializeToString()
        sent = await http.post("/coin/v1/receipts", content=body, headers=PROTOBUF)
        audit_id = sent.json()["audit_id"]
        await decided(http, audit_id)
        raw = (await http.get(f"/coin/v1/audits/{audit_id}/bundle")).content
        verdict = digest(read_bundle(raw).verdict.payload)
        name = digest(reply.receipt.commitment.payload)
        async with asyncio.timeout(10):
            while True:
                note = (await http.get("/checkpoint")).content
                head = verify_checkpoint(note, vkey, origin=ORIGIN).checkpoint
                if head.size == 2:
                    break
                await asyncio.sleep(0.02)
        for leaf in (
            CommitmentLeaf("acme", reply.commitment.session_id, name).to_bytes(),
            VerdictLeaf(name, verdict).to_bytes(),
        ):
            hashed = leaf_hash(leaf)
            where = f"/coin/v1/log/inclusion?leaf_hash={hashed.hex()}&size={head.size}"
            proof = (await http.get(where)).json()
            verify_inclusion(
                leaf_hash=hashed,
                index=proof["index"],
                size=head.size,
                proof=[base64.b64decode(one, validate=True) for one in proof["proof"]],
                root=head.root,
            )


async def test_bad_requests_are_problems_that_say_what_is_wanted(
    parties: Parties, provider: Provider, engine: Engine, tmp_path: Path
) -> None:
    receipt = run_session(provider).receipt
    forged = receipt_pb2.Receipt()
    forged.CopyFrom(receipt)
    forged.commitment.signatures[0].sig = bytes(64)
    sound = receipt.SerializeToString()
    cases: list[tuple[dict[str, str], bytes, int, str]] = [
        ({}, sound, 415, "wanted application/json"),
        ({"content-type": "text/plain"}, sound, 415, "wanted application/json"),
        (PROTOBUF | {"content-encoding": "gzip"}, sound, 415, "not compressed"),
        (PROTOBUF, b"\xff", 400, "not a receipt"),
        (PROTOBUF, b"", 400, "format"),
        ({"content-type": "application/json"}, b"{" * 100, 400, "not a receipt"),
        (PROTOBUF, forged.SerializeToString(), 422, "is not signed by"),
    ]
    async with node(parties, engine, tmp_path) as http:
        for headers, body, status, words in cases:
            reply = await http.post("/coin/v1/receipts", content=body, headers=headers)
            assert (reply.status_code, words in reply.json()["detail"]) == (status, True), words
            assert reply.headers["content-type"] == "application/problem+json"
        for path in ("", "/run", "/bundle"):
            method = "POST" if path == "/run" else "GET"
            for audit_id in ("0" * 64, "x", "0" * 2000):
                reply = await http.request(method, f"/coin/v1/audits/{audit_id}{path}")
                assert reply.status_code == 404
                assert len(reply.content) < 400
        assert (await http.put("/coin/v1/receipts")).status_code == 405


async def test_a_body_beyond_the_limit_is_not_read_to_its_end(
    parties: Parties, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verifier_sdk.node.http.MAX_MESSAGE_BYTES", 1000)
    async with node(parties, engine, tmp_path) as http:
        reply = await http.post("/coin/v1/receipts", content=bytes(1001), headers=PROTOBUF)
        assert reply.status_code == 413
        assert "at most 1000 bytes" in reply.json()["detail"]


async def test_where_tokens_are_asked_for_none_or_a_wrong_one_is_nobody(
    parties: Parties, provider: Provider, engine: Engine, tmp_path: Path
) -> None:
    token = make_token("client")
    file = tmp_path / "tokens"
    file.write_text(token.line + "\n")
    body = run_session(provider).receipt.SerializeToString()
    async with node(parties, engine, tmp_path, tokens=file) as http:
        for shown in ("", "Bearer", "Bearer wrong", f"Basic {token.token}"):
            headers = PROTOBUF | ({"authorization": shown} if shown else {})
            reply = await http.post("/coin/v1/receipts", content=body, headers=headers)
            assert reply.status_code == 401
            assert reply.headers["www-authenticate"] == "Bearer"
        known = PROTOBUF | {"authorization": f"Bearer {token.token}"}
        reply = await http.post("/coin/v1/receipts", content=body, headers=known)
        assert reply.status_code == 202
        # Anyone may see that it lives, and read the log.
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200


async def test_more_receipts_than_are_kept_are_refused_with_the_time_to_come_again(
    parties: Parties, provider: Provider, engine: Engine, tmp_path: Path
) -> None:
    receipt = run_session(provider).receipt
    limits: dict[str, Any] = {"receipts_per_day": 2, "receipts_per_commitment": 1}
    async with node(parties, engine, tmp_path, **limits) as http:

        async def submit(one: receipt_pb2.Receipt) -> httpx.Response:
            body = one.SerializeToString()
            return await http.post("/coin/v1/receipts", content=body, headers=PROTOBUF)

        first = await submit(receipt)
        again = await submit(receipt)
        assert first.status_code == again.status_code == 202
        altered = receipt_pb2.Receipt()
        altered.CopyFrom(receipt)
        altered.answer += b"!"
        full = await submit(altered)
        assert (full.status_code, full.json()["status"]) == (409, 409)
        assert "retry-after" not in full.headers
        assert (await submit(run_session(provider).receipt)).status_code == 202
        spent = await submit(run_session(provider).receipt)
    assert spent.status_code == 429
    assert 1 <= int(spent.headers["retry-after"]) <= 86_400
    assert "2 receipts" in spent.json()["detail"]


async def test_a_client_that_calls_too_often_is_told_when_to_come_again(
    parties: Parties, engine: Engine, tmp_path: Path
) -> None:
    limits: dict[str, Any] = {"calls_per_second": 0.01, "calls_burst": 2}
    async with node(parties, engine, tmp_path, **limits) as http:
        statuses = [(await http.get(f"/coin/v1/audits/{'0' * 64}")).status_code for _ in range(3)]
        reply = await http.get(f"/coin/v1/audits/{'0' * 64}")
    assert statuses == [404, 404, 429]
    assert reply.headers["retry-after"] == "1"
    assert json.loads(reply.content)["status"] == 429


async def test_a_node_without_its_database_is_not_ready(
    parties: Parties, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        msg = "the database does not answer"
        raise StoreUnavailableError(msg)

    async with node(parties, engine, tmp_path) as http:
        monkeypatch.setattr("verifier_sdk.node.running.answers", away)
        reply = await http.get("/readyz")
        assert (reply.status_code, reply.text) == (503, "the database does not answer\n")
        assert (await http.get("/livez")).status_code == 200
