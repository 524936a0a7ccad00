"""What a client is given of a reply: for each choice its text, calls and summary, and when.

Read as the commitment binds it (`coin_protocol.answer`): content and calls of tools, no field of
reasoning. Nothing here raises: what cannot be understood is noted in `problem`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from io import StringIO
from typing import Final, Self, TypeAlias

from coin_protocol.answer import ToolCall, answer_bytes
from coin_protocol.limits import MAX_CHOICES, MAX_NAME_BYTES, MAX_TEXT_BYTES

Json: TypeAlias = dict[str, object]

_THINKING: Final = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_text"})
"""Parts of content that are reasoning, and no part of the answer."""

_LAST: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


class Endpoint(Enum):
    """The three kinds of reply, by the end of their path."""

    CHAT = "/chat/completions"
    COMPLETIONS = "/completions"
    RESPONSES = "/responses"

    @classmethod
    def of(cls, path: str) -> Self | None:
        """Return the endpoint at a path, None where no reply of a model is to be had."""
        return next((kind for kind in cls if path.rstrip("/").endswith(kind.value)), None)


class Said:
    """What the client was given of one choice.

    Attributes:
        first_at: When the first part of the answer came, in nanoseconds; None before.
        last_at: The same of the last part.
    """

    __slots__ = ("_calls", "_summary", "_text", "first_at", "last_at")

    def __init__(self) -> None:
        """Start before the first text."""
        self._text = StringIO()
        self._calls: dict[int, tuple[StringIO, StringIO]] = {}
        self._summary: StringIO | None = None
        self.first_at: int | None = None
        self.last_at: int | None = None

    def take(self, text: str, at: int) -> None:
        """Take a part of the text."""
        self._came(at)
        self._text.write(text)

    def call(self, position: int, name: str, arguments: str, at: int) -> None:
        """Take a part of the call of a tool."""
        found = self._calls.get(position)
        if found is None:
            found = self._calls[position] = (StringIO(), StringIO())
        self._came(at)
        found[0].write(name)
        found[1].write(arguments)

    def summarise(self, text: str) -> None:
        """Take a part of the summary of the reasoning."""
        if self._summary is None:
            self._summary = StringIO()
        self._summary.write(text)

    @property
    def answer(self) -> bytes:
        """What `answer_sha256` is the digest of."""
        calls = [
            ToolCall(name.getvalue(), arguments.getvalue())
            for _, (name, arguments) in sorted(self._calls.items())
        ]
        return answer_bytes(self._text.getvalue(), calls)

    @property
    def summary(self) -> bytes | None:
        """The summary in UTF-8; None where there was none."""
        if self._summary is None:
            return None
        return self._summary.getvalue().encode("utf-8", "surrogatepass")

    def _came(self, at: int) -> None:
        if self.first_at is None:
            self.first_at = at
        self.last_at = at


class Reply:
    """Reads one reply, from the JSON objects that it consists of.

    Attributes:
        choices: By index.
        response_id: As the server names the reply; empty until known.
        model: As the server names it; empty until known.
        usage: The usage block that came last.
        over: The last event of a response came.
        problem: What could not be understood, or passed a limit; empty where nothing.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """Start before the first byte."""
        self._responses = endpoint is Endpoint.RESPONSES
        self._room = MAX_TEXT_BYTES
        self._told: set[int] = set()
        self._any = False
        self.choices: dict[int, Said] = {}
        self.response_id = ""
        self.model = ""
        self.usage: Json | None = None
        self.over = False
        self.problem = ""

    def event(self, document: Json, at: int) -> None:
        """Read the object of one event of a stream, which came at `at`."""
        if self._responses:
            self._response_event(document, at)
        else:
            self._chat(document, at, whole=False)

    def body(self, document: Json, at: int) -> None:
        """Read a plain reply."""
        if self._responses:
            self._response(document, at, ended=True)
        else:
            self._chat(document, at, whole=True)

    def choice(self, index: object) -> Said | None:
        """Return a choice; None where `index` is none, or one too many."""
        found = self.choices.get(index) if type(index) is int else None
        if found is None:
            if type(index) is not int or not 0 <= index < MAX_CHOICES:
                self.problem = self.problem or "a choice has no index from 0 to 1023"
                return None
            found = self.choices[index] = Said()
        return found

    def _fits(self, *texts: str) -> bool:
        """Whether so much more may be kept. Characters are counted: never more than bytes."""
        self._room -= sum(map(len, texts))
        if self._room < 0 and not self.problem:
            self.problem = f"the reply has more than {MAX_TEXT_BYTES} bytes of text"
        return self._room >= 0

    def _identify(self, document: Json) -> None:
        self.response_id = self.response_id or _name(document, "id")
        self.model = self.model or _name(document, "model")

    def _chat(self, document: Json, at: int, *, whole: bool) -> None:
        if not self.response_id:
            self._identify(document)
        usage = document.get("usage")
        if type(usage) is dict:
            self.usage = usage
        choices = document.get("choices")
        if type(choices) is not list:
            return
        for entry in choices:
            if type(entry) is not dict:
                self.problem = self.problem or "a choice is no object"
                continue
            said = self.choice(entry.get("index", 0))
            if said is None:
                continue
            text, calls = _said_in(entry, whole=whole)
            if text and self._fits(text):
                said.take(text, at)
            if calls:
                self._calls(said, calls, at)

    def _calls(self, said: Said, calls: object, at: int) -> None:
        if type(calls) is dict:
            # The older form: one function.
            self._call(said, 0, calls, at)
        elif type(calls) is list:
            for position, call in enumerate(calls):
                if type(call) is dict:
                    index = call.get("index", position)
                    place = index if type(index) is int else position
                    self._call(said, place, call.get("function"), at)

    def _call(self, said: Said, position: int, function: object, at: int) -> None:
        if isinstance(function, dict):
            name, arguments = _string(function, "name"), _string(function, "arguments")
            # A call costs memory even where it says nothing.
            if self._fits(name, arguments, "call"):
                said.call(position, name, arguments, at)

    def _response_event(self, document: Json, at: int) -> None:
        kind = document.get("type")
        if kind == "response.output_text.delta":
            self._any = True
            self._take(_string(document, "delta"), at)
            return
        if kind == "response.reasoning_summary_text.delta":
            self._summarise(_string(document, "delta"))
            return
        item, response = document.get("item"), document.get("response")
        if isinstance(item, dict) and kind == "response.output_item.done":
            index = document.get("output_index")
            self._item(item, index if type(index) is int else 0, at)
        elif isinstance(response, dict):
            self.over = kind in _LAST
            self._response(response, at, ended=self.over)

    def _response(self, response: Json, at: int, *, ended: bool) -> None:
        self._identify(response)
        usage = response.get("usage")
        if type(usage) is dict:
            self.usage = usage
        if not ended:
            return
        said, items = self.choice(0), list(_objects(response, "output"))
        if said is not None and said.summary is None:
            for part in _parts(items, "reasoning", "summary"):
                self._summarise(_string(part, "text"))
        if not self._any:
            for part in _parts(items, "message", "content"):
                if part.get("type") == "output_text":
                    self._take(_string(part, "text"), at)
        for index, item in enumerate(items):
            self._item(item, index, at)

    def _item(self, item: Json, index: int, at: int) -> None:
        said = self.choice(0)
        if item.get("type") != "function_call" or index in self._told or said is None:
            return
        self._told.add(index)
        self._call(said, index, item, at)

    def _take(self, text: str, at: int) -> None:
        said = self.choice(0)
        if text and said is not None and self._fits(text):
            said.take(text, at)

    def _summarise(self, text: str) -> None:
        said = self.choice(0)
        if said is not None and self._fits(text):
            said.summarise(text)


def _said_in(entry: Json, *, whole: bool) -> tuple[str, object]:
    """Return the text and the calls of one choice of a chat or a completion."""
    name, other = ("message", "delta") if whole else ("delta", "message")
    message = entry.get(name)
    if type(message) is not dict:
        message = entry.get(other)
    if type(message) is not dict:
        return _string(entry, "text"), None
    calls = message.get("tool_calls") or message.get("function_call")
    content = message.get("content")
    if type(content) is str:
        return content, calls
    if type(content) is not list:
        return "", calls
    parts = (part for part in content if isinstance(part, dict))
    return "".join(_string(part, "text") for part in parts if not _thinks(part)), calls


def _thinks(part: Json) -> bool:
    kind = part.get("type")
    return isinstance(kind, str) and kind in _THINKING


def _string(holder: Json, name: str) -> str:
    value = holder.get(name)
    return value if type(value) is str else ""


def _name(holder: Json, name: str) -> str:
    """Return a name, or nothing where it is longer than any."""
    found = _string(holder, name)
    return found if len(found) <= MAX_NAME_BYTES else ""


def _objects(holder: Json, name: str) -> Iterator[Json]:
    value = holder.get(name)
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, dict))


def _parts(items: list[Json], kind: str, name: str) -> Iterator[Json]:
    """Yield the parts under a name of all items of a kind."""
    for item in items:
        if item.get("type") == kind:
            yield from _objects(item, name)
