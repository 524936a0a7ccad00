"""A verifier that stands still accuses nobody of being late."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from coin_protocol import transport
from coin_protocol.errors import PeerUnavailableError
from coin_protocol.keyset import stamp
from coin_protocol.testing.proxy import TcpProxy
from coin_protocol.v1 import envelope_pb2, profile_pb2, receipt_pb2
from provider_sdk.provider import Provider
from tests.support.audits import audit, failed, says
from tests.support.parties import WAIT_SECONDS, Parties, easy, run_session, small_policy
from tests.support.servers import Manifest, Opening, misbehaving, serving_raw
from verifier_sdk.client import ProviderClient

CALL_SECONDS = 0.6
STALL_SECONDS = 1.4
ROOT = Path(__file__).parents[2]


@contextmanager
def elsewhere(server: AbstractAsyncContextManager[str]) -> Iterator[str]:
    """Run a server on a loop of its own, in another thread; give HOST:PORT."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Awaitable[Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(_awaited(work), loop).result(WAIT_SECONDS)

    target = run(server.__aenter__())
    try:
        yield target
    finally:
        run(server.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


class Stall:
    """Blocks the loop of the test once, as soon as a question has come to the provider."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.blocked = threading.Event()

    def _block(self) -> None:
        self.blocked.set()
        time.sleep(STALL_SECONDS)

    async def before(self) -> None:
        """Wait in the provider's loop until the verifier's stands still."""
        if not self.blocked.is_set():
            self.loop.call_soon_threadsafe(self._block)
            await asyncio.to_thread(self.blocked.wait)


@pytest.mark.parametrize("answers", [True, False], ids=["in time", "never"])
async def test_a_loop_that_was_blocked_while_a_challenge_was_out_accuses_nobody(
    parties: Parties, provider: Provider, *, answers: bool
) -> None:
    stall = Stall()

    async def answer(honest: Callable[[], Awaitable[Opening]], *_: object) -> Opening:
        await stall.before()
        if not answers:
            await asyncio.Event().wait()
        return await honest()

    reply = run_session(provider)
    with elsewhere(misbehaving(provider, answer=answer)) as target:
        verdict = await audit(parties, reply.receipt, target, call_seconds=CALL_SECONDS)
    assert stall.blocked.is_set()
    assert verdict.outcome != receipt_pb2.OUTCOME_FAIL
    assert verdict.fault == receipt_pb2.FAULT_UNSPECIFIED
    if not answers:
        assert verdict.outcome == receipt_pb2.OUTCOME_INCONCLUSIVE
        assert says(verdict, "unavailable")


async def test_an_answer_that_is_read_late_for_a_blocked_loop_is_no_late_answer(
    parties: Parties, provider: Provider
) -> None:
    stall = Stall()

    async def answer(honest: Callable[[], Awaitable[Opening]], *_: object) -> Opening:
        await stall.before()
        return await honest()

    def hurried(policy: profile_pb2.Policy) -> None:
        easy(policy)
        policy.challenge_deadline.FromSeconds(1)

    reply = run_session(provider)
    with elsewhere(misbehaving(provider, answer=answer)) as target:
        verdict = await audit(parties, reply.receipt, target, policy=small_policy(hurried))
    assert verdict.outcome == receipt_pb2.OUTCOME_INCONCLUSIVE
    assert says(verdict, "unavailable")


async def test_a_last_try_that_is_short_accuses_nobody(
    parties: Parties, provider: Provider
) -> None:
    began = asyncio.get_running_loop().time()

    async def answer(
        honest: Callable[[], Awaitable[Opening]], _: object, context: transport.Context
    ) -> Opening:
        if asyncio.get_running_loop().time() - began < 0.7 * CALL_SECONDS:
            await transport.abort(context, grpc.StatusCode.UNAVAILABLE, "restarting")
        await asyncio.Event().wait()
        return await honest()

    reply = run_session(provider)
    async with misbehaving(provider, answer=answer) as target:
        began = asyncio.get_running_loop().time()
        verdict = await audit(parties, reply.receipt, target, call_seconds=CALL_SECONDS)
    assert verdict.outcome == receipt_pb2.OUTCOME_INCONCLUSIVE
    assert says(verdict, "unavailable")


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "speaking"])
async def test_a_network_that_swallows_everything_accuses_nobody(
    parties: Parties, provider: Provider, *, silent: bool
) -> None:
    async with AsyncExitStack() as stack:
        proxies: list[TcpProxy] = []

        async def answer(honest: Callable[[], Awaitable[Opening]], *_: object) -> Opening:
            if silent:
                proxies[0].fall_silent()
            await asyncio.Event().wait()
            return await honest()

        reply = run_session(provider)
        target = await stack.enter_async_context(misbehaving(provider, answer=answer))
        proxies.append(await stack.enter_async_context(TcpProxy(target)))
        verdict = await audit(parties, reply.receipt, proxies[0].target, call_seconds=CALL_SECONDS)
    wanted = receipt_pb2.OUTCOME_INCONCLUSIVE if silent else receipt_pb2.OUTCOME_FAIL
    assert verdict.outcome == wanted


@pytest.mark.parametrize(("waits", "asked"), [(0.0, 1), (0.8, 0)], ids=["fresh", "old"])
async def test_a_challenge_that_has_become_old_is_not_sent(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, waits: float, asked: int
) -> None:
    seen: list[object] = []

    async def answer(raw: bytes, context: transport.Context) -> None:
        seen.append(raw)
        await transport.abort(context, grpc.StatusCode.INTERNAL, "not today")

    async with (
        serving_raw({"AnswerChallenge": answer}) as target,
        ProviderClient(target, tls=None, timeout=5.0) as client,
    ):
        ready = client._channel.channel_ready

        async def late() -> None:
            await asyncio.sleep(waits)
            await ready()

        monkeypatch.setattr(client._channel, "channel_ready", late)
        challenge = parties.challenge(
            envelope_pb2.Envelope(payload=b"some"),
            deadline=stamp(datetime.now(UTC) + timedelta(seconds=1)),
        )
        entry = await client.challenge(bytes(32), challenge, whole=False)
    assert len(seen) == asked
    assert entry.no_answer == ("INTERNAL" if asked else "UNAVAILABLE")


async def test_a_loop_that_was_blocked_while_the_manifest_was_out_accuses_nobody(
    provider: Provider,
) -> None:
    stall = Stall()

    async def show(honest: Callable[[], Awaitable[Manifest]], _: transport.Context) -> Manifest:
        await stall.before()
        await asyncio.Event().wait()
        return await honest()

    reply = run_session(provider)
    with elsewhere(misbehaving(provider, show=show)) as target:
        async with ProviderClient(target, tls=None, timeout=CALL_SECONDS) as client:
            with pytest.raises(PeerUnavailableError) as raised:
                await client.manifest(reply.commitment_sha256)
    assert raised.value.status == "UNAVAILABLE"


async def test_a_blocked_loop_excuses_no_refusal(parties: Parties, provider: Provider) -> None:
    stall = Stall()

    async def answer(_: object, __: object, context: transport.Context) -> Opening:
        await stall.before()
        await transport.abort(context, grpc.StatusCode.INTERNAL, "not today")
        raise AssertionError

    reply = run_session(provider)
    with elsewhere(misbehaving(provider, answer=answer)) as target:
        verdict = await audit(parties, reply.receipt, target, call_seconds=10.0)
    assert stall.blocked.is_set()
    assert verdict.outcome == receipt_pb2.OUTCOME_FAIL
    assert failed(verdict) == ["OPENING_PRESENT"]


_ASKS = """
import asyncio, sys
from coin_protocol.v1 import envelope_pb2
from verifier_sdk.client import ProviderClient

async def ask():
    async with ProviderClient(sys.argv[1], tls=None, timeout=1.0) as client:
        entry = await client.challenge(bytes(32), envelope_pb2.Envelope(), whole=False)
    print(entry.no_answer or "answered")

asyncio.run(ask())
"""


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "running"])
async def test_a_process_that_was_stopped_while_a_challenge_was_out_accuses_nobody(
    *, stopped: bool
) -> None:
    asked = asyncio.Event()

    async def hang(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving_raw({"AnswerChallenge": hang}) as target:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _ASKS, target), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(WAIT_SECONDS):
            await asked.wait()
            if stopped:
                os.kill(process.pid, signal.SIGSTOP)
                await asyncio.sleep(1.8)  # past the time that the question has
                os.kill(process.pid, signal.SIGCONT)
            out, _ = await process.communicate()
    assert out.decode().strip() == ("UNAVAILABLE" if stopped else "DEADLINE_EXCEEDED")
