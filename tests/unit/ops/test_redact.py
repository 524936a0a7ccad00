from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.ops.redact import (
    MASK,
    MAX_ITEMS,
    MAX_TEXT,
    SECRET_WORDS,
    Redactor,
    is_secret_name,
)
from coin_protocol.v1 import keys_pb2

PLANTED = "Zq9planted7Kx"

# Names as people write them around a secret word.
SECRET_NAMES = st.builds(
    lambda word, shape: shape(word),
    st.sampled_from(sorted(SECRET_WORDS)),
    st.sampled_from(
        (
            str,
            str.upper,
            str.title,
            lambda word: f"x-{word}",
            lambda word: f"client_{word}",
            lambda word: f"the {word}",
            lambda word: f"my{word.title()}",
            lambda word: f"upstream.{word}",
        )
    ),
)
SECRETS = st.one_of(
    st.just(PLANTED),
    st.just(PLANTED.encode()),
    st.just([PLANTED, {"a": PLANTED}]),
    st.just({"deep": {"er": (PLANTED,)}}),
    st.text().map(lambda text: text + PLANTED),
)
HARMLESS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.dates()
)


def nested(leaves: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.recursive(
        leaves,
        lambda inside: st.one_of(
            st.lists(inside, max_size=3),
            st.tuples(inside, inside),
            st.dictionaries(st.text(max_size=8), inside, max_size=3),
        ),
        max_leaves=8,
    )


PLANTED_SOMEWHERE = nested(
    st.one_of(
        HARMLESS,
        st.dictionaries(SECRET_NAMES, SECRETS, max_size=2),
        st.just(PLANTED.encode()),
        st.just({PLANTED.encode(): 1}),
    )
)


@given(PLANTED_SOMEWHERE)
def test_what_is_planted_under_a_secret_name_never_comes_out(value: object) -> None:
    found = json.dumps(Redactor().value(value), ensure_ascii=False, allow_nan=False)
    assert PLANTED not in found


@given(st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=40))
def test_the_password_of_a_url_in_a_sentence_never_comes_out(noise: str) -> None:
    text = f"cannot reach postgresql+psycopg://coin:{noise}{PLANTED}{noise}@db.example/coin now"
    found = Redactor().text(text)
    assert PLANTED not in found
    assert "db.example/coin now" in found


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_secret_that_is_known_comes_out_nowhere(before: str, after: str) -> None:
    redactor = Redactor([f"p@ss/{PLANTED}"])
    for form in (f"p@ss/{PLANTED}", f"p%40ss%2F{PLANTED}"):
        assert PLANTED not in redactor.text(before + form + after)
        assert PLANTED not in json.dumps(redactor.value({"a": [before + form], form: 1}))


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {PLANTED} and more {PLANTED}",
        f"the header was 'Bearer {PLANTED}'",
        f"{{'x-api-key': '{PLANTED}'}}",
        f"host=db password={PLANTED} dbname=coin",
        f"pkcs11:token=coin;object=a?pin-value={PLANTED}",
        f"GET /v1/x?api={PLANTED} HTTP/1.1",
        f"postgresql://u:a b {PLANTED}@db/coin",
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED}",
        f"(sqlite3.Error) no\n[SQL: INSERT]\n[parameters: ('{PLANTED}',\n1)]\n(Background on x)",
        f"duplicate key\nDETAIL:  Key (id)=({PLANTED}) already exists.",
        f"[type=string_type, input_value='{PLANTED}', input_type=str]",
        f"key sk-{PLANTED} was refused",
        "a" * 4 * MAX_TEXT + PLANTED,
    ],
)
def test_what_looks_like_a_secret_is_cut_out_of_text(text: str) -> None:
    assert PLANTED not in Redactor().text(text)


def test_a_secret_that_the_limit_would_cut_in_two_does_not_come_out_by_half() -> None:
    text = "x " * (2 * MAX_TEXT - 12) + f"postgresql://u:{PLANTED}" + "y" * 100 + "@db/coin"
    assert PLANTED[:6] not in Redactor().text(text, limit=8 * MAX_TEXT)


@pytest.mark.parametrize(
    "name", ["X-Api-Key", "apiKey", "APIKEY", "token_ids", "Set-Cookie", "promptText", "HSM PIN"]
)
def test_names_of_secrets_are_known_however_they_are_written(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["key_id", "keyid", "key_set", "session", "url", "spinning"])
def test_names_that_only_look_alike_are_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


def test_counts_are_shown_and_numbers_that_are_secrets_are_not() -> None:
    found = Redactor().mapping({"reasoning_tokens": 7, "pin": 1234, "tokens": "text", "ids": None})
    assert found == {"reasoning_tokens": 7, "pin": MASK, "tokens": MASK, "ids": None}


def test_types_that_may_hold_anything_are_shown_by_their_names() -> None:
    message = keys_pb2.KeySet(owner=PLANTED)
    found = Redactor().value([message, np.array([1, 2]), object, b"abc", memoryview(b"ab")])
    assert found == ["[KeySet]", "[ndarray]", "[type]", "[3 bytes]", "[2 bytes]"]


def test_nothing_is_without_end() -> None:
    endless: list[object] = []
    endless.append(endless)
    redactor = Redactor()
    assert "too deep" in json.dumps(redactor.value(endless))
    assert len(redactor.mapping(dict.fromkeys(range(1000), 1))) == MAX_ITEMS + 1
    assert redactor.value(list(range(1000))) == [*range(MAX_ITEMS), f"[{1000 - MAX_ITEMS} more]"]
    assert redactor.value(1 << 100_000) == "[integer of 100001 bits]"
    assert len(redactor.text("word " * 100_000)) < MAX_TEXT + 40


def test_what_is_harmless_stays_as_it_is() -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    found = Redactor().value({"url": "https://db.example/path", "n": 1.5, "at": when, "ok": True})
    assert found == {
        "url": "https://db.example/path",
        "n": 1.5,
        "at": "2026-01-02 00:00:00+00:00",
        "ok": True,
    }


def test_a_line_cannot_be_forged_and_a_terminal_not_be_steered() -> None:
    found = Redactor().text("a\r\x1b[2Jb\u2028c\u202ed\u2066e\u200ff\u061cg")
    assert found.isprintable()
