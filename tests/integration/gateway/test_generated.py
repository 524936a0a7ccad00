"""End to end: a transformers model samples the tokens, and what comes out verifies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from coin_protocol.checks import Case, run_checks
from coin_protocol.encoding import digest
from coin_protocol.testing.small import VOCABULARY, SmallTokenizer
from coin_protocol.v1 import delivery_pb2, receipt_pb2, statements_pb2
from tests.integration.gateway.standing import QUESTION, commitment, parsed, standing
from tests.support.parties import MODEL, WAIT_SECONDS, Parties
from tests.support.upstreams import CLOSE, EOS, OPEN, Script, Style, Upstream
from verifier_sdk.recorder import Recorder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

_TOKENIZER = SmallTokenizer()
_LETTERS = [ord(char) for char in "abcdefghijklmnopqrstuvwxyz  .,"]


class Generated(Upstream):
    """A serving stack whose tokens a small randomly initialised model samples.

    The model's weights are random, so what it samples is steered to letters, and the marks of
    its reasoning are put where a trained model would have learned to put them.
    """

    def __init__(self, style: Style, *, reasoning: int, answer: int) -> None:
        super().__init__(style=style)
        torch.manual_seed(4)
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=512,
            n_embd=32,
            n_layer=2,
            n_head=2,
            bos_token_id=EOS,
            eos_token_id=EOS,
        )
        self._model = transformers.GPT2LMHeadModel(config).eval()
        self._counts = reasoning, answer
        self.sampled: list[list[int]] = []

    def scripts(self, request: dict[str, Any]) -> Sequence[Script]:
        """Return what the model samples, as text that spells its ids."""
        return [self._sample(request) for _ in range(request.get("n") or 1)]

    def _sample(self, request: dict[str, Any]) -> Script:
        prompt = _TOKENIZER.encode(json.dumps(request["messages"]))
        reasoning, answer = self._counts
        ids = prompt + _TOKENIZER.encode(OPEN)
        first = self._more(ids, reasoning)
        second = self._more([*ids, *first, *_TOKENIZER.encode(CLOSE)], answer)
        whole = [*_TOKENIZER.encode(OPEN), *first, *_TOKENIZER.encode(CLOSE), *second, EOS]
        self.sampled.append(first)
        return Sampled(_text(first), _text(second), own=whole, thought=first)

    def _more(self, ids: list[int], count: int) -> list[int]:
        with torch.no_grad():
            found = self._model.generate(
                torch.tensor([ids[-256:]]),
                attention_mask=torch.ones((1, len(ids[-256:])), dtype=torch.long),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=True,
                pad_token_id=EOS,
                suppress_tokens=[i for i in range(VOCABULARY) if i not in _LETTERS],
            )
        sampled: list[int] = found[0, -count:].tolist()
        return sampled


class Sampled(Script):
    """A script whose ids are those that were sampled, not those of its text's encoding."""

    def __init__(self, reasoning: str, answer: str, *, own: list[int], thought: list[int]) -> None:
        super().__init__(reasoning, answer)
        object.__setattr__(self, "_own", own)
        object.__setattr__(self, "_thought", thought)

    @property
    def ids(self) -> list[int]:
        own: list[int] = self.__dict__["_own"]
        return own

    @property
    def reasoning_ids(self) -> list[int]:
        thought: list[int] = self.__dict__["_thought"]
        return thought


def _text(ids: list[int]) -> str:
    return b"".join(map(_TOKENIZER.token_bytes, ids)).decode()


@pytest.mark.parametrize("parser", ["", "reasoning"])
async def test_sampled_ids_flow_through_and_their_receipt_verifies(
    parties: Parties, parser: str
) -> None:
    upstream = Generated(Style(parser=parser, pause=0.001), reasoning=100, answer=20)
    async with standing(parties, upstream) as stands:
        request: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "stream": True}
        raw = json.dumps(request).encode()
        recorder = Recorder(request=raw)
        delivery = await _record(stands.url, raw, recorder)
        found = commitment(delivery)
        assert found.reasoning_tokens == 100
        assert found.answer_tokens == len(_TOKENIZER.encode(OPEN + CLOSE)) + 20 + 1
        assert found.id_source == statements_pb2.ID_SOURCE_SAMPLED
        receipt = recorder.finish(
            commitment=delivery.choices[0].commitment,
            key_set=delivery.key_set,
            billed=found.usage,
        )
        kept = stands.provider.store.get(digest(receipt.commitment.payload))
        # Not those of the text's encoding: what the model drew, id for id.
        assert kept.token_ids.slice(0, 101).tolist() == upstream.sampled[0]
        assert upstream.sampled[0] != _TOKENIZER.encode(_text(upstream.sampled[0]))
        case = await asyncio.to_thread(_case, parties, stands.provider, receipt)
    report = run_checks(case)
    assert report.failed is None, report.detail
    for code in (
        "SIGNATURE",
        "CLIENT_NONCE",
        "REQUEST_DIGEST",
        "ANSWER_DIGEST",
        "BILL",
        "MANIFEST_ROOT",
        "CHECKPOINT_PREFIX",
        "FINGERPRINTS",
        "ARRIVAL_TIME",
    ):
        assert report.passed(code), code
    assert len(receipt.checkpoints) == 100 // parties.profile.block_size


async def _record(url: str, raw: bytes, recorder: Recorder) -> delivery_pb2.Delivery:
    """Ask as a client of the protocol does, noting what comes and when."""
    import httpx
    from google.protobuf import json_format

    headers = {"coin-nonce": recorder.client_nonce.hex(), "content-type": "application/json"}
    delivery = delivery_pb2.Delivery()
    async with (
        httpx.AsyncClient(timeout=WAIT_SECONDS) as client,
        client.stream("POST", f"{url}/v1/chat/completions", content=raw, headers=headers) as reply,
    ):
        async for line in reply.aiter_lines():
            if line.startswith(": coin.checkpoint "):
                document = json.loads(line.removeprefix(": coin.checkpoint "))
                seen = json_format.ParseDict(document, delivery_pb2.DeliveredCheckpoint())
                recorder.checkpoint(seen.checkpoint)
            elif line.startswith(": coin.receipt "):
                delivery = parsed(json.loads(line.removeprefix(": coin.receipt ")))
            elif line.startswith("data: {"):
                for choice in json.loads(line.removeprefix("data: "))["choices"]:
                    recorder.answer_delta(choice["delta"].get("content") or "")
    return delivery


def _case(parties: Parties, provider: Any, receipt: receipt_pb2.Receipt) -> Case:
    commitment_sha256 = digest(receipt.commitment.payload)
    provider.wait_ready(commitment_sha256, WAIT_SECONDS)
    manifest, fingerprints = provider.manifest(commitment_sha256)
    receipt.fingerprints.CopyFrom(fingerprints)
    models = parties.models
    return Case(
        receipt=receipt,
        trust=parties.trust,
        profile=parties.profile,
        policy=parties.policy,
        manifest=manifest,
        installed=(models.tokenizer, models.embedder),
    )
