"""What the client saw of a reply, as text that a judge can compare reasoning with."""

from __future__ import annotations

import json
from collections.abc import Iterator

from coin_protocol.embedding import TextEmbedder
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import profile_pb2, receipt_pb2
from verifier_sdk.semantic.judge import Visible, VisibleText

_DEPTH = 8


def visible_of(
    receipt: receipt_pb2.Receipt,
    spec: profile_pb2.EmbeddingSpec,
    tokenizer: Tokenizer,
    embedder: TextEmbedder,
) -> Visible:
    """Embed the prompt, the answer and, where there is one, the summary of a receipt."""

    def embedded(text: str) -> VisibleText | None:
        return VisibleText.of(text, spec, tokenizer, embedder)

    return Visible(
        prompt=embedded(prompt_text(receipt.request)),
        answer=embedded(receipt.answer.decode(errors="replace")),
        summary=embedded(receipt.summary.decode(errors="replace")),
    )


def prompt_text(request: bytes) -> str:
    """Return the words of a request.

    Of an OpenAI-compatible JSON body these are the contents of its `messages`, its `input`,
    `instructions` or its `prompt`; anything else is read as the prompt itself.
    """
    text = request.decode(errors="replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(document, dict):
        return text
    parts = [
        part
        for name in ("instructions", "messages", "input", "prompt")
        for part in _texts(document.get(name), _DEPTH)
    ]
    # JSON can spell half of a surrogate pair, which no tokenizer takes.
    return "\n\n".join(parts).encode(errors="replace").decode() or text


def _texts(value: object, depth: int) -> Iterator[str]:
    """Yield the texts of a string, a list of parts, or a message with content."""
    if depth == 0:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry, depth - 1)
    elif isinstance(value, dict):
        for name in ("content", "text"):
            yield from _texts(value.get(name), depth - 1)
