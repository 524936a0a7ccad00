"""Server-sent events as they arrive: cut into events, each with its exact bytes.

parser = SseParser()
for event in parser.feed(chunk):
    send(event.raw)                       # or event.with_data(changed)
send(parser.close())                      # what was left unfinished

The format is the HTML standard's, section 9.2. Joining the `raw` of all events and what `close`
returns gives the stream byte for byte, whatever it holds. What is no event (blank lines,
comments, unknown fields) comes as an event without data, to be passed on as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from coin_protocol.errors import InvalidInputError

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
"""One event: far above any chunk with log probabilities of a long prompt."""

_BOM: Final = b"\xef\xbb\xbf"
# An end of line, then a blank line. Where the piece ends with the CR of the blank line, the event
# is over; an LF that still belongs to it begins the next event's bytes, as a blank line more.
_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE: Final = re.compile(rb"\r\n|\n|\r")
# As much as an event's end can have begun with, in the piece before.
_END_BYTES: Final = 4


class SseEvent:
    """One event.

    Attributes:
        raw: Its exact bytes, the blank line included.
        data: Its data lines, joined by LF; None where it has none.
        name: Of the field `event`; empty where there is none.
        malformed: A part of an event past the limit, to be passed on as it came.
    """

    __slots__ = ("data", "malformed", "name", "raw")

    def __init__(
        self, raw: bytes, data: bytes | None, name: bytes = b"", *, malformed: bool = False
    ) -> None:
        """Keep the parts."""
        self.raw = raw
        self.data = data
        self.name = name
        self.malformed = malformed

    def __repr__(self) -> str:
        """Say how large it is; what it holds may be secret."""
        return f"SseEvent({len(self.raw)} bytes, malformed={self.malformed})"

    @property
    def done(self) -> bool:
        """Whether it is `[DONE]`, which ends an OpenAI stream."""
        return self.data is not None and len(self.data) < 16 and self.data.strip() == b"[DONE]"

    def with_data(self, data: bytes) -> bytes:
        """Return the event's bytes with other data; its other lines stay.

        Args:
            data: One line, such as compact JSON.
        """
        if self.data is not None and self.raw == b"data: " + self.data + b"\n\n":
            return b"data: " + data + b"\n\n"
        lines, done = [], False
        for line in _LINE.split(self.raw.removeprefix(_BOM)):
            if line == b"data" or line.startswith(b"data:"):
                if not done:
                    lines.append(b"data: " + data)
                done = True
            elif line:
                lines.append(line)
        return b"\n".join([*lines, b"", b""])


class SseParser:
    """Takes bytes in any pieces. Never fails: see `SseEvent.malformed`."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        """Start at the beginning of a stream.

        Args:
            max_event_bytes: A longer event comes in parts that are marked malformed.
        """
        self._max = max_event_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._too_large = False
        self._first = True

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Return the events that this piece completes."""
        events: list[SseEvent] = []
        if self._buffer:
            cut = chunk.find(b"\n\n") + 2
            events += self._searching(chunk[:cut] if cut > 1 else chunk)
            chunk = chunk[cut:] if cut > 1 else b""
        if self._buffer or b"\r" in chunk:
            return events + self._searching(chunk)
        # Lines end with LF alone, so that events end where two stand: the usual piece by far.
        *whole, rest = chunk.split(b"\n\n")
        for lines in whole:
            raw = lines + b"\n\n"
            if lines.startswith(b"data: ") and b"\n" not in lines and len(raw) <= self._max:
                self._first = False
                events.append(SseEvent(raw, lines[6:]))
            else:
                events.append(self._event(raw))
        return events + self._searching(rest) if rest else events

    def _searching(self, chunk: bytes) -> list[SseEvent]:
        """Return the events that this piece completes, whatever lines end with."""
        self._buffer += chunk
        return list(self._events())

    def close(self) -> bytes:
        """Return the bytes of an event that never ended; by the standard it is none."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest

    def last(self) -> SseEvent | None:
        """Return what `close` does as an event: some servers leave out the blank line after it."""
        rest = self.close()
        return self._event(rest) if rest else None

    def _events(self) -> Iterator[SseEvent]:
        buffer, start = self._buffer, 0
        while match := _END.search(buffer, max(start, self._searched)):
            end = match.end()
            yield self._event(bytes(buffer[start:end]))
            start = self._searched = end
        del buffer[:start]
        self._searched = max(0, len(buffer) - _END_BYTES)
        if len(buffer) > self._max:
            # Memory stays bounded: the event goes on in parts, until its end is found.
            self._too_large = True
            keep = len(buffer) - _END_BYTES
            yield SseEvent(bytes(buffer[:keep]), None, malformed=True)
            del buffer[:keep]
            self._searched = 0

    def _event(self, raw: bytes) -> SseEvent:
        if self._too_large or len(raw) > self._max:
            self._too_large = False
            return SseEvent(raw, None, malformed=True)
        body = raw.removeprefix(_BOM) if self._first else raw
        self._first = False
        name, data = b"", []
        for line in _LINE.split(body):
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ")
        return SseEvent(raw, b"\n".join(data) if data else None, name)


def data_event(data: bytes, *, name: bytes = b"") -> bytes:
    """Return an event that carries `data`.

    Raises:
        InvalidInputError: `data` or `name` has more than one line.
    """
    _one_line(data)
    _one_line(name)
    named = b"event: " + name + b"\n" if name else b""
    return named + b"data: " + data + b"\n\n"


def comment(name: str, json: bytes) -> bytes:
    """Return `: name {json}`, which clients drop unless they look for it.

    Args:
        name: For example `coin.checkpoint`.
        json: One line.

    Raises:
        InvalidInputError: Either has more than one line.
    """
    line = name.encode() + b" " + json
    _one_line(line)
    return b": " + line + b"\n\n"


def _one_line(text: bytes) -> None:
    if b"\n" in text or b"\r" in text:
        msg = f"{len(text)} bytes on several lines; wanted one line, so write compact JSON"
        raise InvalidInputError(msg)
