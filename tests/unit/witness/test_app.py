"""The witness over HTTP: statuses, types and limits as the specification has them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from coin_protocol.database.engine import open_engine
from coin_protocol.errors import SignatureError
from coin_protocol.note import NoteSignature, NoteSigner, open_note
from coin_protocol.v1 import evidence_pb2
from tests.support.witnesses import NAME, NOW, ORIGIN, Log, app_of, cosigner, witness_over
from verifier_sdk.witness import app as apps
from verifier_sdk.witness.app import WitnessApp
from verifier_sdk.witness.metrics import OUTCOMES
from verifier_sdk.witness.wire import MAX_REQUEST_BYTES
from verifier_sdk.witness.witness import Witness

PATH = "/add-checkpoint"


@asynccontextmanager
async def asking(
    served: WitnessApp, address: str = "192.0.2.1"
) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(served.app, client=(address, 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://w") as client:
        yield client


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


async def test_a_cosignature_is_lines_of_a_note(witness: Witness, log: Log) -> None:
    served = app_of(witness)
    async with asking(served) as client:
        answer = await client.post(PATH, content=log.request(0))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    # As the specification says that it may be read: after the checkpoint.
    note = open_note(log.note() + answer.content, [log.verifier, witness.verifier])
    assert [one.name for one in note.verified] == [ORIGIN, NAME]
    registry = served._metrics.registry
    assert value(registry, "coin_witness_requests_total", outcome="cosigned") == 1
    assert value(registry, "coin_witness_head_size", origin=ORIGIN) == 10
    assert value(registry, "coin_witness_cosigned_timestamp_seconds", origin=ORIGIN) == NOW


async def test_a_stale_size_is_answered_with_the_latest(witness: Witness, log: Log) -> None:
    async with asking(app_of(witness)) as client:
        await client.post(PATH, content=log.request(0, 7))
        answer = await client.post(PATH, content=log.request(3))
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "text/x.tlog.size"
    assert answer.content == b"7\n"


Edit = Callable[[Log], bytes]


@pytest.mark.parametrize(
    ("edit", "status", "outcome"),
    [
        (lambda _: b"nonsense", 400, "malformed"),
        (lambda log: log.request(8, 7), 400, "malformed"),
        (lambda _: Log("example.org/other").grow(3).request(0), 404, "unknown_log"),
        (lambda _: Log(seed=9).grow(3).request(0), 403, "unsigned"),
        (lambda log: log.branch(2, 5).request(7), 409, "forked"),
        (lambda log: log.branch(2, 8).request(7), 422, "unproven"),
        (lambda log: log.request(7, proof=[bytes(32)]), 422, "unproven"),
    ],
)
async def test_refusals(witness: Witness, log: Log, edit: Edit, status: int, outcome: str) -> None:
    served = app_of(witness)
    async with asking(served) as client:
        await client.post(PATH, content=log.request(0, 7))
        answer = await client.post(PATH, content=edit(log))
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/plain")
    assert "—" not in answer.text
    counted = value(served._metrics.registry, "coin_witness_requests_total", outcome=outcome)
    assert counted == 1
    assert outcome in OUTCOMES


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", PATH, 405),
        ("PUT", PATH, 405),
        ("POST", "/", 405),
        ("POST", PATH + "/", 404),
        ("GET", "/metrics", 404),
        ("GET", "/docs", 404),
        ("GET", "/evidence/", 404),
        ("GET", "/evidence/zz", 404),
        ("GET", "/evidence/" + "00" * 32, 404),
        ("GET", "/evidence/../evidence", 200),
    ],
)
async def test_there_is_nothing_else(witness: Witness, method: str, path: str, status: int) -> None:
    async with asking(app_of(witness)) as client:
        answer = await client.request(method, path)
    assert answer.status_code == status


async def test_it_says_who_it_is(witness: Witness) -> None:
    async with asking(app_of(witness)) as client:
        answer = await client.get("/")
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
    assert answer.json() == {"witness": NAME, "vkey": witness.verifier.vkey, "logs": [ORIGIN]}


async def test_evidence_is_there_for_everyone(
    witness: Witness, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    served = app_of(witness)
    fork = log.branch(2, 8)
    async with asking(served) as client:
        await client.post(PATH, content=log.request(0))
        with caplog.at_level(logging.CRITICAL):
            answer = await client.post(PATH, content=fork.request(10))
        assert answer.status_code == 409
        (row,) = (await client.get("/evidence")).json()["evidence"]
        found = await client.get(f"/evidence/{row['sha256']}")
    assert row == {
        "sha256": sha256(found.content).hexdigest(),
        "origin": ORIGIN,
        "size": 10,
        "found_at": NOW,
    }
    assert row["sha256"] in caplog.text
    heads = evidence_pb2.Evidence.FromString(found.content).heads
    assert (heads.first, heads.second) == (log.note(), fork.note())
    assert value(served._metrics.registry, "coin_witness_evidence_files", origin=ORIGIN) == 1
    # And after a restart.
    assert (
        value(app_of(witness)._metrics.registry, "coin_witness_evidence_files", origin=ORIGIN) == 1
    )


async def test_a_body_is_read_no_further_than_a_request_can_be(witness: Witness) -> None:
    served = app_of(witness)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 4096

    async with asking(served) as client:
        answer = await client.post(PATH, content=endless())
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
    assert sent * 4096 < MAX_REQUEST_BYTES + 2 * 4096
    counted = value(served._metrics.registry, "coin_witness_requests_total", outcome="too_large")
    assert counted == 1


async def test_each_address_has_its_share(witness: Witness, log: Log) -> None:
    served = app_of(witness, per_second=0.001, burst=2)
    same = ("2001:db8::1", "2001:db8::2:3", "2001:db8:0:0:ffff::")
    for number, address in enumerate(same):
        async with asking(served, address) as client:
            answer = await client.post(PATH, content=log.request(0))
            assert answer.status_code == (429 if number == 2 else [200, 409][number])
            if number == 2:
                assert int(answer.headers["retry-after"]) > 1
                assert (await client.get("/evidence")).status_code == 429
                assert (await client.get("/evidence/00")).status_code == 429
                # Not counted: whoever watches over it asks all the time.
                assert (await client.get("/readyz")).status_code == 200
    for address in ("2001:db8:0:1::1", "192.0.2.1", "::ffff:192.0.2.1", "unknown"):
        async with asking(served, address) as client:
            assert (await client.post(PATH, content=log.request(0))).status_code == 409
    async with asking(served, "192.0.2.1") as client:
        assert (await client.post(PATH, content=log.request(0))).status_code == 429


async def test_a_body_that_does_not_end_is_given_up(
    witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps, "BODY_SECONDS", 0.05)
    served = app_of(witness)
    never = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield b"old 0\n"
        await never.wait()

    async with asking(served) as client:
        answer = await client.post(PATH, content=stalling())
    assert answer.status_code == 408
    assert value(served._metrics.registry, "coin_witness_requests_total", outcome="slow") == 1


async def test_without_its_database_it_asks_to_come_later(tmp_path: Path) -> None:
    log = Log().grow(3)
    url = f"sqlite:///{tmp_path / 'w.db'}"
    with witness_over(url, log) as witness:
        served = app_of(witness)
        engine = open_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE witness_head RENAME TO gone")
            connection.exec_driver_sql("ALTER TABLE witness_evidence RENAME TO gone_too")
        engine.dispose()
        async with asking(served) as client:
            for answer in (
                await client.post(PATH, content=log.request(0)),
                await client.get("/readyz"),
                await client.get("/evidence"),
                await client.get("/evidence/" + "00" * 32),
            ):
                assert answer.status_code == 503
                assert "retry-after" in answer.headers
            assert (await client.get("/healthz")).status_code == 200
    counted = value(served._metrics.registry, "coin_witness_requests_total", outcome="unavailable")
    assert counted == 1


async def test_a_fault_is_told_as_one_and_signs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log().grow(3)
    inner = cosigner()

    class Faulty(NoteSigner):
        def sign(self, text: str, at: int | None = None) -> NoteSignature:
            made = super().sign(text, at)
            raise SignatureError(made.line())

    signer = Faulty(inner._signer, inner.key.algorithm)
    with witness_over(f"sqlite:///{tmp_path / 'w.db'}", log, signer=signer) as witness:
        served = app_of(witness)
        async with asking(served) as client:
            answer = await client.post(PATH, content=log.request(0))
    assert answer.status_code == 500
    assert "—" not in answer.text
    assert "a request failed" in caplog.text
    assert value(served._metrics.registry, "coin_witness_requests_total", outcome="failed") == 1
