"""A small tokenizer that has special tokens, and replies as serving stacks cut them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
from hypothesis import strategies as st

from coin_protocol.testing.small import VOCABULARY, SmallTokenizer
from provider_sdk.gateway.dialects import (
    Endpoint,
    Prepared,
    Reader,
    Rules,
    Step,
    prepare,
    reader,
)
from provider_sdk.gateway.markers import MarkerIds, markers_from

SPECIAL = (
    "<think>",
    "</think>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|start|>",
    "<|return|>",
    "<|call|>",
    "[THINK]",
    "[/THINK]",
    "<|im_end|>",
)


class MarkedTokenizer(SmallTokenizer):
    """The small tokenizer, with the special tokens of several models after its own ids."""

    @property
    def vocabulary_size(self) -> int:
        return VOCABULARY + len(SPECIAL)

    def token_bytes(self, token_id: int) -> bytes:
        if VOCABULARY <= token_id < self.vocabulary_size:
            return SPECIAL[token_id - VOCABULARY].encode()
        return super().token_bytes(token_id)


TOKENIZER = MarkedTokenizer()
PLAIN = SmallTokenizer()


def mark(name: str) -> int:
    """The id of a special token."""
    return VOCABULARY + SPECIAL.index(name)


def ids(*parts: str) -> list[int]:
    """The ids of texts, where a text that is a special token's name is that token."""
    found: list[int] = []
    for part in parts:
        found += [mark(part)] if part in SPECIAL else TOKENIZER.encode(part)
    return found


@cache
def rules(name: str = "think", *, hide: bool = True, special: bool = True) -> Rules:
    tokenizer = TOKENIZER if special else PLAIN
    marks = MarkerIds.resolve(markers_from(name), tokenizer)
    return Rules(tokenizer=tokenizer, markers=marks, hide_reasoning=hide)


def prepared(endpoint: Endpoint = Endpoint.CHAT, *, stream: bool = True, **body: Any) -> Prepared:
    return prepare(endpoint, orjson.dumps({"model": "m", "stream": stream, **body}))


def a_reader(model: Rules, endpoint: Endpoint = Endpoint.CHAT, **body: Any) -> Reader:
    return reader(prepared(endpoint, **body), model)


def chunk(
    delta: dict[str, Any] | str | None,
    token_ids: Sequence[int] | None = None,
    *,
    finish: str | None = None,
    index: int = 0,
    **more: Any,
) -> bytes:
    """One chunk of a chat, or of a completion where `delta` is a string."""
    choice: dict[str, Any] = {"index": index, "finish_reason": finish}
    if isinstance(delta, str):
        choice["text"] = delta
    else:
        choice["delta"] = delta or {}
    if token_ids is not None:
        choice["token_ids"] = list(token_ids)
    top = {name: more.pop(name) for name in ("prompt_token_ids", "usage") if name in more}
    return orjson.dumps({"id": "r-1", "model": "m", "choices": [{**choice, **more}], **top})


def seen(step: Step) -> Any:
    """What the client parses of a step; None where nothing is sent."""
    return None if step.data is None else orjson.loads(step.data)


def committed(steps: Sequence[Step], reply: Reader, index: int = 0) -> list[int]:
    """All ids of reasoning that a reader gave out for a choice; ends the reply."""
    pieces = [piece for step in steps for piece in step.pieces] + reply.finish()
    return [each for piece in pieces if piece.choice == index for each in piece.reasoning_ids]


@st.composite
def cuttings(draw: st.DrawFn, length: int) -> list[int]:
    """Ends of the chunks that something of this length is cut into."""
    inner = draw(st.lists(st.integers(0, length), max_size=12)) if length else []
    return [*sorted(inner), length]


def cut(whole: Any, ends: Sequence[int]) -> list[Any]:
    """The slices of `whole` between `ends`."""
    starts = [0, *ends[:-1]]
    return [whole[start:end] for start, end in zip(starts, ends, strict=True)]


def content_of(steps: list[Step]) -> str:
    """What a client joins together, of a chat or of a completion."""
    text = ""
    for document in filter(None, map(seen, steps)):
        for choice in document["choices"]:
            text += choice.get("text") or choice.get("delta", {}).get("content") or ""
    return text


def run(reply: Reader, chunks: list[bytes]) -> list[Step]:
    return [reply.event(each) for each in chunks]


def usage_chunk() -> bytes:
    return orjson.dumps({"id": "r-1", "choices": [], "usage": {"completion_tokens": 2}})
