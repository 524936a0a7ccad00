"""`/v1/responses`, streamed and whole: one choice, whose parts are items.

Items of reasoning stay, without their content, so that every other item keeps its index; their
summaries stay too. No server streams token ids here as yet: text is tokenized again, unless the
events carry `token_ids`, or a plain reply the `output_messages` of vLLM.
"""

from __future__ import annotations

from typing import Final

import orjson

from coin_protocol.sse import data_event
from provider_sdk.gateway.dialects.hide import spell
from provider_sdk.gateway.dialects.reader import Piece, Reader, Step
from provider_sdk.gateway.dialects.request import Json, Prepared, Rules

_REASONING: Final = ("response.reasoning_text.", "response.reasoning.", "response.reasoning_part.")
_SUMMARY_DELTA: Final = "response.reasoning_summary_text.delta"
_LAST: Final = ("response.completed", "response.incomplete", "response.failed")
_ENDS: Final = {
    "completed": "stop",
    "incomplete": "length",
    "failed": "error",
    "cancelled": "abort",
}


class ResponsesReader(Reader):
    """Reads the events and the object of the Responses API."""

    def __init__(self, prepared: Prepared, rules: Rules) -> None:
        """Start before the first byte."""
        super().__init__(prepared, rules)
        # What the client was given of each part, where something was kept from it.
        self._shown: dict[tuple[int, int], bytearray] = {}
        self._told: set[int] = set()
        self._any = False

    def _event(self, document: Json, data: bytes) -> Step:
        kind = _string(document, "type")
        pieces: list[Piece] = []
        if kind == "response.output_text.delta":
            return self._text(document, data, pieces)
        if kind.startswith(_REASONING):
            return self._reasoning(document, data, kind, pieces)
        if kind.startswith("response.content_part.") and self._hide:
            part = document.get("part")
            if isinstance(part, dict) and part.get("type") == "reasoning_text":
                return Step(None, document, pieces)
        before = b""
        if kind == _SUMMARY_DELTA:
            self._open(0).summarise(_string(document, "delta"))
        elif kind == "response.output_text.done":
            before = self._rest(document, pieces)
        changed = self._inside(document, kind, pieces)
        response = document.get("response")
        usage = isinstance(response, dict) and self._take_usage(response)
        # Clients hang up at the last event, whether it has usage or not.
        usage = usage or kind in _LAST
        self._tokens = False
        self.failed = self.failed or kind == "error"
        if changed:
            data = orjson.dumps(document)
        return Step(data, document, pieces, same=not changed, usage=usage, before=before)

    def _inside(self, document: Json, kind: str, pieces: list[Piece]) -> bool:
        """Read what an event repeats as a whole: a text, a part, an item or the response."""
        part, item, response = (document.get(name) for name in ("part", "item", "response"))
        if kind == "response.output_text.done":
            return self._redact(document, document)
        if isinstance(part, dict):
            return self._redact(document, part)
        if isinstance(item, dict):
            index, done = _number(document, "output_index"), kind.endswith(".done")
            return self._item(item, index, pieces, done=done)
        if isinstance(response, dict):
            return self._response(response, pieces, ended=kind in _LAST)
        return False

    def _rest(self, document: Json, pieces: list[Piece]) -> bytes:
        """Give out the text that was held back, as one more delta before the part's end."""
        released, rest = self._open(0).release()
        if released:
            pieces.append(Piece(0, released))
        if not rest:
            return b""
        where = _number(document, "output_index"), _number(document, "content_index")
        self._shown.setdefault(where, bytearray()).extend(rest.encode())
        kept = {name: value for name, value in document.items() if name != "text"}
        kind = "response.output_text.delta"
        delta = orjson.dumps({**kept, "type": kind, "delta": rest, "logprobs": []})
        return data_event(delta, name=kind.encode())

    def _body(self, document: Json, raw: bytes) -> Step:
        pieces: list[Piece] = []
        if document.get("object") != "response" and "output" not in document:
            # An error, which has no reply in it.
            self.failed = "error" in document
            if not self.failed:
                self.malformed_stream("a response has no output")
            return Step(raw, document, pieces, same=True)
        changed = self._response(document, pieces, ended=True)
        usage = self._take_usage(document)
        data = orjson.dumps(document) if changed else raw
        return Step(data, document, pieces, same=not changed, usage=usage)

    def _take(self, holder: Json, content: str, reasoning: str, pieces: list[Piece]) -> str:
        ids = holder.get("token_ids")
        self._tokens = True
        released, visible = self._open(0).take(ids if type(ids) is list else [], content, reasoning)
        if released:
            pieces.append(Piece(0, released))
        return visible

    def _strip_ids(self, holder: Json) -> bool:
        """Take ids out, unless the client asked for them and they are of no reasoning."""
        if "token_ids" not in holder or (self.prepared.client_token_ids and not self._hide):
            return False
        del holder["token_ids"]
        return True

    def _text(self, document: Json, data: bytes, pieces: list[Piece]) -> Step:
        text = _string(document, "delta")
        self._any = True
        visible = self._take(document, text, "", pieces)
        changed = self._strip_ids(document)
        where = _number(document, "output_index"), _number(document, "content_index")
        if self._hide:
            self._shown.setdefault(where, bytearray()).extend(visible.encode())
        changed = self._conceal(document, visible) or changed
        if visible != text:
            if not visible:
                return Step(None, document, pieces)
            document["delta"], changed = visible, True
        if not changed:
            return Step(data, document, pieces, same=True)
        return Step(orjson.dumps(document), document, pieces)

    def _conceal(self, holder: Json, visible: str) -> bool:
        """Take log probabilities out that are of other tokens than the text's."""
        if not self._hide or not holder.get("logprobs") or spell(holder["logprobs"], visible):
            return False
        holder["logprobs"] = []
        return True

    def _reasoning(self, document: Json, data: bytes, kind: str, pieces: list[Piece]) -> Step:
        index = _number(document, "output_index")
        if kind.endswith(".delta"):
            self._told.add(index)
            self._take(document, "", _string(document, "delta"), pieces)
        elif kind.endswith(".done") and index not in self._told and _string(document, "text"):
            # A server that sends the whole text at once.
            self._told.add(index)
            self._take(document, "", _string(document, "text"), pieces)
        if self._hide:
            return Step(None, document, pieces)
        if self._strip_ids(document):
            return Step(orjson.dumps(document), document, pieces)
        return Step(data, document, pieces, same=True)

    def _item(self, item: Json, index: int, pieces: list[Piece], *, done: bool) -> bool:
        kind = item.get("type")
        if kind == "reasoning":
            text = "".join(_string(part, "text") for part in _objects(item, "content"))
            if done and text and index not in self._told:
                self._told.add(index)
                self._take({}, "", text, pieces)
            return self._scrub(item)
        if kind == "function_call" and done and index not in self._told:
            self._told.add(index)
            self._open(0).call(index, _string(item, "name"), _string(item, "arguments"))
        changed = False
        if kind == "message":
            for position, part in enumerate(_objects(item, "content")):
                place: Json = {"output_index": index, "content_index": position}
                changed = self._redact(place, part) or changed
        return changed

    def _redact(self, place: Json, part: Json) -> bool:
        """Replace the whole text of a part by what the client was given of it."""
        where = _number(place, "output_index"), _number(place, "content_index")
        shown = self._shown.get(where)
        text = part.get("text")
        changed = False
        if shown is not None and isinstance(text, str) and text and text.encode() != shown:
            part["text"] = text = shown.decode()
            changed = True
        return self._conceal(part, text if isinstance(text, str) else "") or changed

    def _scrub(self, item: Json) -> bool:
        """Take the content out of an item of reasoning; its summary stays."""
        if not self._hide:
            return False
        changed = False
        if item.get("content"):
            item["content"] = []
            changed = True
        if item.get("encrypted_content") is not None:
            # vLLM keeps the reasoning there in clear.
            item["encrypted_content"] = None
            changed = True
        return changed

    def _response(self, response: Json, pieces: list[Piece], *, ended: bool) -> bool:
        self._identify(response)
        items = _objects(response, "output")
        changed = False
        if ended:
            if not self._any and not self._told:
                self._sampled(response, items, pieces)
            changed = self._messages(response)
            if self._open(0).summary is None:
                self._summarise(items)
        streamed = self._any
        for index, item in enumerate(items):
            # Reasoning comes before the message that it led to.
            changed = self._item(item, index, pieces, done=ended) or changed
            if ended and not streamed and item.get("type") == "message":
                changed = self._message(item, index, pieces) or changed
        if ended:
            changed = self._repeated(response, items) or changed
            choice = self._open(0)
            status = response.get("status")
            choice.finished = True
            choice.finish_reason = _ENDS.get(status) if isinstance(status, str) else None
            details = response.get("incomplete_details")
            if isinstance(details, dict) and details.get("reason") == "content_filter":
                choice.finish_reason = "content_filter"
            self.failed = self.failed or status == "failed"
        return changed

    def _repeated(self, response: Json, items: list[Json]) -> bool:
        """Take reasoning out of the text that some servers repeat beside the items."""
        if not self._hide or not isinstance(response.get("output_text"), str):
            return False
        parts = (part for item in items for part in _objects(item, "content"))
        text = "".join(_string(part, "text") for part in parts if part.get("type") == "output_text")
        response["output_text"], before = text, response["output_text"]
        return text != before

    def _summarise(self, items: list[Json]) -> None:
        for item in items:
            if item.get("type") == "reasoning":
                for part in _objects(item, "summary"):
                    self._open(0).summarise(_string(part, "text"))

    def _message(self, item: Json, index: int, pieces: list[Piece]) -> bool:
        """Read a message that came whole."""
        changed = False
        for position, part in enumerate(_objects(item, "content")):
            text = _string(part, "text")
            if part.get("type") != "output_text":
                continue
            visible = self._take({}, text, "", pieces)
            released, rest = self._open(0).release()
            if released:
                pieces.append(Piece(0, released))
            self._shown[index, position] = bytearray((visible + rest).encode())
            place: Json = {"output_index": index, "content_index": position}
            changed = self._redact(place, part) or changed
        return changed

    def _sampled(self, response: Json, items: list[Json], pieces: list[Piece]) -> None:
        """Take the ids of a whole response from vLLM's raw messages, where they are all there."""
        messages = _objects(response, "output_messages")
        ids = messages[0].get("tokens") if len(messages) == 1 else None
        parts = [part for item in items for part in _objects(item, "content")]
        texts = [part for part in parts if part.get("type") == "output_text"]
        reasoning = "".join(
            _string(part, "text") for part in parts if part.get("type") == "reasoning_text"
        )
        if not isinstance(ids, list) or not ids or (len(texts) > 1 and not reasoning):
            return
        prompt = _objects(response, "input_messages")
        if prompt:
            self.told_prompt(0, prompt[-1].get("tokens"))
        self._any = True
        self._told.update(range(len(items)))
        for index, item in enumerate(items):
            if item.get("type") == "function_call":
                self._open(0).call(index, _string(item, "name"), _string(item, "arguments"))
        text = "".join(_string(part, "text") for part in texts)
        visible = self._take({"token_ids": ids}, text, reasoning, pieces)
        if len(texts) == 1 and visible != text:
            for index, item in enumerate(items):
                for position, part in enumerate(_objects(item, "content")):
                    if part is texts[0]:
                        self._shown[index, position] = bytearray(visible.encode())

    def _messages(self, response: Json) -> bool:
        """Take out vLLM's raw messages, which hold reasoning, or were not asked for."""
        changed = False
        prepared = self.prepared
        for name, reasons in (("input_messages", prepared.goes_on), ("output_messages", True)):
            wanted = prepared.client_messages and not (self._hide and reasons)
            if response.get(name) is not None and not wanted:
                del response[name]
                changed = True
        return changed


def _string(holder: Json, name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def _number(holder: Json, name: str) -> int:
    value = holder.get(name)
    return value if isinstance(value, int) else 0


def _objects(holder: Json, name: str) -> list[Json]:
    value = holder.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
