"""Bearer tokens: only digests are on disk, files are read again, and garbage names no one."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import ConfigurationError
from coin_protocol.transport import TokenFile, Unobserved, make_token
from coin_protocol.transport.tokens import MAX_TOKEN_CHARACTERS, MAX_TOKENS, read_token


class Told(Unobserved):
    """Keeps what it is told of reloads."""

    def __init__(self) -> None:
        self.reloads: list[tuple[str, bool]] = []

    def reloaded(self, what: str, *, ok: bool) -> None:
        self.reloads.append((what, ok))


def write(path: Path, text: str) -> None:
    """Replace a file as rotations do: by a new one under the old name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_a_token_names_its_verifier_and_its_file_does_not_hold_it(tmp_path: Path) -> None:
    one, two = make_token("one"), make_token("a=b, two")
    path = tmp_path / "tokens"
    path.write_text(f"# verifiers\n\n{one.line}\n  {two.line}  \n")
    tokens = TokenFile(path, Unobserved())
    assert tokens.name_of(f"Bearer {one.token}") == "one"
    assert tokens.name_of(f"bearer  {two.token} ") == "a=b, two"
    assert one.token not in path.read_text() + repr(one)
    assert one.token != make_token("one").token


@given(st.text(max_size=60))
def test_what_is_no_known_token_names_nobody(
    tmp_path_factory: pytest.TempPathFactory, header: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "known"
    path.write_text(make_token("one").line)
    tokens = TokenFile(path, Unobserved())
    assert tokens.name_of(header) is None
    assert tokens.name_of(f"Bearer {header}") is None


def test_neither_the_digest_nor_a_longer_token_is_taken_for_the_token(tmp_path: Path) -> None:
    made = make_token("one")
    path = tmp_path / "tokens"
    path.write_text(made.line)
    tokens = TokenFile(path, Unobserved())
    for shown in (
        made.line.rpartition("=")[2],
        made.token + "x",
        made.token[:-1],
        "",
        made.token * 20,
    ):
        assert tokens.name_of(f"Bearer {shown}") is None
    assert tokens.name_of(made.token) is None


def test_the_longest_token_that_a_client_may_show_is_known_to_the_server(tmp_path: Path) -> None:
    token = "x" * MAX_TOKEN_CHARACTERS
    known, own = tmp_path / "known", tmp_path / "token"
    known.write_text(f"one={sha256(token.encode()).hexdigest()}")
    own.write_text(token)
    assert TokenFile(known, Unobserved()).name_of(f"Bearer {read_token(own)}") == "one"


def test_while_a_token_is_replaced_both_are_good(tmp_path: Path) -> None:
    old, new = make_token("one"), make_token("one")
    path = tmp_path / "tokens"
    path.write_text(old.line)
    told = Told()
    tokens = TokenFile(path, told)
    write(path, f"{old.line}\n{new.line}\n")
    assert [tokens.name_of(f"Bearer {made.token}") for made in (old, new)] == ["one", "one"]
    write(path, new.line)
    assert [tokens.name_of(f"Bearer {made.token}") for made in (old, new)] == [None, "one"]
    assert told.reloads == [("tokens", True)] * 2


def test_a_file_that_cannot_be_used_leaves_the_old_tokens_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, secret = make_token("one"), make_token("two").token
    path = tmp_path / "tokens"
    path.write_text(made.line)
    told = Told()
    tokens = TokenFile(path, told)
    with caplog.at_level(logging.WARNING):
        write(path, f"two={secret}")
        for _ in range(3):
            assert tokens.name_of(f"Bearer {made.token}") == "one"
        path.unlink()
        assert tokens.name_of(f"Bearer {made.token}") == "one"
    assert told.reloads == [("tokens", False)] * 2
    assert "old stays" in caplog.text
    # A token written in the clear by mistake is not spread to the log.
    assert secret not in caplog.text


DIGEST = sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nobody\n",
        DIGEST,
        f"={DIGEST}",
        f"one={DIGEST[:-1]}",
        f"one={DIGEST}0",
        "one=" + "g" * 64,
        f"{'n' * 257}={DIGEST}",
        f"bell\a={DIGEST}",
        f"one={DIGEST}\n" * (MAX_TOKENS + 1),
        "#" * ((1 << 20) + 1),
    ],
    ids=lambda text: text[:12].strip() or "empty",
)
def test_a_file_that_is_none_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ConfigurationError):
        TokenFile(path, Unobserved())


def test_bytes_that_are_no_text_are_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        TokenFile(path, Unobserved())
    with pytest.raises(ConfigurationError, match="missing"):
        TokenFile(tmp_path / "missing", Unobserved())


@pytest.mark.parametrize("name", ["", " one", "# one", "a\nb", "n" * 257])
def test_no_token_is_made_for_a_name_that_no_line_can_hold(name: str) -> None:
    with pytest.raises(ConfigurationError):
        make_token(name)


def test_a_clients_file_holds_one_token(tmp_path: Path) -> None:
    made = make_token("one")
    path = tmp_path / "token"
    path.write_text(made.token + "\n")
    assert read_token(path) == made.token
    for text in ("", "two words", "tab\tbed", "ümlaut", "a\nb", "x" * 513):
        path.write_text(text)
        with pytest.raises(ConfigurationError):
            read_token(path)
