"""Fields that carry reasoning or ids, and how they are taken out of what is passed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from provider_sdk.gateway.dialects.request import Json
from provider_sdk.gateway.markers import SPECIAL
from provider_sdk.gateway.splitter import Run, Side

REASONING_FIELDS: Final = (
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "thinking",
    "thinking_blocks",
)
"""Of a message or delta: vLLM and OpenRouter, DeepSeek and SGLang, OpenRouter, Ollama, LiteLLM."""

_BESIDE: Final = frozenset((*REASONING_FIELDS, "provider_specific_fields"))
_THINKING: Final = ("thinking", "redacted_thinking", "reasoning", "reasoning_text")
"""Types of parts of content: Mistral's, and those of other APIs that bridges let through."""

_REPLACED: Final = "\ufffd".encode()
_BEYOND_ASCII: Final = bytes(range(0x80, 0x100))
_PARALLEL: Final = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def carries_reasoning(entry: Json) -> bool:
    """Whether the two below can find anything: a look that costs less than either."""
    return not _BESIDE.isdisjoint(entry)


def pop_reasoning(message: Json) -> bool:
    """Take reasoning out of a message or delta; say whether there was any. Nulls stay."""
    extra = message.get("provider_specific_fields")
    found = type(extra) is dict and pop_reasoning(extra)
    for name in REASONING_FIELDS:
        if message.get(name) is not None:
            del message[name]
            found = True
    return found


def reasoning_of(message: Json) -> str:
    """Return the reasoning's text of a message or delta; fields that repeat it count once."""
    for name in ("reasoning_content", "reasoning", "thinking"):
        text = message.get(name)
        if type(text) is str and text:
            return text
    details = message.get("reasoning_details")
    if isinstance(details, list):
        # OpenRouter's; what is encrypted has no text, and a summary is none.
        return "".join(
            each["text"]
            for each in details
            if isinstance(each, dict) and isinstance(each.get("text"), str)
        )
    return ""


def parts_of(content: Sequence[object]) -> tuple[list[object], str, str]:
    """Split content that comes in parts, as Mistral's does.

    Returns:
        The parts that are no thinking, their text, and the text of the thinking.
    """
    kept: list[object] = []
    text = thinking = ""
    for part in content:
        if isinstance(part, dict) and part.get("type") in _THINKING:
            inner = part.get("thinking") or part.get("text")
            if isinstance(inner, str):
                thinking += inner
            elif isinstance(inner, list):
                thinking += "".join(_text(each) for each in inner)
            continue
        kept.append(part)
        text += _text(part)
    return kept, text, thinking


def _text(part: object) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else ""


def without_later(
    content: str,
    reasoning: str,
    runs: Sequence[Run],
    spell: Callable[[list[int]], bytes],
    *,
    over: bool,
    begun: bool,
) -> str:
    """Return content without the later sections of reasoning, which a parser left in it.

    Args:
        content: What the upstream took for answer.
        reasoning: What it set apart.
        runs: The ids of both, split by marks.
        spell: Gives the bytes of ids.
        over: The first section, which such a parser does set apart, was over before.
        begun: It had begun before.
    """
    raw, kept, at = content.encode(), b"", 0
    for run in runs:
        if not over:
            over = begun and run.side is not Side.REASONING
            begun = begun or run.side is Side.REASONING
            continue
        for side, piece in run.text or ((run.side, spell(run.ids)),):
            if side is Side.ANSWER or not piece or piece in reasoning.encode():
                continue
            found = raw.find(piece, at)
            if found >= 0:
                kept, at = kept + raw[at:found], found + len(piece)
            elif run is runs[-1] and side is Side.REASONING and piece.endswith(raw[at:]):
                # Its beginning was held back, as one of a mark, and its text was not.
                at = len(raw)
    return (kept + raw[at:]).decode(errors="ignore")


def visible_logprobs(
    logprobs: object, ids: Sequence[int], runs: Sequence[Run], visible: str
) -> object:
    """Return log probabilities of the answer's tokens alone.

    Args:
        logprobs: A chat's (`content`, one entry a token) or a completion's (parallel lists).
        ids: That came with them; none where the upstream gives none.
        runs: What they are. Where they are other ids than came (some are held back), nothing
            can be told apart and all are taken out.
        visible: The text that is shown. Without ids, all tokens must spell it, or none is shown.
    """
    if not isinstance(logprobs, dict):
        return None
    lists = {name: logprobs[name] for name in ("content", *_PARALLEL) if logprobs.get(name)}
    if not ids:
        tokens = lists.get("content") or lists.get("tokens")
        return logprobs if not lists or spell(tokens, visible) else None
    if [each for run in runs for each in run.ids] != ids:
        return None
    keep = [run.side is Side.ANSWER for run in runs for _ in run.ids]
    shown = dict(logprobs)
    for name, entries in lists.items():
        if not isinstance(entries, list) or len(entries) != len(keep):
            return None
        shown[name] = [entry for entry, kept in zip(entries, keep, strict=True) if kept]
    return shown


def spell(tokens: object, text: str) -> bool:
    """Whether tokens with log probabilities are those of a text, but for special ones.

    Args:
        tokens: Strings, or objects with `token` and perhaps `bytes`.
        text: All of it, and not empty: what says nothing cannot vouch for any token.
    """
    if not isinstance(tokens, list) or not text:
        return False
    found = b""
    for each in tokens:
        token = each.get("token") if isinstance(each, dict) else each
        if not isinstance(token, str):
            return False
        given = each.get("bytes") if isinstance(each, dict) else None
        try:
            raw = bytes(given) if isinstance(given, list) else token.encode()
        except (TypeError, ValueError):
            return False
        # One byte is written like a special token, and has another as its bytes.
        if raw != token.encode() or not SPECIAL.fullmatch(token):
            found += raw
    return _same(found.strip(), text.encode().strip())


def _same(tokens: bytes, text: bytes) -> bool:
    """Whether tokens joined are a text, where those that are parts of a character may be marks."""
    if _REPLACED not in tokens:
        return tokens == text
    plain, own = tokens.replace(_REPLACED, b""), text.replace(_REPLACED, b"")
    if plain.translate(None, _BEYOND_ASCII) != own.translate(None, _BEYOND_ASCII):
        return False
    return len(plain) <= len(own)
