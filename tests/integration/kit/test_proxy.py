"""Bad networks before an honest provider: they are noticed, and accuse nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio

from coin_protocol import transport
from coin_protocol.profile import Policy
from coin_protocol.testing.proxy import (
    PASSED,
    SOUND,
    Act,
    CallScript,
    End,
    Fault,
    GrpcProxy,
    Line,
    LineScript,
    TcpProxy,
    Way,
    always,
    by_chance,
    in_turn,
    scripted,
)
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1 import receipt_pb2
from provider_sdk.provider import Provider
from provider_sdk.service import SERVICE
from tests.support.audits import audit, failed
from tests.support.parties import (
    WAIT_SECONDS,
    Parties,
    Reply,
    easy,
    reasoning_ids,
    run_session,
    small_policy,
    strict,
)
from tests.support.raw import call_raw
from tests.support.replays import HONEST, ask, replaying
from tests.support.servers import serving, serving_raw

PASS, FAIL = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE
NOBODY = receipt_pb2.FAULT_UNSPECIFIED
SECONDS = 2.5
TEXT = bytes(range(256)) * 8


# Bytes


@asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    """Serve bytes back, upside down."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(100):
                writer.write(bytes(byte ^ 0xFF for byte in chunk))
                await writer.drain()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def said(target: str, seconds: float = 5.0) -> bytes | str:
    """Say a text and that it is all; return what came back, or how that ended."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    back = b""
    try:
        writer.write(TEXT)
        writer.write_eof()
        async with asyncio.timeout(seconds):
            while chunk := await reader.read(1 << 16):
                back += chunk
    except TimeoutError:
        return "silence"
    except ConnectionError:
        return "reset"
    finally:
        writer.close()
    return bytes(byte ^ 0xFF for byte in back)


async def test_a_sound_line_carries_all() -> None:
    async with echoing() as target, TcpProxy(target) as proxy:
        assert await asyncio.gather(*(said(proxy.target) for _ in range(3))) == [TEXT] * 3
        assert proxy.connections == 3


@pytest.mark.parametrize(
    ("line", "came"),
    [
        (Line(to_client=0, end=End.CUT), "reset"),
        (Line(to_client=700, end=End.CUT), "reset"),
        (Line(to_server=700, end=End.CUT), "reset"),
        (Line(to_client=700, end=End.CLOSE), TEXT[:700]),
        (Line(to_client=0, end=End.SILENCE), "silence"),
        (Line(to_server=300, end=End.SILENCE), "silence"),
        (Line(delay=0.01), TEXT),
    ],
)
async def test_a_line_ends_where_its_script_says(line: Line, came: bytes | str) -> None:
    async with echoing() as target, TcpProxy(target, in_turn(line)) as proxy:
        assert await said(proxy.target, 0.3 if came == "silence" else 5.0) == came
        assert await said(proxy.target) == TEXT


async def test_a_proxy_is_silent_until_it_speaks_again() -> None:
    async with echoing() as target, TcpProxy(target) as proxy:
        proxy.fall_silent()
        assert await said(proxy.target, 0.2) == "silence"
        waits = asyncio.create_task(said(proxy.target))
        await asyncio.sleep(0.1)
        proxy.speak()
        assert await waits == TEXT


async def test_a_proxy_that_was_down_comes_up_on_its_port() -> None:
    async with echoing() as target, TcpProxy(target) as proxy:
        held = proxy.target
        await proxy.down()
        with pytest.raises(OSError, match=r"refused|reset|Connect"):
            await said(held)
        await proxy.up()
        assert proxy.target == held
        assert await said(held) == TEXT


async def test_a_proxy_before_nobody_resets() -> None:
    async with echoing() as target:
        pass
    async with TcpProxy(target) as proxy:
        assert await said(proxy.target) in {"reset", b""}


async def test_cutting_ends_what_is_open_and_takes_what_is_new() -> None:
    async with echoing() as target, TcpProxy(target) as proxy:
        proxy.fall_silent()
        waits = asyncio.create_task(said(proxy.target))
        await asyncio.sleep(0.1)
        proxy.cut()
        assert await waits in {"reset", b""}
        proxy.speak()
        assert await said(proxy.target) == TEXT


# Audits over bad lines


async def over_lines(
    parties: Parties, reply: Reply, target: str, script: LineScript, seconds: float = WAIT_SECONDS
) -> receipt_pb2.Verdict:
    """Return the verdict of an audit over a bad network."""
    async with TcpProxy(target, script) as proxy:
        return await audit(parties, reply.receipt, proxy.target, call_seconds=seconds)


LINES = [
    Line(to_client=amount, end=end)
    for amount in (0, 60, 900, 9_000)
    for end in (End.CUT, End.CLOSE)
] + [Line(to_server=amount) for amount in (30, 500)]


async def test_an_audit_goes_on_where_a_line_broke(parties: Parties, provider: Provider) -> None:
    replies = [run_session(provider, reasoning_ids(80)) for _ in LINES]
    async with serving(provider) as target:
        verdicts = await asyncio.gather(
            *(
                over_lines(parties, reply, target, in_turn(line))
                for reply, line in zip(replies, LINES, strict=True)
            )
        )
    assert {verdict.outcome for verdict in verdicts} <= {PASS, INCONCLUSIVE}
    assert {verdict.fault for verdict in verdicts} == {NOBODY}
    assert PASS in {verdict.outcome for verdict in verdicts}


async def test_a_network_that_never_carries_an_answer_accuses_nobody(
    parties: Parties, provider: Provider
) -> None:
    lines = [
        Line(to_client=0),
        Line(to_client=60, end=End.CLOSE),
        Line(to_client=900, end=End.SILENCE),
        Line(to_server=300, end=End.SILENCE),
    ]
    replies = [run_session(provider, reasoning_ids(80)) for _ in lines]
    async with serving(provider) as target:
        verdicts = await asyncio.gather(
            *(
                over_lines(parties, reply, target, always(line), seconds=0.8)
                for reply, line in zip(replies, lines, strict=True)
            )
        )
    assert {(verdict.outcome, verdict.fault) for verdict in verdicts} == {(INCONCLUSIVE, NOBODY)}


async def test_a_slow_line_delays_an_audit_and_changes_nothing(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider)
    async with serving(provider) as target:
        verdict = await over_lines(parties, reply, target, always(Line(delay=0.02)))
    assert (verdict.outcome, failed(verdict)) == (PASS, [])


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_chance_does_to_lines_no_audit_accuses(
    parties: Parties, provider: Provider, seed: int
) -> None:
    script = by_chance(seed, [*LINES, Line(to_client=900, end=End.SILENCE)], SOUND, share=0.5)
    replies = [run_session(provider, reasoning_ids(80 + at)) for at in range(4)]
    async with serving(provider) as target, TcpProxy(target, script) as proxy:
        verdicts = await asyncio.gather(
            *(
                audit(parties, reply.receipt, proxy.target, call_seconds=SECONDS)
                for reply in replies
            )
        )
    assert {verdict.outcome for verdict in verdicts} <= {PASS, INCONCLUSIVE}
    assert {verdict.fault for verdict in verdicts} == {NOBODY}


# Calls


@asynccontextmanager
async def counting() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve a method that keeps what it is asked, and answers with it and a number."""
    asked: list[bytes] = []

    async def answer(raw: bytes, context: transport.Context) -> bytes:
        asked.append(raw)
        if raw == b"wrong":
            await transport.abort(
                context, grpc.StatusCode.NOT_FOUND, "no such thing", transport.error_info("WRONG")
            )
        return b"%b %d" % (raw, len(asked))

    async with serving_raw({"GetKeySet": answer}) as target:
        yield target, asked


async def called(
    target: str, requests: Sequence[bytes], *, seconds: float = 5.0
) -> list[bytes | str]:
    """Call with each request in turn; return replies, or the names of statuses."""
    came: list[bytes | str] = []
    async with transport.open_channel(target, None) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/GetKeySet")
        for request in requests:
            try:
                came.append(await call(request, timeout=seconds))
            except aio.AioRpcError as error:
                came.append(error.code().name)
    return came


@pytest.mark.parametrize(
    ("fault", "came", "asked"),
    [
        (PASSED, [b"one 1", b"two 2"], [b"one", b"two"]),
        (Fault(Act.DELAY), [b"one 1", b"two 2"], [b"one", b"two"]),
        (Fault(Act.BREAK, Way.REQUEST), ["UNAVAILABLE", b"two 1"], [b"two"]),
        (Fault(Act.BREAK), ["UNAVAILABLE", b"two 2"], [b"one", b"two"]),
        (Fault(Act.LOSE, Way.REQUEST), ["DEADLINE_EXCEEDED", b"two 1"], [b"two"]),
        (Fault(Act.LOSE), ["DEADLINE_EXCEEDED", b"two 2"], [b"one", b"two"]),
        (Fault(Act.DUPLICATE), [b"one 2", b"two 3"], [b"one", b"one", b"two"]),
        (Fault(Act.TRUNCATE, Way.REQUEST, place=0.7), [b"on 1", b"two 2"], [b"on", b"two"]),
        (Fault(Act.TRUNCATE, place=0.7), [b"one", b"two 2"], [b"one", b"two"]),
        (Fault(Act.CORRUPT, Way.REQUEST, place=0.0), [b"nne 1", b"two 2"], [b"nne", b"two"]),
        (Fault(Act.CORRUPT, place=0.0), [b"nne 1", b"two 2"], [b"one", b"two"]),
        (Fault(Act.REPLAY), [b"one 1", b"two 2"], [b"one", b"two"]),
        (Fault(Act.HOLD, Way.REQUEST), [b"one 1", b"two 2"], [b"one", b"two"]),
    ],
    ids=lambda value: f"{value.act} {value.way}" if isinstance(value, Fault) else "",
)
async def test_a_call_meets_what_its_script_says(
    fault: Fault, came: list[bytes | str], asked: list[bytes]
) -> None:
    script = scripted({"GetKeySet": [fault]})
    async with counting() as (target, kept), GrpcProxy(target, script) as proxy:
        seconds = 0.5 if fault.act == Act.LOSE else 5.0
        found = await called(proxy.target, [b"one", b"two"], seconds=seconds)
        assert proxy.calls == {"GetKeySet": 2}
    assert (found, kept) == (came, asked)


async def test_an_old_reply_is_replayed() -> None:
    script = scripted({"GetKeySet": [PASSED, Fault(Act.REPLAY)]})
    async with counting() as (target, asked), GrpcProxy(target, script) as proxy:
        assert await called(proxy.target, [b"one", b"two", b"three"]) == [
            b"one 1",
            b"one 1",
            b"three 3",
        ]
        assert asked == [b"one", b"two", b"three"]


async def test_calls_change_places() -> None:
    script = scripted({"GetKeySet": [Fault(Act.HOLD, Way.REQUEST, seconds=5.0)]})
    async with counting() as (target, asked), GrpcProxy(target, script) as proxy:
        held = asyncio.create_task(called(proxy.target, [b"one"]))
        async with asyncio.timeout(5.0):
            while not proxy.calls["GetKeySet"]:  # noqa: ASYNC110 - the proxy knows no test's events
                await asyncio.sleep(0.005)
        assert await called(proxy.target, [b"two"]) == [b"two 1"]
        assert await held == [b"one 2"]
        assert asked == [b"two", b"one"]


async def test_an_error_passes_with_its_details() -> None:
    async with (
        counting() as (target, _),
        GrpcProxy(target) as proxy,
        transport.open_channel(proxy.target, None) as channel,
    ):
        call: Any = channel.unary_unary(f"/{SERVICE}/GetKeySet")
        with pytest.raises(aio.AioRpcError, match="no such thing") as caught:
            await call(b"wrong", timeout=5.0)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    info = transport.details_of(caught.value, error_details_pb2.ErrorInfo())
    assert info is not None
    assert info.reason == "WRONG"


async def test_a_proxy_of_calls_that_was_down_comes_up_on_its_port(provider: Provider) -> None:
    async with serving(provider) as target, GrpcProxy(target) as proxy:
        held = proxy.target
        await proxy.down()
        await proxy.up()
        assert proxy.target == held
        async with transport.open_channel(held, None) as channel:
            assert await call_raw(channel, f"/{SERVICE}/GetKeySet", pb.GetKeySetRequest())


async def test_a_reply_is_timed_through_a_proxy_of_calls() -> None:
    parties = Parties()
    async with replaying(parties) as target, GrpcProxy(target) as proxy:
        receipt = await ask(proxy.target, HONEST.name)
        verdict = await audit(parties, receipt, proxy.target)
    assert verdict.outcome == PASS
    assert receipt_pb2.TIER_TIMED in verdict.tiers


# Audits through bad proxies


@dataclass(frozen=True)
class Audited:
    """What came of an audit, and what it cost."""

    verdict: receipt_pb2.Verdict
    answered: int


async def over_calls(
    script: CallScript,
    *,
    tokens: int = 80,
    seconds: float = WAIT_SECONDS,
    policy: Policy | None = None,
) -> Audited:
    """Audit an honest reply through a bad proxy."""
    parties = Parties(policy=policy or small_policy(easy))
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(tokens))
        reply.ready()
        async with serving(provider) as target, GrpcProxy(target, script) as proxy:
            verdict = await audit(parties, reply.receipt, proxy.target, call_seconds=seconds)
        return Audited(verdict, len(provider.store.get(reply.commitment_sha256).answered))


METHODS = ("GetKeySet", "GetManifest", "AnswerChallenge", "AnswerWholeBlockChallenge")
HARMLESS = [
    Fault(Act.BREAK, Way.REQUEST),
    Fault(Act.BREAK),
    Fault(Act.DELAY),
    Fault(Act.DUPLICATE),
    Fault(Act.HOLD, Way.REQUEST),
    Fault(Act.HOLD),
]


@pytest.mark.parametrize("fault", HARMLESS, ids=lambda fault: f"{fault.act} {fault.way}")
async def test_what_breaks_waits_or_comes_twice_changes_no_verdict(fault: Fault) -> None:
    script = scripted({method: [fault] for method in METHODS})
    found = await over_calls(script)
    assert (found.verdict.outcome, failed(found.verdict)) == (PASS, [])
    # Nothing was opened twice for it.
    assert found.answered == 2


@pytest.mark.parametrize("act", [Act.BREAK, Act.LOSE])
async def test_a_proxy_that_passes_nothing_accuses_nobody(act: Act) -> None:
    found = await over_calls(always(Fault(act, Way.REQUEST)), seconds=0.8)
    assert (found.verdict.outcome, found.verdict.fault) == (INCONCLUSIVE, NOBODY)
    assert found.answered == 0


async def test_audits_whose_calls_change_places_pass(parties: Parties, provider: Provider) -> None:
    script = by_chance("places", [Fault(Act.HOLD, Way.REQUEST), Fault(Act.HOLD)], PASSED, share=0.6)
    replies = [run_session(provider, reasoning_ids(80 + at)) for at in range(4)]
    async with serving(provider) as target, GrpcProxy(target, script) as proxy:
        verdicts = await asyncio.gather(
            *(audit(parties, reply.receipt, proxy.target) for reply in replies)
        )
    assert {verdict.outcome for verdict in verdicts} == {PASS}


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_chance_does_to_calls_no_audit_accuses(seed: int) -> None:
    found = await over_calls(by_chance(seed, HARMLESS, PASSED, share=0.6))
    assert found.verdict.outcome in {PASS, INCONCLUSIVE}
    assert found.verdict.fault == NOBODY
    assert found.answered <= 2


# A proxy that speaks gRPC stands inside of TLS: no network can do what follows.


SPOILT = [
    Fault(act, way, place=place)
    for act in (Act.TRUNCATE, Act.CORRUPT)
    for way in Way
    for place in (0.02, 0.5)
]


def at_most_unanswered(verdict: receipt_pb2.Verdict) -> bool:
    """Whether a verdict says no more of the provider than that nothing came, or nothing at all."""
    codes = failed(verdict)
    return codes in ([], ["OPENING_PRESENT"]) or verdict.fault == receipt_pb2.FAULT_UNATTRIBUTED


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "fault", SPOILT, ids=lambda fault: f"{fault.act} {fault.way} {fault.place}"
)
async def test_a_spoilt_message_is_taken_for_no_lie(method: str, fault: Fault) -> None:
    found = await over_calls(scripted({method: [fault]}))
    assert at_most_unanswered(found.verdict)
    # Two at most: what spoilt one call has cost no link.
    assert found.answered <= 2


@pytest.mark.parametrize("act", [Act.TRUNCATE, Act.CORRUPT])
async def test_an_answer_that_was_spoilt_once_is_asked_for_again(act: Act) -> None:
    found = await over_calls(scripted({"AnswerChallenge": [Fault(act, place=0.5)]}))
    assert (found.verdict.outcome, failed(found.verdict)) == (PASS, [])
    assert found.answered == 2


@pytest.mark.parametrize("method", METHODS[:2])
async def test_old_key_sets_and_manifests_are_the_same(method: str) -> None:
    found = await over_calls(scripted({method: [PASSED, *[Fault(Act.REPLAY)] * 3]}))
    assert found.verdict.outcome == PASS


async def test_an_old_opening_is_taken_for_no_lie() -> None:
    script = scripted({"AnswerChallenge": [PASSED, Fault(Act.REPLAY)]})
    found = await over_calls(script, tokens=400, policy=small_policy(strict))
    assert found.answered > 2
    assert not failed(found.verdict)


async def test_a_proxy_that_swallows_one_challenge_alone_is_taken_for_the_provider() -> None:
    # Whoever else asks finds the provider there: that nothing came is the verifier's word.
    found = await over_calls(scripted({"AnswerChallenge": [Fault(Act.LOSE)]}), seconds=0.8)
    assert failed(found.verdict) == ["OPENING_PRESENT"]
    assert found.verdict.fault == receipt_pb2.FAULT_PROVIDER


def test_the_same_seed_does_the_same() -> None:
    one, again, other = (
        [
            by_chance(seed, HARMLESS, PASSED, share=0.5)(method, at)
            for method in METHODS
            for at in range(9)
        ]
        for seed in (1, 1, 2)
    )
    assert one == again != other
    assert PASSED in one
    assert set(one) - {PASSED}


@pytest.mark.parametrize(("share", "found"), [(0.0, {SOUND}), (1.0, set(LINES))])
def test_a_share_of_what_is_counted_meets_something(share: float, found: set[Line]) -> None:
    script = by_chance("seed", LINES, SOUND, share=share)
    assert {script(number) for number in range(200)} == found
