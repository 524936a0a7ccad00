"""What a stream carries besides its tokens: checkpoints, the receipt, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Literal

import pytest

from coin_protocol.statements import read_checkpoint
from coin_protocol.v1 import statements_pb2
from tests.integration.gateway.standing import asked, commitment, parsed, standing
from tests.support.parties import Parties
from tests.support.upstreams import Script, Style

LONG = Script(reasoning="the waves of the air are long and the light of the sun is short " * 3)


async def test_checkpoints_come_while_the_model_reasons_and_the_receipt_before_done(
    parties: Parties,
) -> None:
    async with standing(parties, scripts=[LONG], style=Style(pause=0.001)) as stands:
        seen = await asked(stands)
    lines = [line for line in seen.raw.splitlines() if line]
    kinds = [line.split(b" ")[1] if line.startswith(b":") else b"data" for line in lines]
    assert lines[-1] == b"data: [DONE]"
    assert kinds[-2] == b"coin.receipt"
    first_text = next(i for i, line in enumerate(lines) if b'"the' in line or b'"t"' in line)
    assert b"coin.checkpoint" in kinds[:first_text], "some come before the answer begins"
    blocks = len(LONG.reasoning_ids) // parties.profile.block_size
    assert [read_checkpoint(each.checkpoint.payload).block_count for each in seen.checkpoints] == [
        *range(1, blocks + 1)
    ]
    assert seen.text == LONG.answer
    found = commitment(seen.delivery)
    assert found.reasoning_tokens == len(LONG.reasoning_ids)
    assert found.id_source == statements_pb2.ID_SOURCE_SAMPLED
    assert not found.abort_reason


async def test_a_stream_says_nothing_of_ids_or_reasoning(parties: Parties) -> None:
    async with standing(parties, style=Style(parser="reasoning")) as stands:
        seen = await asked(stands)
    assert b"token_ids" not in seen.raw
    assert b'"reasoning"' not in seen.raw
    assert b"waves" not in seen.raw
    assert stands.upstream.requests[-1]["return_token_ids"] is True


async def test_the_clients_nonce_is_in_checkpoint_and_commitment(parties: Parties) -> None:
    nonce = secrets.token_bytes(24)
    async with standing(parties) as stands:
        own = await asked(stands, headers={"coin-nonce": nonce.hex()})
        drawn = await asked(stands)
    assert own.delivery.client_nonce == commitment(own.delivery).client_nonce == nonce
    assert {read_checkpoint(c.checkpoint.payload).client_nonce for c in own.checkpoints} == {nonce}
    assert own.delivery.nonce_from_client
    assert not drawn.delivery.nonce_from_client
    assert len(drawn.delivery.client_nonce) == 32


async def test_chunk_delivery_rides_on_the_chunk_with_usage(parties: Parties) -> None:
    async with standing(parties, style=Style(parser="reasoning")) as stands:
        seen = await asked(stands, headers={"coin-delivery": "chunk"})
    carrying = [event for event in seen.events if event != "[DONE]" and "coin" in event]
    *checkpoints, last = carrying
    assert b": coin." not in seen.raw
    assert last["usage"]["prompt_tokens"] == 3
    assert commitment(parsed(last["coin"])).reasoning_tokens == len(Script().reasoning_ids)
    assert seen.events[-1] == "[DONE]"
    assert all(event["choices"] == [] for event in carrying)
    assert checkpoints
    assert all("checkpoint" in event["coin"] for event in checkpoints)


async def test_chunk_delivery_has_a_chunk_of_its_own_where_usage_never_comes(
    parties: Parties,
) -> None:
    usages: list[Literal["never", "early"]] = ["never", "early"]
    for usage in usages:
        style = Style(usage=usage)
        async with standing(parties, style=style) as stands:
            seen = await asked(stands, headers={"coin-delivery": "chunk"})
        assert seen.events[-1] == "[DONE]"
        last = seen.events[-2]
        assert last["object"] == "chat.completion.chunk"
        assert last["choices"] == []
        assert commitment(parsed(last["coin"])).reasoning_tokens == len(Script().reasoning_ids)


async def test_usage_may_come_early_or_never(parties: Parties) -> None:
    usages: dict[Literal["end", "early", "never"], int] = {"end": 3, "early": 3, "never": 0}
    for usage, prompt in usages.items():
        style = Style(usage=usage)
        async with standing(parties, style=style) as stands:
            seen = await asked(stands)
        found = commitment(seen.delivery)
        assert found.usage.prompt_tokens == prompt
        assert found.usage.completion_tokens == len(Script().ids)
        assert seen.delivery.HasField("reported") == (usage != "never")


async def test_responses_carry_their_receipt_before_they_complete(parties: Parties) -> None:
    async with standing(parties) as stands:
        seen = await asked(stands, "/v1/responses", input="why?", messages=None)
    lines = [line for line in seen.raw.splitlines() if line]
    receipt = next(i for i, line in enumerate(lines) if line.startswith(b": coin.receipt "))
    completed = lines.index(b"event: response.completed")
    assert receipt < completed
    assert commitment(seen.delivery).id_source == statements_pb2.ID_SOURCE_RETOKENIZED


async def test_parallel_streams_are_committed_to_apart(parties: Parties) -> None:
    number = 24

    async def one(index: int) -> None:
        script = Script(reasoning=f"thought number {index} " * (index + 1), answer=f"it is {index}")
        nonce = index.to_bytes(16)
        async with asyncio.timeout(20):
            seen = await asked(stands, headers={"coin-nonce": nonce.hex()}, user=str(index))
        found = commitment(seen.delivery)
        assert seen.text == script.answer
        assert found.client_nonce == nonce
        assert found.reasoning_tokens == len(script.reasoning_ids)

    def scripts(request: dict[str, object]) -> list[Script]:
        index = int(str(request["user"]))
        return [Script(reasoning=f"thought number {index} " * (index + 1), answer=f"it is {index}")]

    from tests.support.upstreams import Upstream

    async with standing(parties, Upstream(scripts, Style(pause=0.0005))) as stands:
        await asyncio.gather(*(one(index) for index in range(number)))


async def test_what_the_upstream_reports_is_kept_beside_what_is_billed(parties: Parties) -> None:
    def wrong(usage: dict[str, object]) -> None:
        usage |= {"completion_tokens": 500, "total_tokens": 503}
        usage["completion_tokens_details"] = {"reasoning_tokens": 450}

    async with standing(parties, style=Style(reports=wrong), rewrite_usage=False) as stands:
        seen = await asked(stands, stream_options={"include_usage": True})
        wrongs = stands.count(
            "coin_usage_differences_total", vendor="openai-compatible", code="REASONING_MORE"
        )
    script, found = Script(), commitment(seen.delivery)
    (usage,) = (event["usage"] for event in seen.events if event != "[DONE]" and event.get("usage"))
    assert usage["completion_tokens"] == 500, "the upstream's own block is passed on as it is"
    assert seen.delivery.reported.reasoning_tokens == 450
    assert found.usage.reasoning_tokens == len(script.reasoning_ids)
    assert any("REASONING_MORE" in note for note in seen.delivery.choices[0].notes)
    assert wrongs == 1


async def test_a_client_is_told_what_is_committed_to(parties: Parties) -> None:
    def wrong(usage: dict[str, object]) -> None:
        usage |= {"completion_tokens": 500, "total_tokens": 503}

    script = Script()
    for stream in (True, False):
        async with standing(parties, style=Style(reports=wrong)) as stands:
            options = {"include_usage": True} if stream else None
            seen = await asked(stands, stream=stream, stream_options=options)
        usages = (
            [event["usage"] for event in seen.events if event != "[DONE]" and event.get("usage")]
            if stream
            else [json.loads(seen.raw)["usage"]]
        )
        assert usages == [
            {
                "prompt_tokens": 3,
                "completion_tokens": len(script.ids),
                "total_tokens": 3 + len(script.ids),
                "completion_tokens_details": {"reasoning_tokens": len(script.reasoning_ids)},
            }
        ]


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_not_committed_to_is_written_over_nothing(
    parties: Parties, *, stream: bool
) -> None:
    """A block that nobody can read bills the prompt as 0: it stays what the upstream said."""

    def wrong(usage: dict[str, object]) -> None:
        usage["total_tokens"] = 999

    async with standing(parties, style=Style(reports=wrong)) as stands:
        options = {"include_usage": True} if stream else None
        seen = await asked(stands, stream=stream, stream_options=options)
    assert b'"commitment"' in seen.raw
    assert b'"reported"' not in seen.raw
    assert b'"total_tokens":999' in seen.raw.replace(b" ", b"")


async def test_text_alone_is_tokenized_again_and_says_so(parties: Parties) -> None:
    for style in (Style(ids=False), Style(ids=False, parser="reasoning_content")):
        async with standing(parties, style=style) as stands:
            seen = await asked(stands)
        found = commitment(seen.delivery)
        assert found.id_source == statements_pb2.ID_SOURCE_RETOKENIZED
        assert found.reasoning_tokens == len(Script().reasoning_ids)
        assert seen.text == Script().answer


@pytest.mark.parametrize("refusal", [400, 422])
async def test_an_upstream_that_refuses_ids_is_asked_again_without(
    parties: Parties, refusal: int
) -> None:
    style = Style(refuses_ids=True, refusal=refusal)
    async with standing(parties, style=style) as stands:
        first = await asked(stands)
        asked_before = len(stands.upstream.requests)
        second = await asked(stands)
    for seen in (first, second):
        assert commitment(seen.delivery).id_source == statements_pb2.ID_SOURCE_RETOKENIZED
    assert asked_before == 2
    assert len(stands.upstream.requests) == 3, "it is remembered"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_reply_under_a_wrong_content_type_is_read_all_the_same(
    parties: Parties, *, stream: bool
) -> None:
    async with standing(parties, style=Style(kind="text/plain")) as stands:
        seen = await asked(stands, stream=stream)
    delivery = seen.delivery if stream else parsed(json.loads(seen.raw)["coin"])
    assert commitment(delivery).reasoning_tokens == len(Script().reasoning_ids)
    assert seen.headers["content-type"].startswith("text/plain")
    assert b"waves" not in seen.raw


async def test_responses_without_usage_carry_their_receipt_before_they_complete(
    parties: Parties,
) -> None:
    style = Style(garbles=lambda _, raw: raw.replace(b'"usage": {', b'"usage": null, "was": {'))
    async with standing(parties, style=style) as stands:
        seen = await asked(stands, "/v1/responses", input="why?")
    before, _, after = seen.raw.partition(b"event: response.completed")
    assert b'"usage":null' in after.replace(b" ", b""), "there is none"
    assert b": coin.receipt " in before
    assert commitment(seen.delivery).reasoning_tokens == len(Script().reasoning_ids)


async def test_nothing_is_touched_where_nothing_is_signed(parties: Parties) -> None:
    async with standing(parties, sign=False) as stands:
        seen = await asked(stands)
    assert b"coin" not in seen.raw
    assert "return_token_ids" not in stands.upstream.requests[0]
    assert Script().raw == seen.text
