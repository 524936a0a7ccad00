"""A node as its operator meets it: `coin verifier …`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import select

from coin_protocol.checkpoint import verify_checkpoint
from coin_protocol.database.engine import open_engine, reading
from coin_protocol.note import NoteVerifier
from coin_protocol.signer import public_pem, write_private_key
from coin_protocol.transport import TokenFile, Unobserved
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from coin_protocol.v1.verifier_service_pb2_grpc import VerifierServiceStub
from provider_sdk.provider import Provider
from tests.support.certificates import Certificates
from tests.support.command import ROOT, Coin, run_coin, serving_coin
from tests.support.logs import logging_as_before
from tests.support.nodes import NATS, nats_stream
from tests.support.parties import PROVIDER, VERIFIER, WAIT_SECONDS, Parties, run_session
from tests.support.servers import serving
from verifier_sdk.store.tables import AUDIT

Write = Callable[..., Path]
ORIGIN = "example.org/coin-log"
pytestmark = pytest.mark.usefixtures("own_folders")
SECRET = "sesame-open"  # noqa: S105 - what must be seen nowhere
HEALTH = ROOT / "deploy" / "kubernetes" / "settings.yaml"


@pytest.fixture
def write(parties: Parties, tmp_path: Path) -> Write:
    """Write settings over the small models: `write('more = 1', '[table]')`."""
    write_private_key(tmp_path / "key.pem", parties.verifier, None)
    (tmp_path / "root.pub.pem").write_bytes(public_pem(parties.root.public))
    (tmp_path / "profile").write_bytes(parties.profile.raw)
    (tmp_path / "policy").write_bytes(parties.policy.raw)

    def write(*lines: str, target: str = "127.0.0.1:1", audits: int = 0) -> Path:
        file = tmp_path / "verifier.toml"
        plain = [line for line in lines if "[" not in line.partition("=")[0]]
        tables = [line for line in lines if line not in plain]
        file.write_text(
            "\n".join(
                [
                    f'name = "{VERIFIER}"',
                    f'key = "file:{tmp_path / "key.pem"}"',
                    f'profile = "{tmp_path / "profile"}"',
                    f'policy = "{tmp_path / "policy"}"',
                    f"audits_at_once = {audits}",
                    'listen = "127.0.0.1:0"',
                    'http_listen = "127.0.0.1:0"',
                    'metrics_listen = "127.0.0.1:0"',
                    *plain,
                    f"[providers.{PROVIDER}]",
                    f'endpoint = "{target}"',
                    f'roots = ["{tmp_path / "root.pub.pem"}"]',
                    *tables,
                ]
            )
        )
        if not any(line.startswith("database") for line in lines):
            with file.open("r+") as opened:
                text = opened.read()
                opened.seek(0)
                opened.write(f'database = "sqlite:///{tmp_path / "node.db"}"\n{text}')
        return file

    return write


@asynccontextmanager
async def stub(ready: dict[str, Any]) -> AsyncIterator[Any]:
    async with aio.insecure_channel(f"127.0.0.1:{ready['port']}") as channel:
        yield VerifierServiceStub(channel)


async def asked_for(service: Any, receipt: receipt_pb2.Receipt) -> str:
    """Hand a receipt in, and ask for its audit."""
    given = pb.SubmitReceiptRequest(receipt=receipt)
    audit_id: str = (await service.SubmitReceipt(given, timeout=WAIT_SECONDS)).audit_id
    await service.RunAudit(pb.RunAuditRequest(audit_id=audit_id), timeout=WAIT_SECONDS)
    return audit_id


async def watched(service: Any, audit_id: str, runs: asyncio.Event | None = None) -> pb.Audit:
    """Watch an audit to its end; set `runs` once it is under way."""
    asked = pb.WatchAuditRequest(audit_id=audit_id)
    async for reply in service.WatchAudit(asked, timeout=WAIT_SECONDS):
        audit: pb.Audit = reply.audit
        if runs is not None and audit.state == pb.AUDIT_STATE_RUNNING:
            runs.set()
    return audit


# Processes


async def test_a_node_takes_receipts_and_a_worker_decides_them(
    write: Write, coin: Coin, provider: Provider, tmp_path: Path
) -> None:
    key = tmp_path / "log.pem"
    vkey = coin("verifier", "log-key", "--origin", ORIGIN, "--out", key).document["vkey"]
    receipt = run_session(provider).receipt
    async with serving(provider) as target:
        log = f'[log]\norigin = "{ORIGIN}"\nkey = "file:{key}"\ninterval_seconds = 0.05'
        config = write(log, target=target)
        at_once = {"COIN_VERIFIER_AUDITS_AT_ONCE": "2"}
        with (
            serving_coin("verifier", "serve", "--config", config) as node,
            serving_coin("verifier", "worker", "--config", config, env=at_once) as worker,
        ):
            assert node["serving"] == "coin_protocol.v1.VerifierService"
            assert (worker["working"], worker["at_once"]) == ("audits", 2)
            async with httpx.AsyncClient(trust_env=False) as http, stub(node) as service:
                pages = f"http://127.0.0.1:{node['http_port']}"
                for path in ("/livez", "/readyz"):
                    found = await http.get(pages + path)
                    assert (found.status_code, found.text) == (200, "ok\n")
                audit_id = await asked_for(service, receipt)
                audit = await watched(service, audit_id)
                assert audit.outcome == receipt_pb2.OUTCOME_PASS, audit
                note = (await http.get(f"{pages}/checkpoint")).content
                verify_checkpoint(note, NoteVerifier.from_vkey(vkey), origin=ORIGIN)
                told = (await http.get(f"http://127.0.0.1:{node['metrics_port']}/metrics")).text
                assert "coin_receipts_kept_total 1.0" in told
                told = (await http.get(f"http://127.0.0.1:{worker['metrics_port']}/metrics")).text
                decided = f'provider="{PROVIDER}"'
                assert re.search(rf"coin_audits_total{{[^}}]*{decided}[^}}]*}} 1\.0", told)
    (head,) = (tmp_path / "data").rglob("*.note")
    assert head.read_bytes().startswith(ORIGIN.encode())


async def test_calls_and_audits_share_one_grace_period(
    write: Write, provider: Provider, tmp_path: Path
) -> None:
    """A provider that does not answer, and a client that watches: neither waits for the other."""
    grace = 3
    receipt = run_session(provider).receipt
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        config = write(f"grace_seconds = {grace}", target=target, audits=1)
        with serving_coin("verifier", "serve", "--config", config) as node:
            async with stub(node) as service:
                audit_id = await asked_for(service, receipt)
                runs = asyncio.Event()
                watching = asyncio.create_task(watched(service, audit_id, runs))
                await asyncio.wait_for(runs.wait(), WAIT_SECONDS)
                began = time.monotonic()
                os.kill(node["pid"], signal.SIGTERM)
                with pytest.raises(aio.AioRpcError):
                    await watching
                ended = os.WEXITED | os.WNOWAIT
                await asyncio.to_thread(os.waitid, os.P_PID, node["pid"], ended)
                taken = time.monotonic() - began
    assert grace - 0.5 < taken < 2 * grace - 0.2
    # Another worker goes on with it.
    engine = open_engine(f"sqlite:///{tmp_path / 'node.db'}")
    with reading(engine) as connection:
        assert connection.execute(select(AUDIT.c.state)).scalar_one() in {"queued", "running"}
    engine.dispose()


async def test_under_tls_the_manifests_probe_and_tokens_say_who_comes_in(
    write: Write, coin: Coin, certificates: Certificates, tmp_path: Path
) -> None:
    made = coin("verifier", "token", "ann").document
    (tmp_path / "tokens").write_text(made["line"] + "\n")
    assert TokenFile(tmp_path / "tokens", Unobserved()).name_of(f"Bearer {made['token']}") == "ann"
    files = certificates.server
    config = write(
        f'tokens = "{tmp_path / "tokens"}"',
        f'http_certificate = "{files.certificate}"',
        f'http_key = "{files.key}"',
        f'[tls]\ncertificate = "{files.certificate}"\nkey = "{files.key}"',
    )
    with serving_coin("verifier", "serve", "--config", config) as node:
        probe = yaml.safe_load(HEALTH.read_text())["data"]["grpc_health.py"]
        for ours, theirs in (
            ("/etc/coin/tls/ca.crt", str(files.authorities)),
            ("127.0.0.1:8444", f"127.0.0.1:{node['port']}"),
            ('"coin-verifier"', '"localhost"'),
        ):
            assert ours in probe
            probe = probe.replace(ours, theirs)
        with pytest.raises(SystemExit) as ended:
            exec(compile(probe, "grpc_health.py", "exec"), {})  # noqa: S102 - our own file
        assert ended.value.code is False
        url = f"https://localhost:{node['http_port']}"
        async with httpx.AsyncClient(
            base_url=url, verify=str(files.authorities), trust_env=False
        ) as http:
            assert (await http.get("/readyz")).status_code == 200
            path = f"/coin/v1/audits/{64 * '0'}"
            assert (await http.get(path)).status_code == 401
            shown = {"authorization": f"Bearer {made['token']}"}
            assert (await http.get(path, headers=shown)).status_code == 404
        async with httpx.AsyncClient(trust_env=False) as http:
            ends = (await http.get(f"http://127.0.0.1:{node['metrics_port']}/metrics")).text
        found = re.search(r"^coin_certificate_ends_timestamp_seconds (\S+)$", ends, re.MULTILINE)
        assert found is not None
        assert float(found[1]) > time.time()


def test_a_node_that_stops_says_so_for_as_long_as_it_is_told(write: Write) -> None:
    config = write("notice_seconds = 1", "grace_seconds = 5")
    with (
        serving_coin("verifier", "serve", "--config", config) as node,
        grpc.insecure_channel(f"127.0.0.1:{node['port']}") as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)

        def status() -> int:
            wanted = health_pb2.HealthCheckRequest(service=node["serving"])
            return int(health.Check(wanted, timeout=WAIT_SECONDS, wait_for_ready=True).status)

        assert status() == health_pb2.HealthCheckResponse.SERVING
        os.kill(node["pid"], signal.SIGTERM)
        while status() == health_pb2.HealthCheckResponse.SERVING:
            time.sleep(0.01)
        assert status() == health_pb2.HealthCheckResponse.NOT_SERVING
        # Those who ask over HTTP are told the same, and are served until the end.
        url = f"http://127.0.0.1:{node['http_port']}"
        reply = httpx.get(f"{url}/readyz", trust_env=False)
        assert (reply.status_code, reply.text) == (503, "the node is leaving\n")
        assert httpx.get(f"{url}/livez", trust_env=False).status_code == 200


# What is wrong


def test_mistakes_are_told_in_a_sentence_and_exit_with_2(
    write: Write, coin: Coin, tmp_path: Path
) -> None:
    (tmp_path / "none.pem").write_text("no certificate")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        tls = f'http_certificate = "{tmp_path / "none.pem"}"\nhttp_key = "{tmp_path / "none.pem"}"'
        cases: list[tuple[tuple[str, ...], str]] = [
            (("sahre = 1.0",), "sahre: there is no such setting; did you mean share?"),
            (("share = 2.0",), "share: Input should be less than or equal to 1"),
            (("metrics_port = 1",), "no such setting"),
            (('[log]\norigin = "a"',), r"log\.key: missing; give it as COIN_VERIFIER_LOG__KEY"),
            ((f'[log]\norigin = "a"\nkey = "file:{tmp_path}/no.pem"',), "cannot read the key file"),
            (("[providers.other]\nendpoint = '127.0.0.1:1'",), "say whom to believe"),
            ((tls,), "cannot be used: wanted readable PEM"),
            (('old_keys = ["no.pem"]',), "cannot read no.pem"),
            (('other_verifiers = { another = "no.pem" }',), "cannot read no.pem"),
        ]
        for lines, said in cases:
            with logging_as_before():
                done = coin("verifier", "serve", "--config", write(*lines))
            assert done.code == 2, done.said
            assert re.search(said, done.said), done.said
        for options, said in (
            (("--listen", "nonsense"), "wanted HOST:PORT"),
            (("--listen", busy), "cannot listen on"),
            (("--listen", "0.0.0.0:0"), "loopback"),
            (("--http-listen", busy), f"cannot listen on {busy}: Address already in use"),
            (("--http-listen", "0.0.0.0:0"), "needs http_certificate, http_key and tokens"),
            (("--provider", "acme"), "wanted NAME=HOST:PORT"),
            (("--root", str(tmp_path / "root.pub.pem")), "go with --provider"),
            (("--database", "mysql://localhost/x"), "no store over this kind of database"),
            (("--profile", "none"), "none"),
        ):
            with logging_as_before():
                done = coin("verifier", "serve", "--config", write(), *options)
            assert done.code == 2, done.said
            assert said in done.said, done.said
    with logging_as_before():
        done = coin("verifier", "worker", "--config", write())
    assert done.code == 2
    assert "audits_at_once is 0" in done.said
    assert coin("verifier", "serve", "--config", tmp_path / "no.toml").code == 2
    missing = coin("verifier", "serve")
    assert missing.code == 2
    assert "name: missing; give it as --name, COIN_VERIFIER_NAME or in the file" in missing.said


def test_secrets_are_in_no_output(
    write: Write, coin: Coin, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = f"postgresql+psycopg://ann:{SECRET}@127.0.0.1:1/node"
    pin = f"pkcs11:token=none;object=none?module-path=/nowhere.so&pin-value={SECRET}"
    nats = f'[nats]\nservers = ["nats://ann:{SECRET}@127.0.0.1:1"]'
    shown = coin("verifier", "config", "--config", write(f'database = "{away}"', nats))
    assert shown.code == 0
    assert shown.document["key"] == "[redacted]"
    assert shown.document["nats"]["servers"] == ["[redacted]"]
    assert shown.document["database"].startswith("postgresql+psycopg://ann:***@")
    assert SECRET not in shown.said
    with logging_as_before():
        done = coin("verifier", "serve", "--config", write(f'database = "{away}"'))
        # What may be there in a while is tried again.
        assert (done.code, SECRET in done.said) == (3, False), done.said
        for command in ("serve", "worker"):
            monkeypatch.setenv("COIN_VERIFIER_KEY", pin)
            done = coin("verifier", command, "--config", write(audits=1))
            assert (done.code, SECRET in done.said) == (2, False), done.said
        monkeypatch.delenv("COIN_VERIFIER_KEY")
        monkeypatch.setenv("COIN_VERIFIER_DATABASE", f"postgres://{SECRET}:@[x")
        done = coin("verifier", "migrate")
        assert (done.code, SECRET in done.said) == (2, False), done.said
        monkeypatch.setenv("COIN_VERIFIER_DATBASE", SECRET)
        done = coin("verifier", "migrate")
        assert (done.code, SECRET in done.said) == (2, False), done.said
        assert "did you mean COIN_VERIFIER_DATABASE" in done.said


async def test_a_queue_is_reached_by_a_password_that_is_not_shown(
    write: Write, tmp_path: Path
) -> None:
    async with nats_stream() as stream:
        server = NATS.replace("nats://", f"nats://ann:{SECRET}@")
        config = write(f'[nats]\nservers = ["{server}"]\nstream = "{stream.stream}"', audits=1)
        with serving_coin("verifier", "worker", "--config", config) as worker:
            assert worker["working"] == "audits"
    wrong = write(f'[nats]\nservers = ["{server}"]\ncredentials = "{tmp_path}/no"', audits=1)
    done = await asyncio.to_thread(run_coin, "verifier", "worker", "--config", wrong, small=True)
    assert (done.code, SECRET in done.said) == (2, False), done.said
    assert "cannot read the credentials of NATS" in done.said


def test_a_queue_whose_package_is_missing_says_what_to_install(write: Write) -> None:
    config = write('[nats]\nservers = ["nats://127.0.0.1:1"]', audits=1)
    without = "import sys; sys.modules['nats'] = None; from tests.support.small_coin import main"
    done = subprocess.run(
        [sys.executable, "-c", f"{without}; main()", *("verifier", "worker"), "--config", config],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'coin-audit[verifier,nats]'" in " ".join(done.stderr.split())
