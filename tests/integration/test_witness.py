"""A witness as others meet it: `coin witness serve` on a socket."""

from __future__ import annotations

import asyncio
import re
import ssl
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from coin_protocol.checkpoint import verify_checkpoint
from coin_protocol.errors import PeerUnavailableError
from coin_protocol.note import NoteVerifier
from coin_protocol.ops import http_server as servers
from tests.support.certificates import Certificates, certificate_shown, put_certificate
from tests.support.command import Coin, serving_coin
from tests.support.logs import logging_as_before
from tests.support.witnesses import NAME, Log, app_of, cosigner, serving, sqlite_witness
from verifier_sdk.witness.client import WitnessAheadError, WitnessClient, WitnessRefusedError
from verifier_sdk.witness.metrics import Metrics
from verifier_sdk.witness.wire import MAX_REQUEST_BYTES, PATH
from verifier_sdk.witness.witnesses import Witnesses


@pytest.fixture
def log() -> Log:
    return Log().grow(10)


@pytest.fixture
def options(tmp_path: Path, log: Log, coin: Coin) -> list[str]:
    """Options of a witness that was made by the commands that make one."""
    options = [
        *("--name", NAME, "--key", f"file:{tmp_path / 'w.pem'}"),
        *("--database", f"sqlite:///{tmp_path / 'w.db'}"),
    ]
    assert coin("witness", "key", "--name", NAME, "--out", tmp_path / "w.pem").code == 0
    assert coin("witness", "init", *options).code == 0
    return [*options, "--log", log.verifier.vkey, "--listen", "127.0.0.1:0"]


async def test_a_witness_serves_is_stopped_and_remembers(
    options: list[str], log: Log, tmp_path: Path, coin: Coin
) -> None:
    metrics = {"COIN_WITNESS_METRICS_LISTEN": "127.0.0.1:0"}
    with serving_coin("witness", "serve", *options, small=False, env=metrics) as ready:
        assert ready["serving"] == "witness"
        key = NoteVerifier.from_vkey(ready["vkey"])
        url = f"http://127.0.0.1:{ready['port']}"
        async with Witnesses([WitnessClient(url, key)], 1) as witnesses:
            for leaves in (0, 5, 0, 1):
                found = await witnesses.cosign(log.grow(leaves).note(), log.proof)
                checked = verify_checkpoint(found.note, log.verifier, [key], 1)
                assert checked.checkpoint == log.head()
        async with httpx.AsyncClient() as plain:
            text = (await plain.get(f"http://127.0.0.1:{ready['metrics_port']}/metrics")).text
        assert 'coin_witness_requests_total{outcome="cosigned"} 4.0' in text
        assert f'coin_witness_head_size{{origin="{log.origin}"}} 16.0' in text
    with serving_coin("witness", "serve", *options, small=False) as ready:
        url = f"http://127.0.0.1:{ready['port']}"
        async with WitnessClient(url, key) as client:
            fork = log.branch(4, 12)
            with pytest.raises(WitnessRefusedError) as caught:
                await client.cosign(fork.note(), fork.proof)
            assert caught.value.status == 409
        async with httpx.AsyncClient(base_url=url) as plain:
            (row,) = (await plain.get("/evidence")).json()["evidence"]
            raw = (await plain.get(f"/evidence/{row['sha256']}")).content
    (tmp_path / "fork.binpb").write_bytes(raw)
    verify = ("evidence", "verify", tmp_path / "fork.binpb", "--log-key", log.verifier.vkey)
    proven = coin(*verify, "--json").document
    assert (proven["party"], proven["subject"]) == (log.origin, "16")
    assert {proven["first"], proven["second"]} == {one.head().root.hex() for one in (log, fork)}
    assert stat.S_IMODE((tmp_path / "w.pem").stat().st_mode) == 0o600


def test_mistakes_are_told_and_exit_with_2(
    options: list[str], coin: Coin, tmp_path: Path, log: Log
) -> None:
    serve = ("witness", "serve")
    elsewhere = f"sqlite:///{tmp_path / 'other.db'}"
    for arguments, said in (
        ((*serve, *options, "--database", elsewhere), "is this its database"),
        ((*serve, *options, "--listen", "nonsense"), "HOST:PORT"),
        ((*serve, *options, "--listen", "203.0.113.1:1"), "cannot listen on"),
        ((*serve, *options, "--key", "file:/missing.pem"), "cannot read the key file"),
        ((*serve, *options, "--log", "nonsense"), "NAME"),
        ((*serve, *options, "--log", cosigner().verifier.vkey), "key of a witness"),
        ((*serve, *options[:6]), "follows no log"),
        (("witness", "init", *options[:6]), "one of its own"),
        (("witness", "key", "--name", NAME), "give --out"),
        (("witness", "key", "--name", "a b", "--out", tmp_path / "x.pem"), "no name"),
        (("witness", "key", "--name", NAME, "--out", tmp_path / "w.pem"), "never overwritten"),
    ):
        with logging_as_before():
            done = coin(*arguments)
        assert done.code == 2, done.said
        assert re.search(said, done.said), done.said
        assert "Traceback" not in done.said
    assert not (tmp_path / "x.pem").exists()
    assert log.verifier.vkey in options


def test_a_key_is_shown_as_it_was_made(
    coin: Coin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COIN_KEY_PASSWORD", "some password")
    made = coin("witness", "key", "--name", NAME, "--out", tmp_path / "w.pem").document
    assert b"ENCRYPTED" in (tmp_path / "w.pem").read_bytes()
    shown = coin("witness", "key", "--name", NAME, "--key", f"file:{tmp_path / 'w.pem'}").document
    assert made == shown
    assert NoteVerifier.from_vkey(made["vkey"]).key.name == NAME
    monkeypatch.delenv("COIN_KEY_PASSWORD")
    assert coin("witness", "key", "--name", NAME, "--key", f"file:{tmp_path / 'w.pem'}").code == 2


async def test_two_nodes_of_one_log_race(tmp_path: Path, log: Log) -> None:
    """Each asks for heads of its own; what comes back is one line of heads that grows."""
    cosigned: list[int] = []
    with sqlite_witness(tmp_path, log) as witness:
        async with serving(app_of(witness).app) as port:

            async def node(sizes: range) -> None:
                async with WitnessClient(f"http://127.0.0.1:{port}", cosigner().verifier) as client:
                    for size in sizes:
                        try:
                            await client.cosign(log.note(size), log.proof)
                        except WitnessAheadError as error:
                            assert error.size > size  # noqa: PT017 - one of two good ends
                        except PeerUnavailableError as error:
                            assert error.status in {"ABORTED", "BACKING_OFF"}  # noqa: PT017 - as above
                        else:
                            cosigned.append(size)

            log.grow(50)
            await asyncio.gather(
                node(range(10, 60)), node(range(10, 60, 2)), node(range(11, 60, 3))
            )
        assert cosigned
        assert witness.store.heads()[log.origin].size == max(cosigned)
        assert witness.store.evidence() == []


async def test_tls(tmp_path: Path, log: Log, certificates: Certificates) -> None:
    files = certificates.server
    with sqlite_witness(tmp_path, log) as witness:
        tls: dict[str, Any] = {"tls_certificate": files.certificate, "tls_key": files.key}
        async with serving(app_of(witness).app, **tls) as port:
            url = f"https://localhost:{port}"
            key = cosigner().verifier
            async with WitnessClient(url, key, authorities=str(files.authorities)) as client:
                await client.cosign(log.note(), log.proof)
            async with WitnessClient(url, key) as client:
                with pytest.raises(PeerUnavailableError, match="ConnectError"):
                    await client.cosign(log.note(), log.proof)


async def test_a_renewed_certificate_is_shown_and_one_that_does_not_fit_is_not(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "LOOK_SECONDS", 0.02)
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    put_certificate(certificate, key, "first")
    metrics = Metrics([log.origin])

    async def told(outcome: str) -> None:
        name, labels = "coin_witness_reloads_total", {"outcome": outcome}
        async with asyncio.timeout(10):
            while not metrics.registry.get_sample_value(name, labels):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)

    with sqlite_witness(tmp_path, log) as witness:
        tls: dict[str, Any] = {"tls_certificate": certificate, "tls_key": key}
        async with serving(app_of(witness).app, observer=metrics, **tls) as port:
            first = await certificate_shown(port)
            put_certificate(certificate, key, "second", key="foreign")
            await told("refused")
            assert await certificate_shown(port) == first
            put_certificate(certificate, key, "third")
            await told("used")
            wanted = ssl.PEM_cert_to_DER_cert(certificate.read_text())
            assert await certificate_shown(port) == wanted != first


# Clients that are slow, or send too much


async def test_a_request_whose_head_does_not_end_is_hung_up_on(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "HEAD_SECONDS", 0.2)
    with sqlite_witness(tmp_path, log) as witness:
        async with serving(app_of(witness).app) as port:
            answered = b"GET / HTTP/1.1\r\nhost: w\r\n\r\n"
            for first in (b"", b"POST /add-checkpoint HTTP/1.1\r\nhost: w\r\n", answered):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(first)
                if first == answered:
                    assert b"200" in await reader.readuntil(b"]}")
                    # Idle for longer than a head may take, then a second one that does not end.
                    await asyncio.sleep(0.3)
                    writer.write(b"GET / HT")
                assert await asyncio.wait_for(reader.read(), 10) == b""
                writer.close()


async def test_a_connection_may_be_used_again_after_a_pause(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "HEAD_SECONDS", 0.1)
    with sqlite_witness(tmp_path, log) as witness:
        async with serving(app_of(witness).app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(3):
                writer.write(b"GET /healthz HTTP/1.1\r\nhost: w\r\n\r\n")
                assert b"ok" in await reader.readuntil(b"ok\n")
                await asyncio.sleep(0.2)
            writer.close()


async def test_too_large_a_body_ends_the_connection(tmp_path: Path, log: Log) -> None:
    with sqlite_witness(tmp_path, log) as witness:
        async with serving(app_of(witness).app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            size = 1 << 40
            head = f"POST {PATH} HTTP/1.1\r\nhost: w\r\ncontent-length: {size}\r\n\r\n"
            writer.write(head.encode() + bytes(MAX_REQUEST_BYTES + 65536))
            answer = b""
            try:
                while piece := await asyncio.wait_for(reader.read(4096), 10):
                    answer += piece
            except ConnectionResetError:
                pass  # what it had not read yet
            writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
