"""OpenAI's own client, given our HTTP client, leaves receipts of a real gateway's replies."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from typer.testing import CliRunner

from coin_protocol.cli.main import build
from coin_protocol.collection import collected
from coin_protocol.offline import CheckedReceipt, verify_receipt
from coin_protocol.signer import public_pem
from coin_protocol.v1 import receipt_pb2, statements_pb2
from tests.integration.gateway.standing import KEY, QUESTION, Standing, standing, until
from tests.support.parties import MODEL, WAIT_SECONDS, Parties
from tests.support.servers import serving
from tests.support.upstreams import Call, Script, Style
from verifier_sdk.client import ProviderClient
from verifier_sdk.collecting import Collector, Problem, collecting, collecting_async

# As a model decodes: tokens come no faster than is plausible.
PACED: dict[str, Any] = {"chunk": 4, "pause": 0.004}
ASK: dict[str, Any] = {"model": MODEL, "messages": QUESTION}
TOLD: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
LENGTH = len(Script().reasoning_ids)


@dataclass
class Collected:
    """A gateway, and what a collector keeps of its replies."""

    stands: Standing
    collector: Collector
    to: Path
    problems: list[Problem]

    def client(self) -> openai.AsyncOpenAI:
        return self.stands.client(http_client=self.collector.async_client())

    def sync_client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.stands.url}/v1",
            api_key=KEY,
            max_retries=0,
            http_client=self.collector.client(),
        )

    async def receipts(self) -> list[receipt_pb2.Receipt]:
        assert await asyncio.to_thread(self.collector.flush, WAIT_SECONDS)
        return [found.receipt for found in collected([self.to]) if found.receipt is not None]

    async def checked(self) -> list[CheckedReceipt]:
        parties = self.stands.parties
        return [
            verify_receipt(
                receipt, trust=parties.trust, profile=parties.profile, policy=parties.policy
            )
            for receipt in await self.receipts()
        ]


@asynccontextmanager
async def collecting_from(
    parties: Parties, to: Path, *, style: Style | None = None, **more: Any
) -> AsyncIterator[Collected]:
    problems: list[Problem] = []
    async with standing(parties, style=style or Style(**PACED), **more) as stands:
        yield Collected(stands, Collector(to, on_problem=problems.append), to, problems)


def failed(checked: CheckedReceipt) -> str:
    return "" if checked.report.failed is None else checked.report.detail


def holds(checked: CheckedReceipt) -> dict[str, bool | None]:
    return {each.name: each.holds for each in checked.findings}


async def test_a_streamed_chat_leaves_a_receipt_that_could_earn_its_times(
    parties: Parties, tmp_path: Path
) -> None:
    async with collecting_from(parties, tmp_path / "receipts") as house:
        chunks = [c async for c in await house.client().chat.completions.create(**ASK, **TOLD)]
        (receipt,) = await house.receipts()
        (checked,) = await house.checked()
    assert failed(checked) == ""
    assert set(holds(checked).values()) == {True}
    assert checked.commitment is not None
    assert checked.commitment.reasoning_tokens == LENGTH
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert receipt.answer.decode() == text
    assert len(receipt.checkpoints) == LENGTH // parties.profile.block_size
    told = chunks[-1].usage
    assert told is not None
    assert receipt.billed.completion_tokens == told.completion_tokens
    assert receipt.billed.prompt_tokens == told.prompt_tokens
    assert house.problems == []


@pytest.mark.parametrize("rewrite", [True, False])
async def test_a_bill_is_kept_as_it_was_told(
    parties: Parties, tmp_path: Path, *, rewrite: bool
) -> None:
    def report(usage: dict[str, Any]) -> None:
        usage["completion_tokens"] += 7
        usage["total_tokens"] += 7
        usage["completion_tokens_details"] = {"reasoning_tokens": LENGTH + 7}

    style = Style(**PACED, reports=report)
    async with collecting_from(parties, tmp_path, style=style, rewrite_usage=rewrite) as house:
        reply = await house.client().chat.completions.create(**ASK)
        (receipt,) = await house.receipts()
        (checked,) = await house.checked()
    assert reply.usage is not None
    details = reply.usage.completion_tokens_details
    assert details is not None
    assert receipt.billed.reasoning_tokens == details.reasoning_tokens
    # What the client was told and what was signed are two things, and the receipt holds both.
    assert holds(checked)["bill"] is rewrite
    assert rewrite or f"was told {LENGTH + 7} reasoning" in failed(checked)
    assert rewrite or checked.report.fault == receipt_pb2.FAULT_UNATTRIBUTED


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("reasoning", [0, None, LENGTH + 7])
async def test_an_honest_gateway_is_not_accused_whatever_its_upstream_counts(
    parties: Parties, tmp_path: Path, reasoning: int | None, *, ids: bool
) -> None:
    """By default, with an upstream that counts marks, or reasoning, in its own way."""

    def report(usage: dict[str, Any]) -> None:
        usage["completion_tokens"] += 9
        usage["total_tokens"] += 9
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}

    style = Style(**PACED, reports=report, ids=ids)
    async with collecting_from(parties, tmp_path, style=style) as house:
        await house.client().chat.completions.create(**ASK)
        async for _ in await house.client().chat.completions.create(**ASK, **TOLD):
            pass
        receipts, found = await house.receipts(), await house.checked()
    assert [failed(checked) for checked in found] == ["", ""]
    assert all(receipt.HasField("billed") for receipt in receipts)


async def test_another_split_of_the_same_sum_is_no_failure(
    parties: Parties, tmp_path: Path
) -> None:
    def report(usage: dict[str, Any]) -> None:
        usage["completion_tokens_details"] = {"reasoning_tokens": 0}

    style = Style(**PACED, reports=report)
    async with collecting_from(parties, tmp_path, style=style, rewrite_usage=False) as house:
        await house.client().chat.completions.create(**ASK)
        (checked,) = await house.checked()
    assert holds(checked)["bill"] is True


async def _ask_in_every_way(client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(**ASK)
    async for _ in await client.chat.completions.create(**ASK, **TOLD, n=2):
        pass
    await client.completions.create(model=MODEL, prompt=["why?", "how?"])
    async for _ in await client.completions.create(model=MODEL, prompt="why?", stream=True):
        pass
    await client.responses.create(model=MODEL, input="why?")
    async for _ in await client.responses.create(model=MODEL, input="why?", stream=True):
        pass


def _ask_in_every_way_in_sync(client: openai.OpenAI) -> None:
    client.chat.completions.create(**ASK)
    for _ in client.chat.completions.create(**ASK, **TOLD, n=2):
        pass
    client.completions.create(model=MODEL, prompt=["why?", "how?"])
    for _ in client.completions.create(model=MODEL, prompt="why?", stream=True):
        pass
    client.responses.create(model=MODEL, input="why?")
    for _ in client.responses.create(model=MODEL, input="why?", stream=True):
        pass


@pytest.mark.parametrize(
    ("parser", "to"), [("", "receipts"), ("reasoning_content", "receipts.jsonl")]
)
async def test_every_endpoint_leaves_a_receipt_for_each_choice(
    parties: Parties, tmp_path: Path, to: str, parser: str
) -> None:
    style = Style(**PACED, parser=parser)
    async with collecting_from(parties, tmp_path / to, style=style) as house:
        await _ask_in_every_way(house.client())
        await asyncio.to_thread(_sync, house)
        found = await house.checked()
    assert [failed(checked) for checked in found] == [""] * 16
    assert {holds(checked)["answer"] for checked in found} == {True}
    assert house.problems == []


def _sync(house: Collected) -> None:
    with house.sync_client() as client:
        _ask_in_every_way_in_sync(client)


async def test_calls_of_tools_are_bound(parties: Parties, tmp_path: Path) -> None:
    script = Script(answer="", calls=[Call("weather", '{"city": "Paris"}'), Call("time", "{}")])
    style = Style(parser="reasoning", **PACED)
    async with collecting_from(parties, tmp_path, style=style, scripts=[script]) as house:
        await house.client().chat.completions.create(**ASK)
        async for _ in await house.client().chat.completions.create(**ASK, stream=True):
            pass
        receipts, found = await house.receipts(), await house.checked()
    assert [failed(checked) for checked in found] == ["", ""]
    calls = [json.loads(receipt.answer)["tool_calls"] for receipt in receipts]
    assert [[call["name"] for call in each] for each in calls] == [["weather", "time"]] * 2


@pytest.mark.parametrize("sync", [True, False])
async def test_who_leaves_a_stream_keeps_a_receipt_of_the_part(
    parties: Parties, tmp_path: Path, *, sync: bool
) -> None:
    async with collecting_from(parties, tmp_path, style=Style(chunk=4, pause=0.01)) as house:
        if sync:
            await asyncio.to_thread(_leave, house)
        else:
            client = house.client()
            await client.chat.completions.create(**ASK)
            async with await client.chat.completions.create(**ASK, stream=True) as stream:
                async for _ in stream:
                    await until(lambda: house.stands.upstream.sent > 6)
                    break
        _, checked = await house.checked()
    assert failed(checked) == ""
    assert checked.commitment is not None
    reason = statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED
    assert checked.commitment.abort_reason == reason
    assert 0 < checked.commitment.reasoning_tokens < LENGTH
    assert holds(checked)["answer"] is None


def _leave(house: Collected) -> None:
    client = house.sync_client()
    # It is asked again for a receipt, for it has spoken of one before.
    client.chat.completions.create(**ASK)
    with client.chat.completions.create(**ASK, stream=True) as stream:
        for _ in stream:
            while house.stands.upstream.sent <= 6:
                time.sleep(0.001)
            break
    assert house.collector.flush(WAIT_SECONDS)
    client.close()


async def test_a_stream_that_breaks_off_keeps_a_receipt_of_the_part(
    parties: Parties, tmp_path: Path
) -> None:
    style = Style(chunk=4, pause=0.004, breaks_after=12)
    async with collecting_from(parties, tmp_path, style=style) as house:
        stream = await house.client().chat.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIConnectionError):
            async for _ in stream:
                pass
        (checked,) = await house.checked()
    assert failed(checked) == ""
    assert checked.commitment is not None
    assert checked.commitment.abort_reason == statements_pb2.ABORT_REASON_UPSTREAM_ERROR


async def test_what_was_collected_passes_an_audit(parties: Parties, tmp_path: Path) -> None:
    async with collecting_from(parties, tmp_path) as house:
        async for _ in await house.client().chat.completions.create(**ASK, **TOLD):
            pass
        (receipt,) = await house.receipts()
        async with (
            serving(house.stands.provider) as target,
            ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client,
        ):
            bundle = await parties.auditor().audit(receipt, client)
    verdict = receipt_pb2.Verdict.FromString(bundle.verdict.payload)
    assert verdict.outcome == receipt_pb2.OUTCOME_PASS
    assert receipt_pb2.TIER_TIMED in verdict.tiers


async def test_the_command_line_verifies_what_three_lines_collected(
    parties: Parties, tmp_path: Path
) -> None:
    files = {"root": public_pem(parties.root.public)}
    files |= {"profile": parties.profile.raw, "policy": parties.policy.raw}
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    to = tmp_path / "receipts.jsonl"
    async with standing(parties, style=Style(**PACED)) as stands:
        client = stands.client(http_client=collecting_async(to))
        await client.chat.completions.create(**ASK)

        def ask() -> None:
            url = f"{stands.url}/v1"
            with openai.OpenAI(base_url=url, api_key=KEY, http_client=collecting(to)) as client:
                client.chat.completions.create(**ASK)

        await asyncio.to_thread(ask)
        assert await asyncio.to_thread(Collector(to).flush, WAIT_SECONDS)
    options = [word for name in files for word in (f"--{name}", str(tmp_path / name))]
    done = await asyncio.to_thread(
        CliRunner().invoke, build(), ["receipt", "verify", str(to), *options, "--json"]
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert document["summary"]["sound"] == 2
    assert document["summary"]["sound_reasoning_tokens"] == 2 * LENGTH


async def test_a_client_of_httpx_itself_is_listened_to(parties: Parties, tmp_path: Path) -> None:
    async with collecting_from(parties, tmp_path) as house:
        async with house.collector.attach(httpx.AsyncClient(timeout=WAIT_SECONDS)) as client:
            url = f"{house.stands.url}/v1/chat/completions"
            headers = {"coin-delivery": "chunk", "authorization": f"Bearer {KEY}"}
            reply = await client.post(url, json={**ASK, "stream": True}, headers=headers)
        (checked,) = await house.checked()
    assert failed(checked) == ""
    assert ": coin" not in reply.text, "the delivery came in chunks"
    assert holds(checked)["checkpoints"] is True


def test_importing_loads_nothing_of_a_server_or_a_model() -> None:
    import subprocess

    code = "import verifier_sdk.collecting, sys; print(*sys.modules)"
    run = [sys.executable, "-c", code]
    loaded = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "openai", "httpx", "httpx2", "sqlalchemy"} & set(loaded)
