"""Processes of the provider's side as an operator meets them: health, ports, ends that hang."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import psycopg
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import insert, select

from coin_protocol.database.engine import open_engine, reading, writing
from coin_protocol.table import TokenTable
from coin_protocol.testing.small import SmallModels, small_profile
from provider_sdk.cli import running
from provider_sdk.ops.settings import ProviderSettings, load_settings
from provider_sdk.store.jobs import MOST_ATTEMPTS
from provider_sdk.store.tables import COMMITTED, SESSION
from tests.support.certificates import make_certificates
from tests.support.command import ROOT, Coin, run_coin, serving_coin
from tests.support.databases import database
from tests.support.logs import logging_as_before
from tests.support.parties import PROVIDER, WAIT_SECONDS

_COIN_THAT_CLOSES_SOON = """
from coin_protocol import models
from coin_protocol.testing.small import SmallModels

models.Models = SmallModels
from coin_protocol.cli.main import main
from provider_sdk import cli

cli.CLOSING_SECONDS = 1
main()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Settings over a key folder and an empty SQLite database."""
    assert run_coin("keys", "init", tmp_path / "keys", "--name", PROVIDER).code == 0
    assert run_coin("provider", "sealing-key", tmp_path / "keys" / "sealing.key").code == 0
    (tmp_path / "profile").write_bytes(small_profile().raw)
    settings = tmp_path / "provider.toml"
    settings.write_text(
        f'name = "{PROVIDER}"\nkeys = "{tmp_path / "keys"}"\nprofile = "{tmp_path / "profile"}"\n'
        f'database = "sqlite:///{tmp_path / "coin.db"}"\ngrace_seconds = 0\n'
    )
    return settings


def test_health_can_be_asked_for_while_a_token_table_is_built(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    asked: list[int] = []

    class Building(SmallModels):
        @property
        def table(self) -> TokenTable:
            with urlopen(f"http://{listen}/metrics", timeout=WAIT_SECONDS) as answer:
                asked.append(answer.status)
            return super().table

    monkeypatch.setattr("coin_protocol.cli.common.Models", Building)
    settings = load_settings(ProviderSettings, file, metrics_listen=listen)
    with logging_as_before(), running(settings, embed=False):
        assert {*asked} == {200}


def test_a_port_that_is_taken_is_said_with_the_reason(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_coin(
            *("gateway", "--upstream", "http://127.0.0.1:1", "--port", port, "--config", file),
            small=True,
        )
    assert done.code == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.said
    assert "Traceback" not in done.said


@pytest.mark.parametrize("wrong", ["swapped", "foreign", "encrypted"])
def test_tls_files_that_do_not_fit_are_named_and_no_password_is_asked_for(
    file: Path, tmp_path: Path, wrong: str
) -> None:
    made = make_certificates(tmp_path)
    certificate, key = made.server.certificate, made.server.key
    if wrong == "swapped":
        certificate, key = key, certificate
    elif wrong == "foreign":
        key = made.client.key
    else:
        loaded = load_pem_private_key(key.read_bytes(), None)
        sealed = BestAvailableEncryption(b"a password")
        key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
    env = {"COIN_GATEWAY_TLS_CERTIFICATE": str(certificate), "COIN_GATEWAY_TLS_KEY": str(key)}
    arguments = ("gateway", "--upstream", "http://127.0.0.1:1", "--port", "0", "--config", file)
    done = run_coin(*arguments, small=True, env=env)
    assert done.code == 2
    assert f"tls_key {key} cannot be used: wanted readable PEM" in done.said


def test_the_settings_shown_are_the_gateways_too(file: Path, coin: Coin) -> None:
    assert "gateway" not in coin("provider", "config", "--config", file).document
    with file.open("a") as opened:
        opened.write('[gateway]\ncaller_key = "sesame-open-sesame"\n')
    lacking = coin("provider", "config", "--config", file)
    assert lacking.code == 2
    assert "upstream: missing; give it as --upstream" in lacking.said
    shown = coin("provider", "config", "--config", file, "--upstream", "http://127.0.0.1:1")
    assert shown.document["gateway"]["upstream"] == "http://127.0.0.1:1/"
    assert shown.document["gateway"]["caller_key"] == "[redacted]"


def test_a_service_that_stops_says_so_for_as_long_as_it_is_told(file: Path) -> None:
    arguments = ("provider", "serve", "--config", file, "--listen", "127.0.0.1:0")
    env = {"COIN_GRACE_SECONDS": "5", "COIN_NOTICE_SECONDS": "5"}
    with (
        serving_coin(*arguments, env=env) as service,
        grpc.insecure_channel(f"127.0.0.1:{service['port']}") as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)

        def status() -> int:
            request = health_pb2.HealthCheckRequest()
            return int(health.Check(request, timeout=WAIT_SECONDS, wait_for_ready=True).status)

        assert status() == health_pb2.HealthCheckResponse.SERVING
        os.kill(service["pid"], signal.SIGTERM)
        while status() == health_pb2.HealthCheckResponse.SERVING:
            time.sleep(0.01)
        time.sleep(0.2)
        # A new connection, as a balancer would make one: the port is still open.
        with socket.create_connection(("127.0.0.1", service["port"]), timeout=WAIT_SECONDS):
            assert status() == health_pb2.HealthCheckResponse.NOT_SERVING


def test_what_workers_gave_up_is_tried_again_on_demand(file: Path, coin: Coin) -> None:
    said = coin("provider", "retry", "--config", file)
    assert said.document == {"sessions": 0}
    url = f"sqlite:///{file.parent / 'coin.db'}"
    engine = open_engine(url)
    row = {"session_id": bytes(16), "opened_at": 0.0, "statement": b"", "attempts": MOST_ATTEMPTS}
    with writing(engine) as connection:
        connection.execute(insert(SESSION).values(state=COMMITTED, **row))
    assert coin("provider", "retry", "--config", file).document == {"sessions": 1}
    with reading(engine) as connection:
        assert connection.execute(select(SESSION.c.attempts)).scalar_one() == 0
    engine.dispose()


def _lock_all(holder: psycopg.Connection[Any]) -> None:
    """Lock every table, and return once somebody waits for it."""
    ends = time.monotonic() + WAIT_SECONDS
    while True:
        assert time.monotonic() < ends
        try:
            # Without waiting, or this and a transaction of the worker's could wait for each other.
            with holder.transaction():
                holder.execute("LOCK TABLE session, block, process IN ACCESS EXCLUSIVE MODE NOWAIT")
            break
        except psycopg.errors.LockNotAvailable:
            time.sleep(0.01)
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    while holder.execute(waiting).fetchone() == (0,):
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_database_that_hangs_does_not_keep_a_process_from_its_end(
    file: Path, tmp_path: Path
) -> None:
    with database("postgresql", tmp_path) as url:
        worker = subprocess.Popen(
            [
                *(sys.executable, "-c", _COIN_THAT_CLOSES_SOON),
                *("provider", "worker", "--config", str(file)),
            ],
            cwd=ROOT,
            env=os.environ | {"COIN_DATABASE": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with worker, psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as holder:
            try:
                assert worker.stdout is not None
                assert "working" in worker.stdout.readline()
                with holder.transaction():
                    _lock_all(holder)
                    worker.send_signal(signal.SIGTERM)
                    _, said = worker.communicate(timeout=WAIT_SECONDS)
            finally:
                worker.kill()
    assert worker.returncode == 3
    assert "ending all the same" in said
    assert "Traceback" not in said
