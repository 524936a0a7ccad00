"""The log of a process of `coin verifier serve`, read over HTTP, killed, and put on old copies."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks._crashes.site import build
from coin_protocol.checkpoint import read_unverified
from coin_protocol.database.engine import open_engine, writing
from coin_protocol.database.migrate import upgrade
from coin_protocol.note import NoteVerifier
from coin_protocol.signer import KeySigner, write_private_key
from coin_protocol.testing.machines.log import LogStoppedError, Moment, NotInLogError
from tests.machines.systems.log_pure import ORIGIN, SIGNER
from tests.machines.systems.verifier_children import Child
from tests.support.parties import WAIT_SECONDS, Parties
from verifier_sdk.log import enqueue_all
from verifier_sdk.store.tables import MIGRATIONS

SECONDS = {Moment.IDLE: 0.0, Moment.PLACED: 0.02, Moment.SIGNED: 0.06, Moment.WRITTEN: 0.2}
"""From what was said last to the death: no more is known of a process that is killed."""


@cache
def new_database() -> bytes:
    """Return a database with a node's tables, and nothing in them."""
    with TemporaryDirectory(prefix="coin-node-") as folder:
        path = Path(folder) / "node.db"
        engine = open_engine(f"sqlite:///{path}")
        upgrade(engine, MIGRATIONS)
        engine.dispose()
        return path.read_bytes()


class ProcessLog:
    """A log that a process keeps while others write into its database."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="coin-log-")
        folder = Path(self._folder.name)
        self._path = folder / "node.db"
        self._path.write_bytes(new_database())
        signer = SIGNER._signer
        assert isinstance(signer, KeySigner)
        write_private_key(folder / "log.pem", signer)
        log = {
            "origin": ORIGIN,
            "key": f"file:{folder / 'log.pem'}",
            "head_file": str(folder / "head"),
            "interval_seconds": 0.05,
        }
        site = build(
            folder,
            Parties(),
            url=f"sqlite:///{self._path}",
            target="127.0.0.1:1",
            nats=None,
            at_once=0,
            more={"http_listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"},
            tables={"log": log},
        )
        self._node = Child("verifier", ["--config", str(site.config)], folder / "node.log")
        self._start()

    def _start(self) -> None:
        self._engine = open_engine(f"sqlite:///{self._path}")
        self._node.start()

    def _end(self) -> None:
        self._node.kill()
        self._engine.dispose()

    @property
    def key(self) -> NoteVerifier:
        return SIGNER.verifier

    def say(self, entries: Sequence[bytes]) -> None:
        with writing(self._engine) as connection:
            enqueue_all(connection, entries)

    def sign(self) -> bytes:
        with closing(sqlite3.connect(self._path)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM log_entry").fetchone()
        end = time.monotonic() + 2 * WAIT_SECONDS
        while time.monotonic() < end:
            note = self.head()
            if note is not None and read_unverified(note).size == count:
                return note
            if self._stopped():
                raise LogStoppedError
            time.sleep(0.02)
        msg = f"no head over {count} entries comes"
        raise AssertionError(msg)

    def _stopped(self) -> bool:
        _, raw = self._get("/metrics", "metrics_port")
        lines = raw.decode().splitlines()
        return any(
            line.startswith("coin_log_errors_total") and float(line.split()[-1]) for line in lines
        )

    def head(self) -> bytes | None:
        status, raw = self._get("/checkpoint")
        return raw if status == 200 else None

    def entries(self, start: int, stop: int) -> Sequence[bytes]:
        found: list[str] = []
        while start + len(found) < stop:
            more = self._asked(
                f"/coin/v1/log/entries?start={start + len(found)}&count={stop - start - len(found)}"
            )["entries"]
            if not more:
                break
            found += more
        return _decoded(found)

    def inclusion(self, leaf_hash: bytes, size: int) -> tuple[int, Sequence[bytes]]:
        found = self._asked(f"/coin/v1/log/inclusion?leaf_hash={leaf_hash.hex()}&size={size}")
        return found["index"], _decoded(found["proof"])

    def consistency(self, old_size: int, new_size: int) -> Sequence[bytes]:
        found = self._asked(f"/coin/v1/log/consistency?old={old_size}&new={new_size}")
        return _decoded(found["proof"])

    def _asked(self, path: str) -> dict[str, Any]:
        status, raw = self._get(path)
        document: dict[str, Any] = json.loads(raw)
        if status in {400, 404}:
            raise NotInLogError(document["detail"])
        assert status == 200, document
        return document

    def _get(self, path: str, port: str = "http_port") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self._node.said(port), timeout=WAIT_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def crash(self, moment: Moment) -> None:
        self._node.said("port")
        time.sleep(SECONDS[moment])
        self._end()
        self._start()

    def back_up(self) -> bytes:
        # What waits would be signed after the copy: no copy would then hold the last head.
        self.sign()
        copy = self._path.with_name("copy.db")
        with (
            closing(sqlite3.connect(self._path)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        raw = copy.read_bytes()
        copy.unlink()
        return raw

    def restore(self, backup: bytes) -> None:
        self._end()
        for name in ("node.db-wal", "node.db-shm"):
            self._path.with_name(name).unlink(missing_ok=True)
        self._path.write_bytes(backup)
        self._start()

    def jump(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        self._end()
        self._folder.cleanup()


def _decoded(values: Sequence[str]) -> list[bytes]:
    return [base64.b64decode(value) for value in values]
