"""Server-sent events: however they are cut, the same events and the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import InvalidInputError
from coin_protocol.sse import SseEvent, SseParser, comment, data_event
from tests.support.marked import cut, cuttings

FRAGMENTS = (
    b"data: {}",
    b"data:x",
    b"data",
    b"data: \xc3\xa9",
    b"event: response.done",
    b": a comment",
    b"id: 7",
    b"unknown: field",
    b"data: [DONE]",
    b"\xff\x00",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\r\r",
    b"\r\n\r\n",
    b"\xef\xbb\xbf",
)
STREAMS = st.lists(st.sampled_from(FRAGMENTS), max_size=24).map(b"".join)


def parse(pieces: list[bytes], **limit: int) -> tuple[list[SseEvent], bytes]:
    parser = SseParser(**limit)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events, parser.close()


def told(events: list[SseEvent]) -> list[tuple[bytes, bytes]]:
    return [(event.name, event.data) for event in events if event.data is not None]


@given(st.data())
def test_however_a_stream_is_cut_its_events_and_its_bytes_are_the_same(data: st.DataObject) -> None:
    stream = data.draw(STREAMS)
    whole, _ = parse([stream])
    events, rest = parse(cut(stream, data.draw(cuttings(len(stream)))))
    assert told(events) == told(whole)
    assert b"".join(event.raw for event in events) + rest == stream


def by_the_standard(stream: bytes) -> list[tuple[bytes, bytes]]:
    """Return names and data of all events: the HTML standard's section 9.2.6, line by line."""
    lines = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[tuple[bytes, bytes]] = []
    name = b""
    data: list[bytes] = []
    for line in lines.split(b"\n")[:-1]:
        field, _, value = line.partition(b":")
        if not line:
            events += [(name, b"\n".join(data))] if data else []
            name, data = b"", []
        elif field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return events


@given(st.data())
def test_whatever_comes_is_read_line_by_line_as_the_standard_says(data: st.DataObject) -> None:
    stream = data.draw(STREAMS)
    events, _ = parse(cut(stream, data.draw(cuttings(len(stream)))))
    assert told(events) == by_the_standard(stream)


@given(st.data())
def test_an_event_past_the_limit_is_passed_on_in_parts_and_the_next_is_read(
    data: st.DataObject,
) -> None:
    large = b"data: " + b"x" * data.draw(st.integers(65, 400)) + b"\n\n"
    stream = b"data: before\n\n" + large + b"data: after\n\n"
    events, rest = parse(cut(stream, data.draw(cuttings(len(stream)))), max_event_bytes=64)
    assert [event.data for event in events if not event.malformed] == [b"before", b"after"]
    assert b"".join(event.raw for event in events) + rest == stream
    assert any(event.malformed for event in events)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"data: a\r\n\r\n", [(b"", b"a")]),
        (b"data: a\r\rdata: b\r\r", [(b"", b"a"), (b"", b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"data: a\ndata:b\ndata\n\n", [(b"", b"a\nb\n")]),
        (b"event: e\ndata:  a\n\n", [(b"e", b" a")]),
        (b": comment\n\n\n\ndata: a\n\n", [(b"", b"a")]),
        (b"id: 1\nretry: 2\nwhat\n\n", []),
        (b"data: unfinished\n", []),
    ],
    ids=["lf", "crlf", "cr", "bom", "lines", "named", "comments", "no-data", "unfinished"],
)
def test_events_are_those_of_the_standard(
    stream: bytes, expected: list[tuple[bytes, bytes]]
) -> None:
    events, _ = parse([stream])
    assert told(events) == expected


def test_only_done_is_done() -> None:
    events, _ = parse([b'data: [DONE]\n\ndata: {"a":"[DONE]"}\n\n: [DONE]\n\n'])
    assert [event.done for event in events] == [True, False, False]


@pytest.mark.parametrize(
    ("raw", "changed"),
    [
        (b"data: a\n\n", b"data: b\n\n"),
        (b"data:a\n\n", b"data: b\n\n"),
        (b"event: e\r\ndata: a\r\ndata: c\r\nid: 1\r\n\r\n", b"event: e\ndata: b\nid: 1\n\n"),
        (b": kept\ndata: a\n\n", b": kept\ndata: b\n\n"),
    ],
)
def test_an_event_with_other_data_keeps_its_other_lines(raw: bytes, changed: bytes) -> None:
    (event,), _ = parse([raw])
    assert event.with_data(b"b") == changed


def test_what_is_written_is_read_again() -> None:
    events, rest = parse([data_event(b"{}", name=b"e") + comment("coin.receipt", b'{"a":1}')])
    assert (told(events), rest) == ([(b"e", b"{}")], b"")
    assert events[1].raw == b': coin.receipt {"a":1}\n\n'


@pytest.mark.parametrize("text", [b"a\nb", b"a\rb"])
def test_what_has_lines_is_not_written(text: bytes) -> None:
    with pytest.raises(InvalidInputError, match="one line"):
        data_event(text)
    with pytest.raises(InvalidInputError, match="one line"):
        comment("coin.receipt", text)


def test_an_event_shows_nothing_of_what_it_holds() -> None:
    (event,), _ = parse([b"data: secret\n\n"])
    assert "secret" not in repr(event)


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"data: [DONE]\n", b"[DONE]"),
        (b"data: [DONE]", b"[DONE]"),
        (b"event: x\r\ndata: {}\r\n", b"{}"),
        (b": ping\n", None),
        (b"\n", None),
    ],
)
def test_a_last_event_may_lack_its_blank_line(raw: bytes, data: bytes | None) -> None:
    parser = SseParser()
    assert parser.feed(raw) == []
    event = parser.last()
    assert event is not None
    assert (event.raw, event.data) == (raw, data)
    assert parser.last() is None
