"""Two processes of `coin witness serve` over one SQLite database, asked over HTTP, and killed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from coin_protocol.note import NoteVerifier
from coin_protocol.signer import KeySigner, write_private_key
from coin_protocol.testing.machines.witness_system import Answer
from tests.machines.systems.verifier_children import Child
from tests.machines.systems.witness_pure import KEY
from tests.machines.systems.witness_sqlite import new_database
from tests.support.parties import WAIT_SECONDS
from tests.support.witnesses import NAME
from verifier_sdk.witness.wire import PATH

MOMENTS = (0.0, 0.002, 0.005, 0.01, 0.02)
"""Seconds from a question to the death of whoever was asked."""


class ProcessWitness:
    """A witness of two processes."""

    def __init__(self, logs: Mapping[str, str]) -> None:
        self._folder = TemporaryDirectory(prefix="coin-witness-")
        folder = Path(self._folder.name)
        (folder / "witness.db").write_bytes(new_database())
        signer = KEY._signer
        assert isinstance(signer, KeySigner)
        write_private_key(folder / "witness.pem", signer)
        options = [
            *("--name", NAME, "--key", f"file:{folder / 'witness.pem'}"),
            *("--database", f"sqlite:///{folder / 'witness.db'}", "--listen", "127.0.0.1:0"),
            *(part for vkey in logs.values() for part in ("--log", vkey)),
        ]
        self._children = [Child("witness", options, folder / f"{name}.log") for name in "ab"]
        self._moments = cycle(MOMENTS)
        self._turns = 0
        for child in self._children:
            child.start()

    @property
    def key(self) -> NoteVerifier:
        return KEY.verifier

    def ask(self, bodies: Sequence[bytes]) -> Sequence[Answer]:
        ports = [self._next().said("port") for _ in bodies]
        if len(bodies) == 1:
            return [_post(ports[0], bodies[0])]
        with ThreadPoolExecutor(len(bodies)) as threads:
            return list(threads.map(_post, ports, bodies))

    def _next(self) -> Child:
        """Return the one whose turn it is."""
        self._turns += 1
        return self._children[self._turns % 2]

    def ask_and_die(self, body: bytes) -> None:
        asked = self._next()
        port = asked.said("port")

        def ask() -> None:
            with suppress(OSError, HTTPException):
                _post(port, body)

        with ThreadPoolExecutor(1) as threads:
            asking = threads.submit(ask)
            time.sleep(next(self._moments))
            asked.kill()
            asking.result()
        asked.start()

    def restart(self) -> None:
        for child in self._children:
            child.kill()
            child.start()

    def jump(self, seconds: int) -> None:
        pass

    def close(self) -> None:
        for child in self._children:
            child.kill()
        self._folder.cleanup()


def _post(port: int, body: bytes) -> Answer:
    connection = HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    try:
        connection.request("POST", PATH, body)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), answer.getheader("content-type", ""))
    finally:
        connection.close()
