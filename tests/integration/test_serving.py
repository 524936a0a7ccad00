"""Servers run until they are told to stop, and let calls under way finish."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from coin_protocol import transport
from coin_protocol.errors import ConfigurationError
from coin_protocol.v1 import replay_service_pb2
from provider_sdk.provider import Provider
from provider_sdk.replay import Replay, Trace
from provider_sdk.replay.server import serve_replays
from provider_sdk.session import Session
from tests.support.audits import audit
from tests.support.certificates import Certificates
from tests.support.parties import WAIT_SECONDS, Parties, run_session
from tests.support.replays import LONG, TOKENS_PER_SECOND, ask
from verifier_sdk.client import ProviderClient


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_serving_after_the_reply_under_way(
    number: signal.Signals,
) -> None:
    parties = Parties()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    began = asyncio.Event()

    class Watched(Replay):
        async def reason(
            self, session: Session, trace: Trace
        ) -> AsyncIterator[replay_service_pb2.GenerateResponse]:
            async for event in super().reason(session, trace):
                began.set()
                yield event

    with parties.provider() as provider:
        replay = Watched(provider, [LONG], tokens_per_second=TOKENS_PER_SECOND)
        serving = asyncio.create_task(
            serve_replays({"honest": replay}, "127.0.0.1:0", None, port.set_result)
        )
        asking = asyncio.create_task(ask(f"127.0.0.1:{await port}"))
        await began.wait()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(WAIT_SECONDS):
            receipt = await asking
            await serving
    assert receipt.answer == LONG.answer.encode()
    assert len(receipt.checkpoints) == len(replay.tokenizer.encode(LONG.reasoning)) // 8


async def test_replays_of_several_providers_share_one_port(parties: Parties) -> None:
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with parties.provider() as one, parties.provider() as two:
        replays = {
            name: Replay(provider, [LONG], tokens_per_second=1e6)
            for name, provider in (("one", one), ("two", two))
        }
        serving = asyncio.create_task(serve_replays(replays, "127.0.0.1:0", None, port.set_result))
        target = f"127.0.0.1:{await port}"
        receipts = [run_session(provider).receipt for provider in (one, two)]
        verdicts = [await audit(parties, receipt, target) for receipt in receipts]
        async with ProviderClient(target, tls=None) as client:
            assert await client.key_set() == parties.key_set
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
    assert len({verdict.commitment_sha256 for verdict in verdicts}) == 2
    assert {verdict.outcome for verdict in verdicts} == {verdicts[0].outcome}
    assert all(verdict.exposure.tokens for verdict in verdicts)


async def test_serving_under_mutual_tls_listens_anywhere(
    parties: Parties, provider: Provider, certificates: Certificates
) -> None:
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    replays = {"honest": Replay(provider, [LONG])}
    serving = asyncio.create_task(
        serve_replays(replays, "0.0.0.0:0", certificates.server, port.set_result)
    )
    target = f"localhost:{await port}"
    async with ProviderClient(target, tls=certificates.client, timeout=WAIT_SECONDS) as client:
        assert await client.key_set() == parties.key_set
    os.kill(os.getpid(), signal.SIGTERM)
    await serving


async def test_nothing_is_ready_that_could_not_be_bound() -> None:
    ports: list[int] = []
    server = await transport.make_server("x")
    with pytest.raises(ConfigurationError):
        await transport.serve(server, "192.0.2.1:0", None, ports.append)
    assert not ports
