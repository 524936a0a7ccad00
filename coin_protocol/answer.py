"""The exact bytes of a visible answer, as the commitment binds it (protocol, section 5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the answer calls.

    Attributes:
        name: Of the function.
        arguments: As they came: JSON text, not parsed.
    """

    name: str
    arguments: str


def answer_bytes(content: str, tool_calls: Sequence[ToolCall] = ()) -> bytes:
    """Return what `answer_sha256` is the digest of, and what a receipt keeps as its answer.

    Without tool calls it is the content in UTF-8. With them it is one JSON object, keys sorted,
    no spaces, nothing but what JSON demands escaped:
    `{"content":"…","tool_calls":[{"arguments":"…","name":"…"}]}`.

    Args:
        content: The answer's text; empty where there is none.
        tool_calls: In the order of the reply.
    """
    if not tool_calls:
        return content.encode("utf-8", "surrogatepass")
    calls = [{"arguments": call.arguments, "name": call.name} for call in tool_calls]
    document = {"content": content, "tool_calls": calls}
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")
