"""`/v1/chat/completions` and `/v1/completions`, streamed and whole."""

from __future__ import annotations

from typing import Final

import orjson

from provider_sdk.gateway.dialects.choice import Choice
from provider_sdk.gateway.dialects.hide import (
    carries_reasoning,
    parts_of,
    pop_reasoning,
    reasoning_of,
    visible_logprobs,
)
from provider_sdk.gateway.dialects.reader import Piece, Reader, Step
from provider_sdk.gateway.dialects.request import Json
from provider_sdk.gateway.splitter import Run, Side

_NOTHING: Final[list[int]] = []


class ChatReader(Reader):
    """Chats: `delta` in a stream, `message` in a plain reply. Completions: `text` in both."""

    def _event(self, document: Json, data: bytes) -> Step:
        return self._read(document, data, whole=False)

    def _body(self, document: Json, raw: bytes) -> Step:
        return self._read(document, raw, whole=True)

    def _read(self, document: Json, data: bytes, *, whole: bool) -> Step:
        if not self.response_id:
            self._identify(document)
        pieces: list[Piece] = []
        self._tokens = dropped = False
        changed = self._strip_prompt(document, -1)
        choices = document.get("choices")
        if type(choices) is list:
            if "sglext" in document or "nvext" in document:
                changed = self._beside(document, choices, whole=whole) or changed
            kept, altered = self._entries(choices, pieces, whole=whole)
            changed = changed or altered
            if len(kept) < len(choices):
                dropped = True
                document["choices"] = choices = kept
        else:
            self._no_choices(document)
        usage = self._take_usage(document)
        shown = usage
        if not whole and not self.prepared.client_usage and "usage" in document:
            # What only our asking brought: a chunk of its own, and null in all others. A block
            # beside choices is one that the upstream always sends.
            shown = usage and bool(choices)
            if not shown:
                del document["usage"]
                changed = True
                dropped = dropped or usage
        if dropped and not choices and not shown:
            return Step(None, document, pieces, usage=usage)
        if not changed and not dropped:
            return Step(data, document, pieces, same=True, usage=usage)
        return Step(orjson.dumps(document), document, pieces, usage=usage)

    def _no_choices(self, document: Json) -> None:
        if "error" in document:
            self.failed = True
        elif "object" in document:
            self.malformed_stream("a reply has no choices")

    def _entries(
        self, choices: list[object], pieces: list[Piece], *, whole: bool
    ) -> tuple[list[object], bool]:
        """Read all choices; return those of which something is left, and whether any changed."""
        kept: list[object] = []
        changed = False
        for entry in choices:
            if type(entry) is not dict:
                self.malformed_stream("a choice is no object")
                kept.append(entry)
                continue
            index = entry.get("index", 0)
            if "prompt_token_ids" in entry:
                number = index if type(index) is int else -1
                changed = self._strip_prompt(entry, number) or changed
            choice = self.choice(index)
            if choice is None:
                self._hide_all(entry)
                kept.append(entry)
                changed = True
                continue
            altered, empty = self._choice(choice, entry, pieces, whole=whole)
            changed = changed or altered
            if whole or not empty:
                kept.append(entry)
        return kept, changed

    def _choice(
        self, choice: Choice, entry: Json, pieces: list[Piece], *, whole: bool
    ) -> tuple[bool, bool]:
        """Read one choice; return whether it was changed, and whether nothing is left of it."""
        ids = _ids(choice, entry)
        message, twice = _message(entry, whole=whole, hide=self._hide)
        text, reasoning, calls = self._texts(entry, message)
        if calls and not whole:
            # In a plain reply the text comes first, and is compared.
            self._calls(choice, calls)
        if ids or text or reasoning:
            self._tokens = True
        released, visible = choice.take(ids, text, reasoning)
        runs = choice.runs
        over = whole or type(entry.get("finish_reason")) is str
        if over:
            if whole and calls:
                self._calls(choice, calls)
            more, rest = _end(choice, entry)
            released = released + more
            visible += rest
            runs = [*runs, *choice.runs]
        if released:
            pieces.append(Piece(choice.index, released))
        hid = self._hide and self._take_out(entry, message, text, visible)
        if self._hide and entry.get("logprobs") is not None:
            hid = _conceal(entry, ids, runs, visible) or hid
        changed = hid or twice
        given = entry.get("token_ids") is not None
        if given:
            changed = self._strip_ids(entry, ids, runs) or changed
        # An empty delta is there for its ids alone, and would not have come without them.
        spare = hid or (given and message == {})
        return changed, spare and not over and _is_empty(entry, message)

    def _take_out(self, entry: Json, message: object, text: str, visible: str) -> bool:
        """Take reasoning out of a choice; return whether there was any."""
        hid = False
        # One field of text, which is the answer's, is the usual delta.
        if type(message) is not dict:
            hid = carries_reasoning(entry) and pop_reasoning(entry)
        elif len(message) > 1 or type(message.get("content")) is not str:
            hid = _pop_thinking(message)
            hid = pop_reasoning(message) or hid
        if visible != text:
            _put(entry, message, visible)
            hid = True
        return hid

    def _texts(self, entry: Json, message: object) -> tuple[str, str, object]:
        """Return a choice's text, reasoning and calls."""
        if type(message) is not dict:
            text = entry.get("text")
            reasoning = reasoning_of(entry) if carries_reasoning(entry) else ""
            return (text if type(text) is str else ""), reasoning, None
        content = message.get("content")
        reasoning = reasoning_of(message) if len(message) > 1 or not content else ""
        calls = message.get("tool_calls") or message.get("function_call")
        if type(content) is str:
            return content, reasoning, calls
        if type(content) is list:
            _, text, thinking = parts_of(content)
            return text, thinking or reasoning, calls
        return "", reasoning, calls

    def _strip_ids(self, entry: Json, ids: list[int], runs: list[Run]) -> bool:
        if not self.prepared.client_token_ids:
            del entry["token_ids"]
            return True
        if not self._hide:
            return False
        shown = [each for run in runs if run.side is not Side.REASONING for each in run.ids]
        entry["token_ids"] = shown
        return shown != ids

    def _strip_prompt(self, holder: Json, index: int) -> bool:
        ids = holder.get("prompt_token_ids")
        if ids is None:
            return False
        self.told_prompt(index, ids)
        if self.prepared.client_token_ids:
            return False
        del holder["prompt_token_ids"]
        return True

    def _hide_all(self, entry: Json) -> None:
        """Take out what may be reasoning of a choice that cannot be followed: all that it says."""
        entry.pop("token_ids", None)
        if self._hide:
            empty: Json = {"delta": {}, "message": {}, "text": "", "logprobs": None}
            entry.update({name: empty[name] for name in empty.keys() & entry.keys()})
            pop_reasoning(entry)

    def _calls(self, choice: Choice, calls: object) -> None:
        if type(calls) is dict:
            # The older form: one function.
            _call(choice, 0, calls)
        elif type(calls) is list:
            for position, call in enumerate(calls):
                if type(call) is dict:
                    index = call.get("index", position)
                    _call(choice, index if type(index) is int else position, call.get("function"))

    def _beside(self, document: Json, choices: list[object], *, whole: bool) -> bool:
        """Take ids that stand beside the choices: SGLang's `sglext`, Dynamo's `nvext`.

        In a stream they come at its end, too late to commit to them while it goes on.
        """
        changed = False
        for holder, name in (("sglext", "output_ids"), ("nvext", "completion_token_ids")):
            beside = document.get(holder)
            ids = beside.get(name) if isinstance(beside, dict) else None
            if not isinstance(beside, dict) or not isinstance(ids, list):
                continue
            own = ids if holder == "sglext" else [ids]
            if whole and len(own) == len(choices):
                for entry, each in zip(choices, own, strict=True):
                    if isinstance(entry, dict) and entry.get("token_ids") is None and each:
                        entry["token_ids"] = each
                        # Not the client's: it asked for them elsewhere, if it did.
                        changed = True
            if self._hide:
                del beside[name]
                changed = True
        return changed


def _message(entry: Json, *, whole: bool, hide: bool) -> tuple[object, bool]:
    """Return what a choice says, and whether it was said twice and one of the two was taken out.

    Some servers repeat all that was said so far beside each delta.
    """
    name, other = ("message", "delta") if whole else ("delta", "message")
    message = entry.get(name)
    if other not in entry:
        return message, False
    if type(message) is not dict:
        return entry[other], False
    if hide:
        del entry[other]
    return message, hide


def _call(choice: Choice, position: int, function: object) -> None:
    if isinstance(function, dict):
        name, arguments = function.get("name"), function.get("arguments")
        choice.call(
            position,
            name if isinstance(name, str) else "",
            arguments if isinstance(arguments, str) else "",
        )


def _ids(choice: Choice, entry: Json) -> list[int]:
    ids = entry.get("token_ids") or _NOTHING
    if type(ids) is list:
        return ids
    choice.bad_ids()
    return _NOTHING


def _end(choice: Choice, entry: Json) -> tuple[list[int], str]:
    """Take the end of a choice; return what was held back of it."""
    finish = entry.get("finish_reason")
    choice.finish_reason = finish if type(finish) is str else None
    choice.finished = True
    # vLLM and SGLang name the stop string; the model's own stop token is an id there, or null.
    stop = entry.get("stop_reason") or entry.get("matched_stop")
    choice.stopped = type(stop) is str
    return choice.release()


def _put(entry: Json, message: object, visible: str) -> None:
    """Replace a choice's text by what the client may see of it."""
    if type(message) is not dict:
        entry["text"] = visible
    elif type(message.get("content")) is list:
        message["content"] = [{"type": "text", "text": visible}] if visible else []
    elif visible or "content" in message:
        message["content"] = visible


def _pop_thinking(message: Json) -> bool:
    """Take the parts that are thinking out of content that comes in parts."""
    content = message.get("content")
    if type(content) is not list:
        return False
    kept, _, _ = parts_of(content)
    message["content"] = kept
    return len(kept) < len(content)


def _conceal(entry: Json, ids: list[int], runs: list[Run], visible: str) -> bool:
    """Take the log probabilities of hidden tokens out; return whether there were any."""
    if ids and runs and all(run.side is Side.ANSWER for run in runs):
        return False
    before = entry["logprobs"]
    entry["logprobs"] = visible_logprobs(before, ids, runs, visible)
    return entry["logprobs"] != before


def _is_empty(entry: Json, message: object) -> bool:
    """Whether a choice of a chunk tells the client nothing."""
    if entry.get("logprobs") or entry.get("token_ids"):
        return False
    if type(message) is dict:
        return not any(message.values())
    return not entry.get("text")
