"""The bytes of an answer, which whoever keeps a receipt has to build again."""

from __future__ import annotations

import pytest

from coin_protocol.answer import ToolCall, answer_bytes

WEATHER = ToolCall("get_weather", '{"city": "Zürich"}')
CLOCK = ToolCall("clock", "")
HALF = "\ud83d"
"""One half of a surrogate pair: JSON can say it, and UTF-8 proper cannot."""


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("", b""),
        ("Grüezi, 世界", b"Gr\xc3\xbcezi, \xe4\xb8\x96\xe7\x95\x8c"),
        (' {"a": 1}\n', b' {"a": 1}\n'),
        (HALF, b"\xed\xa0\xbd"),
    ],
)
def test_without_tool_calls_they_are_the_content_itself(content: str, wanted: bytes) -> None:
    assert answer_bytes(content) == wanted
    assert answer_bytes(content, []) == wanted


@pytest.mark.parametrize(
    ("content", "calls", "wanted"),
    [
        (
            "é\n",
            [WEATHER, CLOCK],
            (
                '{"content":"é\\n","tool_calls":['
                '{"arguments":"{\\"city\\": \\"Zürich\\"}","name":"get_weather"},'
                '{"arguments":"","name":"clock"}]}'
            ),
        ),
        (
            "",
            [CLOCK, WEATHER],
            (
                '{"content":"","tool_calls":['
                '{"arguments":"","name":"clock"},'
                '{"arguments":"{\\"city\\": \\"Zürich\\"}","name":"get_weather"}]}'
            ),
        ),
        (
            HALF,
            [ToolCall("a", HALF)],
            f'{{"content":"{HALF}","tool_calls":[{{"arguments":"{HALF}","name":"a"}}]}}',
        ),
    ],
    ids=["content-and-calls", "calls-in-the-order-of-the-reply", "half-of-a-pair"],
)
def test_with_tool_calls_they_are_one_object_without_spaces(
    content: str, calls: list[ToolCall], wanted: str
) -> None:
    assert answer_bytes(content, calls) == wanted.encode("utf-8", "surrogatepass")
