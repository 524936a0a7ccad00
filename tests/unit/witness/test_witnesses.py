"""A log asks several witnesses: k of n are enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from coin_protocol.checkpoint import verify_checkpoint
from coin_protocol.errors import ConfigurationError, PeerUnavailableError
from coin_protocol.note import NoteSigner
from tests.support.witness_answers import KEY, answer, answering, client_of
from tests.support.witnesses import NAME, Log, app_of, cosigner, serving, witness_over
from verifier_sdk.witness.client import WitnessClient
from verifier_sdk.witness.witnesses import CosignedNote, QuorumError, Witnesses

SIGNERS = [cosigner(f"witness.example/{number}", 110 + number) for number in range(3)]


@asynccontextmanager
async def several(tmp_path: Path, log: Log, *, up: int, quorum: int) -> AsyncIterator[Witnesses]:
    """Give three witnesses, of which the first `up` are there."""
    async with AsyncExitStack() as stack:
        made = []
        for number, signer in enumerate(SIGNERS):
            url = f"sqlite:///{tmp_path / f'{number}.db'}"
            if number < up:
                witness = stack.enter_context(witness_over(url, log, signer=signer))
                port = await stack.enter_async_context(serving(app_of(witness).app))
            else:
                port = await stack.enter_async_context(answering(answer(503)))
            made.append(client_of(port, signer))
        yield await stack.enter_async_context(Witnesses(made, quorum))


def names(found: CosignedNote, log: Log, quorum: int) -> list[str]:
    keys = [signer.verifier for signer in SIGNERS]
    checked = verify_checkpoint(found.note, log.verifier, keys, quorum)
    assert checked.checkpoint == log.head()
    return [one.name for one in checked.cosignatures]


@pytest.mark.parametrize(("up", "quorum"), [(3, 3), (2, 2), (2, 1), (1, 1), (0, 0)])
async def test_k_of_n_are_enough(tmp_path: Path, log: Log, up: int, quorum: int) -> None:
    async with several(tmp_path, log, up=up, quorum=quorum) as witnesses:
        for _ in range(2):
            found = await witnesses.cosign(log.grow(3).note(), log.proof)
            wanted = [f"witness.example/{number}" for number in range(up)]
            assert names(found, log, quorum) == wanted == list(found.cosigned)
            assert set(found.failures) == {f"witness.example/{n}" for n in range(up, 3)}
            assert {type(one) for one in found.failures.values()} <= {PeerUnavailableError}


async def test_too_few_are_an_error_with_what_there_is(tmp_path: Path, log: Log) -> None:
    async with several(tmp_path, log, up=1, quorum=2) as witnesses:
        with pytest.raises(QuorumError, match="1 of 3 witnesses cosigned, wanted 2") as caught:
            await witnesses.cosign(log.note(), log.proof)
    assert names(caught.value.found, log, 1) == ["witness.example/0"]


async def test_those_that_hang_are_not_waited_for_once_there_are_enough(
    tmp_path: Path, log: Log
) -> None:
    hung = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        hung.set()
        await reader.read()
        writer.close()

    with witness_over(f"sqlite:///{tmp_path / 'w.db'}", log, signer=SIGNERS[0]) as witness:
        silent = await asyncio.start_server(hang, "127.0.0.1", 0)
        async with silent, serving(app_of(witness).app) as port:
            slow = client_of(silent.sockets[0].getsockname()[1], SIGNERS[1], timeout_seconds=60)
            async with Witnesses([client_of(port, SIGNERS[0]), slow], 1) as witnesses:
                found = await asyncio.wait_for(witnesses.cosign(log.note(), log.proof), 20)
                await asyncio.wait_for(hung.wait(), 20)
    assert found.cosigned == ("witness.example/0",)
    assert [str(one) for one in found.failures.values()] == ["witness 'witness.example/1' is late"]


async def test_a_mistake_in_the_log_s_proofs_is_not_swallowed(tmp_path: Path, log: Log) -> None:
    def broken(old: int, new: int) -> Sequence[bytes]:
        return [bytes(old // (new - new))]

    async with several(tmp_path, log, up=3, quorum=1) as witnesses:
        await witnesses.cosign(log.note(), log.proof)
        with pytest.raises(ZeroDivisionError):
            await witnesses.cosign(log.grow(1).note(), broken)


def test_a_quorum_that_can_never_be_is_refused() -> None:
    def client(signer: NoteSigner) -> WitnessClient:
        return WitnessClient("https://witness.example", signer.verifier)

    for quorum in (-1, 2):
        with pytest.raises(ConfigurationError, match="never"):
            Witnesses([client(KEY)], quorum)
    same_key, same_name = cosigner("alias", 100), cosigner(NAME, 103)
    for other in (KEY, same_key, same_name):
        with pytest.raises(ConfigurationError, match="two witnesses"):
            Witnesses([client(KEY), client(other)], 1)
