"""Markers: from configuration, and as ids of a tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from coin_protocol.errors import ConfigurationError
from provider_sdk.gateway.markers import BUILTIN, HARMONY, THINK, MarkerIds, Markers, markers_from
from tests.support.marked import PLAIN, TOKENIZER, ids, mark


@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_one_resolves_with_and_without_special_tokens(name: str) -> None:
    for tokenizer in (PLAIN, TOKENIZER):
        marks = MarkerIds.resolve(markers_from(name), tokenizer)
        assert len(marks.open) == len(BUILTIN[name].open)
        for spelled, given in zip(marks.close, BUILTIN[name].close, strict=True):
            assert marks.spelled(spelled) == given.encode()


def test_a_mark_that_is_one_id_is_looked_for_as_that_id_alone() -> None:
    assert MarkerIds.resolve(THINK, TOKENIZER).triggers == {mark("<think>"), mark("</think>")}
    assert mark("<|channel|>") in MarkerIds.resolve(HARMONY, TOKENIZER).triggers
    assert ord("a") not in MarkerIds.resolve(HARMONY, TOKENIZER).triggers


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        (("question", "<think>"), True),
        (("question", "<think>", "\n"), True),
        (("question", "<think>", "\n\n", "</think>", "\n\n"), False),
        (("what does ", "<think>", " do?"), False),
        (("question",), False),
        ((), False),
    ],
)
def test_a_prompt_opens_reasoning_only_by_its_end(*, prompt: tuple[str, ...], opened: bool) -> None:
    marks = MarkerIds.resolve(THINK, TOKENIZER)
    assert marks.opened_by(ids(*prompt)) is opened


def test_a_custom_one_starts_from_another() -> None:
    found = markers_from({"base": "think", "name": "mine", "close": "</thinking>", "repeats": True})
    assert found == Markers(name="mine", open=("<think>",), close=("</thinking>",), repeats=True)
    assert markers_from({"open": ["<a>"], "close": ["</a>", "</b>"]}).close == ("</a>", "</b>")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("thinking", "think-in-prompt"),
        ({"open": "<a>"}, "both"),
        ({"open": "", "close": "</a>"}, "1 to 256"),
        ({"open": "<a>", "close": "x" * 257}, "1 to 256"),
        ({"open": ["<a>"] * 65, "close": "x"}, "more than 64"),
        ({"prompt_opens": True}, "both"),
        ({"opens": "<a>"}, "opens"),
        ({"base": "think", "repeats": "yes"}, "true or false"),
        ({"base": "think", "open": 1}, "list of strings"),
        ({"base": "think", "open": [1]}, "wanted a string"),
        ({"base": "nothing"}, "no markers"),
    ],
)
def test_what_is_no_configuration_is_refused(config: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        markers_from(config)
