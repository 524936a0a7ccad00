"""The file of accounts: who may log in, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coin_protocol.errors import ConfigurationError, InvalidInputError
from tests.support.web_site import ACCOUNT, CHEAP, PASSWORD, write_accounts
from verifier_sdk.web.accounts import (
    AccountFile,
    Cost,
    add_account,
    make_account_line,
    require_account_file,
)


def test_name_and_password_are_found_and_nothing_else(tmp_path: Path) -> None:
    accounts = AccountFile(write_accounts(tmp_path))
    found = accounts.check(ACCOUNT, PASSWORD)
    assert found is not None
    assert found.name == ACCOUNT
    for name, password in (
        (ACCOUNT, PASSWORD + " "),
        (ACCOUNT, ""),
        (ACCOUNT.upper(), PASSWORD),
        ("nobody", PASSWORD),
        ("", ""),
        (ACCOUNT, "\udcff" * 20),
        (ACCOUNT, PASSWORD + "x" * 2000),
    ):
        assert accounts.check(name, password) is None


def test_an_unknown_name_is_hashed_like_a_known_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = AccountFile(write_accounts(tmp_path))
    hashed: list[Cost] = []
    plain = Cost.hash

    def counted(cost: Cost, password: bytes, salt: bytes) -> bytes:
        hashed.append(cost)
        return plain(cost, password, salt)

    monkeypatch.setattr(Cost, "hash", counted)
    assert accounts.check("nobody", PASSWORD) is None
    assert accounts.check(ACCOUNT, "wrong password") is None
    assert hashed == [CHEAP, CHEAP]


def test_a_line_states_its_cost_and_tells_no_password() -> None:
    line = make_account_line("ada", PASSWORD, cost=CHEAP)
    assert line.startswith("ada:$scrypt$ln=14,r=8,p=1$")
    assert PASSWORD not in line
    assert line != make_account_line("ada", PASSWORD, cost=CHEAP)
    assert make_account_line("a", "x" * 12).split("$")[2] == "ln=15,r=8,p=3"


@pytest.mark.parametrize("name", ["", "a:b", "a b", "-a", "x" * 65, "a\nb", "ä"])
def test_names_that_cannot_stand_in_a_line_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="an account's name"):
        make_account_line(name, PASSWORD, cost=CHEAP)


@pytest.mark.parametrize("password", ["", "x" * 11, "x" * 1025])
def test_passwords_that_protect_nothing_are_refused(password: str) -> None:
    with pytest.raises(InvalidInputError, match="a password has") as refused:
        make_account_line("ada", password, cost=CHEAP)
    assert not password or password not in str(refused.value)


@pytest.mark.parametrize("cost", [(13, 8, 1), (21, 8, 1), (15, 99, 1), (15, 8, 0), (15, 8, 17)])
def test_costs_are_bounded_before_memory_is_spent(cost: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigurationError, match="scrypt wants"):
        Cost(*cost)


def test_accounts_are_added_to_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    add_account(path, "ada", PASSWORD, cost=CHEAP)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(f"# kept\n{path.read_text()}")
    add_account(path, "bob", "another password", cost=CHEAP)
    assert sorted(AccountFile(path).accounts()) == ["ada", "bob"]
    assert AccountFile(path).check("ada", PASSWORD) is not None
    kept = path.read_text()
    assert kept.startswith("# kept\n")
    with pytest.raises(InvalidInputError, match="has an account"):
        add_account(path, "ada", "a new password", cost=CHEAP)
    assert path.read_text() == kept
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        add_account(path, "eve", PASSWORD, cost=CHEAP)
    assert "eve" not in path.read_text()


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = write_accounts(tmp_path)
    for mode in (0o640, 0o604, 0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match="chmod 600"):
            require_account_file(path)
    path.chmod(0o400)
    require_account_file(path)


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_accounts(tmp_path)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner:
        with pytest.raises(ConfigurationError, match="belongs to another user"):
            require_account_file(path)
    else:
        require_account_file(path)  # root's is anybody's to read


def test_what_is_no_file_of_accounts_is_refused_without_being_repeated(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    good = make_account_line("ada", PASSWORD, cost=CHEAP)
    for text, why in (
        ("", "0 accounts"),
        ("# only a comment\n", "0 accounts"),
        (f"ada:{PASSWORD}\n", "line 1"),
        (f"{good}\n{good}\n", "already"),
        (good.replace("ln=14", "ln=30"), "scrypt wants"),
        (good.replace("$scrypt", "$argon"), "line 1"),
        (good[:-1], "line 1"),
    ):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(ConfigurationError, match=why) as refused:
            require_account_file(path)
        assert PASSWORD not in str(refused.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        require_account_file(path)
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigurationError, match="more than"):
        require_account_file(path)


def test_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        require_account_file(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(ConfigurationError, match="is no file"):
        require_account_file(pipe)


def test_a_changed_file_counts_at_once_and_a_lost_one_lets_nobody_in(tmp_path: Path) -> None:
    path = write_accounts(tmp_path)
    accounts = AccountFile(path)
    before = accounts.accounts()[ACCOUNT]
    path.write_text(make_account_line(ACCOUNT, "another password", cost=CHEAP))
    after = accounts.check(ACCOUNT, "another password")
    assert after is not None
    assert after.sha256 != before.sha256
    assert accounts.check(ACCOUNT, PASSWORD) is None
    path.unlink()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="cannot read"):
            accounts.check(ACCOUNT, "another password")
