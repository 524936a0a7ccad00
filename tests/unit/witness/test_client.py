"""A log asks its witnesses: honest ones, those that are away, and those that lie."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest

from coin_protocol.checkpoint import cosign
from coin_protocol.errors import (
    ConfigurationError,
    PeerUnavailableError,
    SignatureError,
    StatementError,
    StoreUnavailableError,
)
from coin_protocol.note import NoteSigner
from tests.support.witness_answers import KEY, answer, answering, client_of
from tests.support.witnesses import (
    NAME,
    NOW,
    Log,
    app_of,
    cosigner,
    serving,
)
from verifier_sdk.witness import client as clients
from verifier_sdk.witness.client import WitnessAheadError, WitnessClient, WitnessRefusedError
from verifier_sdk.witness.wire import MAX_ANSWER_BYTES
from verifier_sdk.witness.witness import Witness


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


async def test_a_head_is_cosigned_and_the_next_by_proof(witness: Witness, log: Log) -> None:
    asked: list[tuple[int, int]] = []

    def proof_for(old: int, new: int) -> Sequence[bytes]:
        asked.append((old, new))
        return log.proof(old, new)

    async with serving(app_of(witness).app) as port, client_of(port) as client:
        for size in (3, 3, 7, 10):
            found = await client.cosign(log.note(size), proof_for)
            KEY.verifier.verify(log.head(size).text(), found)
    assert asked == [(3, 7), (7, 10)]


async def test_a_size_that_was_forgotten_is_learned_again(witness: Witness, log: Log) -> None:
    async with serving(app_of(witness).app) as port:
        async with client_of(port) as client:
            await client.cosign(log.note(7), log.proof)
        async with client_of(port) as client:
            await client.cosign(log.note(7), log.proof)
        async with client_of(port) as client:
            await client.cosign(log.note(10), log.proof)
            with pytest.raises(WitnessAheadError, match="10 leaves") as caught:
                await client.cosign(log.note(8), log.proof)
            assert caught.value.size == 10
            # No reason to leave it alone.
            await client.cosign(log.grow(1).note(), log.proof)


async def test_a_fork_is_refused_for_good(witness: Witness, log: Log) -> None:
    fork = log.branch(4, 12)
    async with serving(app_of(witness).app) as port:
        for size, status in ((10, 409), (16, 422)):
            async with client_of(port) as client:
                await client.cosign(log.note(10), log.proof)
                with pytest.raises(WitnessRefusedError) as caught:
                    await client.cosign(fork.note(size), fork.proof)
                assert caught.value.status == status
        async with client_of(port) as client:
            with pytest.raises(WitnessRefusedError, match="does not follow"):
                await client.cosign(Log("example.org/other").grow(1).note(), log.proof)


def signed(*signers: NoteSigner, at: int = NOW, size: int = 10) -> bytes:
    head = Log().grow(10).head(size)
    return "".join(cosign(head, signer, at).line() for signer in signers).encode()


OTHER = cosigner("witness.example/other", 101)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no cosignature"),
        (b"\xff", "no cosignature"),
        (b"ok\n", "no cosignature"),
        (signed(OTHER), "another key"),
        (signed(cosigner(NAME, 102)), "another key"),
        (signed(KEY, size=9), "not that of key"),
        (signed(KEY) + signed(KEY, at=NOW + 1, size=9), "not that of key"),
        (signed(KEY, at=NOW + 301), "future"),
    ],
)
async def test_what_is_no_cosignature_of_this_head_is_not_kept(body: bytes, said: str) -> None:
    async with answering(answer(200, body)) as port, client_of(port) as client:
        with pytest.raises(SignatureError, match=said):
            await client.cosign(Log().grow(10).note(), Log().proof)


async def test_signatures_of_others_beside_it_are_ignored() -> None:
    body = signed(OTHER, KEY) + signed(KEY, at=NOW + 5)
    async with answering(answer(200, body)) as port, client_of(port) as client:
        found = await client.cosign(Log().grow(10).note(), Log().proof)
    assert found.line().encode() == signed(KEY, at=NOW + 5)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([answer(500)], "answered 500"),
        ([answer(503)], "answered 503"),
        ([answer(429)], "answered 429"),
        ([answer(302, more="location: /elsewhere\r\n")], "answered 302"),
        ([answer(200, b"x" * (MAX_ANSWER_BYTES + 1))], "over"),
        ([b"nonsense\r\n\r\n"], "RemoteProtocolError"),
        ([b"HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nx"], "within"),
        ([answer(409, b"x", "text/x.tlog.size")], "no size"),
        ([answer(409, f"{n}\n".encode(), "text/x.tlog.size") for n in (3, 4, 5)], "another size"),
    ],
)
async def test_a_witness_that_fails_may_be_asked_later(answers: list[bytes], said: str) -> None:
    log = Log().grow(10)
    async with (
        answering(*answers) as port,
        client_of(port, timeout_seconds=0.5) as client,
    ):
        with pytest.raises(PeerUnavailableError, match=said):
            await client.cosign(log.note(), log.proof)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (answer(400, b"\x1b[31mred\n"), 400),
        (answer(404), 404),
        # A size that says nothing new, and one under another type.
        (answer(409, b"0\n", "text/x.tlog.size"), 409),
        (answer(409, b"7\n", "text/x.tlog.size; charset=utf-8"), 409),
    ],
)
async def test_a_refusal_says_the_witness_s_reason(given: bytes, status: int) -> None:
    log = Log().grow(10)
    async with answering(given) as port, client_of(port) as client:
        with pytest.raises(WitnessRefusedError) as caught:
            await client.cosign(log.note(), log.proof)
    assert caught.value.status == status
    assert "\x1b" not in str(caught.value)


async def test_a_compressed_answer_is_not_unpacked() -> None:
    body = gzip.compress(signed(KEY))
    packed = answer(200, body, more="content-encoding: gzip\r\n")
    async with answering(packed) as port, client_of(port) as client:
        with pytest.raises(SignatureError):
            await client.cosign(Log().grow(10).note(), Log().proof)


async def test_a_lie_about_the_size_is_got_over(witness: Witness, log: Log) -> None:
    """A size of 2^62 makes one head fail, and not those that follow."""
    huge = answer(409, b"4611686018427387904\n", "text/x.tlog.size")

    def honest(body: bytes) -> bytes:
        said = witness.add_checkpoint(body).result
        if hasattr(said, "line"):
            return answer(200, said.line.encode())
        return answer(409, f"{said.size}\n".encode(), "text/x.tlog.size")

    async with answering(huge, honest) as port, client_of(port) as client:
        with pytest.raises(WitnessAheadError):
            await client.cosign(log.note(8), log.proof)
        await client.cosign(log.note(9), log.proof)


async def test_a_witness_that_fails_is_left_alone_for_a_while() -> None:
    log, clock = Log().grow(10), Clock()
    good = answer(200, signed(KEY))
    async with (
        answering(answer(503), answer(503), good) as port,
        client_of(port, monotonic=clock) as client,
    ):
        for failures, longest in ((1, 1.0), (2, 2.0)):
            with pytest.raises(PeerUnavailableError, match="503"):
                await client.cosign(log.note(), log.proof)
            with pytest.raises(PeerUnavailableError, match=f"failed {failures} times") as caught:
                await client.cosign(log.note(), log.proof)
            assert caught.value.status == "BACKING_OFF"
            clock.seconds += longest
        await client.cosign(log.note(), log.proof)
        await client.cosign(log.note(), log.proof)


async def test_the_pause_has_an_end() -> None:
    log, clock = Log().grow(10), Clock()
    async with (
        answering(answer(503)) as port,
        client_of(port, monotonic=clock) as client,
    ):
        for _ in range(40):
            with pytest.raises(PeerUnavailableError, match="503"):
                await client.cosign(log.note(), log.proof)
            clock.seconds += clients._LONGEST_PAUSE_SECONDS


async def test_the_log_s_own_trouble_is_not_the_witness_s(witness: Witness, log: Log) -> None:
    def broken(old: int, new: int) -> Sequence[bytes]:
        msg = f"no proof from {old} to {new} now"
        raise StoreUnavailableError(msg)

    async with serving(app_of(witness).app) as port, client_of(port) as client:
        await client.cosign(log.note(5), log.proof)
        with pytest.raises(StoreUnavailableError):
            await client.cosign(log.note(), broken)
        await client.cosign(log.note(), log.proof)
        with pytest.raises(StatementError):
            await client.cosign(b"no note", log.proof)


async def test_nobody_is_there() -> None:
    async with answering(b"") as port:
        pass
    async with client_of(port) as client:
        with pytest.raises(PeerUnavailableError, match="ConnectError"):
            await client.cosign(Log().grow(1).note(), Log().proof)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "witness.example",
        "ftp://witness.example",
        "http://witness.example",
        "http://10.0.0.1",
        "http://127.0.0.1.example.org",
        "https://user:secretword@witness.example",
        "https://witness.example/?a=secretword",
        "https://witness.example/#secretword",
        "https://",
        "https://[::1",
        "https://witness.example:x",
    ],
)
def test_urls_are_https_or_this_machine(url: str) -> None:
    with pytest.raises(ConfigurationError, match="https://HOST") as caught:
        WitnessClient(url, KEY.verifier)
    assert "secretword" not in str(caught.value)


async def test_urls_that_can_be_used() -> None:
    for url in (
        "https://witness.example",
        "https://witness.example:8446/a/",
        "http://localhost:1",
        "http://[::1]:1",
    ):
        async with WitnessClient(url, KEY.verifier) as client:
            assert client._url == url.rstrip("/") + "/add-checkpoint"


def test_a_client_needs_a_witness_s_key_and_authorities_that_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="0x04"):
        WitnessClient("https://witness.example", Log().verifier)
    (tmp_path / "none.pem").write_text("nothing")
    for path in (tmp_path / "none.pem", tmp_path / "missing.pem"):
        with pytest.raises(ConfigurationError, match="PEM"):
            WitnessClient("https://witness.example", KEY.verifier, authorities=str(path))
