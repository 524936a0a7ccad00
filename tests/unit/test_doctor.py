"""`coin doctor`: what is wrong with an installation, and what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from coin_protocol import doctor
from coin_protocol.database.engine import open_engine
from coin_protocol.database.migrate import upgrade
from coin_protocol.doctor import State, examine_installation, readable_secret
from coin_protocol.signer import KeySigner, public_pem, write_private_key
from provider_sdk.store import tables as provider_tables
from tests.support.command import Coin
from verifier_sdk.store import tables as verifier_tables


def states(found: list[dict[str, Any]], component: str) -> dict[str, str]:
    return {one["what"]: one["state"] for one in found if one["component"] == component}


def findings(coin: Coin, *arguments: str | Path) -> tuple[int, list[dict[str, Any]]]:
    done = coin("doctor", "--json", *arguments)
    found: list[dict[str, Any]] = json.loads(done.out)["findings"]
    for one in found:
        # What is wrong comes with what to do.
        assert one["advice"] or one["state"] == "good"
    return done.code, found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the models out: they take seconds to load, and have tests of their own."""
    monkeypatch.setattr(doctor, "_models", lambda: iter(()))


@pytest.mark.usefixtures("quick")
def test_this_installation_is_in_order(coin: Coin) -> None:
    code, found = findings(coin)
    assert code == 0
    assert states(found, "installation")["Python"] == "good"
    assert "wrong" not in states(found, "installation").values()


@pytest.mark.models
def test_the_models_of_the_default_profile_are_looked_at() -> None:
    found = {one.what: one.state for one in doctor._models()}
    assert found == dict.fromkeys(("tokenizer", "embedding model", "token table"), State.GOOD)


@pytest.mark.usefixtures("quick")
def test_a_folder_that_is_not_there_yet_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COIN_CACHE_DIR", str(tmp_path / "some" / "cache"))
    found = {one.what: one for one in examine_installation()}
    assert found["cache folder"].state is State.GOOD
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_a_folder_that_cannot_be_written_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COIN_CACHE_DIR", str(tmp_path / "file" / "cache"))
    found = {one.what: one for one in examine_installation()}
    assert found["cache folder"].state is State.WRONG
    assert "COIN_CACHE_DIR" in found["cache folder"].advice
    assert found["data folder"].state is State.GOOD


@pytest.mark.usefixtures("quick")
def test_a_requirement_that_is_missing_or_too_old_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = version

    def pretend(name: str) -> str:
        if name == "protobuf":
            return "3.0"
        if name in {"numpy", "nats-py"}:
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", pretend)
    found = list(examine_installation())
    assert any(one.found == "protobuf 3.0" and one.state is State.WRONG for one in found)
    of = {one.what: one for one in found}
    assert "numpy" in of["requirements"].found
    assert of["requirements"].state is State.WRONG
    assert of["extra nats"].state is State.NOTE
    assert "coin-audit[nats]" in of["extra nats"].advice


@pytest.mark.usefixtures("quick")
def test_a_compromised_release_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    real = version
    monkeypatch.setattr(
        doctor, "version", lambda name: "1.82.8" if name == "litellm" else real(name)
    )
    told = [one.found for one in examine_installation() if one.state is State.WRONG]
    assert any("compromised" in one for one in told)


@pytest.mark.parametrize(("mode", "state"), [(0o600, "good"), (0o640, "wrong"), (0o604, "wrong")])
def test_a_secret_is_its_owners_alone(tmp_path: Path, mode: int, state: str) -> None:
    path = tmp_path / "key"
    path.write_text("secret")
    path.chmod(mode)
    assert readable_secret("key", path).state == state
    assert readable_secret("key", tmp_path / "none").state is State.WRONG


@pytest.mark.parametrize(
    ("mode", "owner", "group", "state"),
    [
        (0o440, 1, 0, "good"),  # a Secret of Kubernetes, or root:coin 640
        (0o640, 1, 0, "good"),
        (0o440, 1, 1, "wrong"),  # whose group is it?
        (0o440, 0, 0, "wrong"),  # one's own: one can mend it
        (0o660, 1, 0, "wrong"),  # the group may put another key there
        (0o444, 1, 0, "wrong"),
    ],
)
def test_a_secret_that_another_user_shares_with_a_group_of_this_one_is_fine(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    owner: int,
    group: int,
    state: str,
) -> None:
    path = tmp_path / "key"
    path.write_text("secret")
    path.chmod(mode)
    found = path.stat()
    # Other numbers of this process stand for other numbers of the file.
    monkeypatch.setattr(os, "geteuid", lambda: found.st_uid + owner)
    monkeypatch.setattr(os, "getegid", lambda: found.st_gid + 1)
    monkeypatch.setattr(os, "getgroups", lambda: [found.st_gid + 2, found.st_gid + group * 3])
    assert readable_secret("key", path).state == state


def _verifier(folder: Path, edit: Callable[[str], str] = lambda text: text) -> Path:
    """Write the settings of a node whose one provider is away."""
    write_private_key(folder / "key.pem", KeySigner.generate("auditor"), None)
    root = KeySigner.generate("root")
    (folder / "root.pub.pem").write_bytes(public_pem(root.public))
    file = folder / "verifier.toml"
    file.write_text(
        edit(
            f"""
name = "auditor"
key = "file:{folder}/key.pem"
database = "sqlite:///{folder}/node.db"
[providers.acme]
endpoint = "127.0.0.1:1"
roots = ["{folder}/root.pub.pem"]
"""
        )
    )
    return file


@pytest.mark.usefixtures("quick")
def test_a_node_is_looked_at_by_its_settings(
    coin: Coin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verifier_sdk.node.doctor._SECONDS", 0.2)
    code, found = findings(coin, "--verifier", _verifier(tmp_path))
    assert code == 1
    assert states(found, "verifier") == {
        "settings": "good",
        "verifier key file": "good",
        "verifier key": "good",
        "judge": "good",
        "embedding": "good",
        "database": "note",
        "provider acme": "wrong",
        "queue": "good",
        "log": "note",
        "gRPC": "good",
        "pages": "note",
    }


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("replaced", "by", "what"),
    [
        ("key.pem", "none.pem", "verifier key"),
        ("sqlite:///", "postgresql://nobody@127.0.0.1:1/", "database"),
        ("root.pub.pem", "none.pem", "providers"),
        ("[providers", 'listen = "0.0.0.0:1"\n[providers', "gRPC"),
        ("endpoint", "end_point", "settings"),
    ],
)
def test_what_is_wrong_with_a_node_is_named(
    coin: Coin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replaced: str,
    by: str,
    what: str,
) -> None:
    monkeypatch.setattr("verifier_sdk.node.doctor._SECONDS", 0.2)
    file = _verifier(tmp_path, lambda text: text.replace(replaced, by, 1))
    code, found = findings(coin, "--verifier", file)
    assert code == 1
    assert states(found, "verifier")[what] == "wrong"


@pytest.mark.usefixtures("quick")
def test_a_provider_is_looked_at_by_its_settings(coin: Coin, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    file = _provider(tmp_path, coin)
    code, found = findings(coin, "--provider", file)
    assert (code, set(states(found, "provider").values())) == (0, {"good", "note"})
    (keys / "sealing.key").chmod(0o644)
    file.write_text(file.read_text().partition("[verifiers]")[0].replace("acme", "other", 1))
    code, found = findings(coin, "--provider", file)
    assert code == 1
    wrong = {what for what, state in states(found, "provider").items() if state == "wrong"}
    assert wrong >= {"sealing key file", "verifiers"}


def _provider(folder: Path, coin: Coin) -> Path:
    keys = folder / "keys"
    assert coin("keys", "init", keys, "--name", "acme").code == 0
    assert coin("provider", "sealing-key", keys / "sealing.key").code == 0
    file = folder / "provider.toml"
    file.write_text(
        f'name = "acme"\nkeys = "{keys}"\ndatabase = "sqlite:///{folder}/coin.db"\n'
        f'[verifiers]\nauditor = "{keys}/root.pub.pem"\n'
    )
    return file


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("side", ["provider", "verifier"])
def test_a_database_is_looked_at_and_left_as_it_is(
    coin: Coin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setattr("verifier_sdk.node.doctor._SECONDS", 0.2)
    file = _provider(tmp_path, coin) if side == "provider" else _verifier(tmp_path)
    database = tmp_path / ("coin.db" if side == "provider" else "node.db")

    def looked() -> dict[str, dict[str, Any]]:
        before = {each: each.stat().st_mtime_ns for each in (tmp_path, *tmp_path.rglob("*"))}
        _, found = findings(coin, f"--{side}", file)
        after = {each: each.stat().st_mtime_ns for each in (tmp_path, *tmp_path.rglob("*"))}
        assert after == before
        return {one["what"]: one for one in found if one["component"] == side}

    found = looked()
    assert (found["database"]["state"], "tables" in found) == ("note", False)
    assert "is not there yet" in found["database"]["found"]
    assert "makes it" in found["database"]["advice"]
    database.touch(mode=0o600)
    assert looked()["tables"]["state"] == "note"
    engine = open_engine(f"sqlite:///{database}")
    upgrade(engine, (provider_tables if side == "provider" else verifier_tables).MIGRATIONS)
    assert looked()["tables"]["state"] == "good"  # while another process has it open
    engine.dispose()
    found = looked()
    assert [found[what]["state"] for what in ("database file", "database", "tables")] == [
        "good"
    ] * 3
    database.chmod(0o644)
    assert looked()["database file"]["state"] == "wrong"
    database.write_bytes(b"not a database" * 100)
    assert looked()["database"]["state"] == "wrong"


@pytest.mark.usefixtures("quick")
def test_the_folder_of_a_database_is_not_made(coin: Coin, tmp_path: Path) -> None:
    file = _provider(tmp_path, coin)
    file.write_text(file.read_text().replace("/coin.db", "/not/there/coin.db"))
    _, found = findings(coin, "--provider", file)
    assert states(found, "provider")["database"] == "note"
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("threads", [0, 2])
def test_who_does_not_embed_needs_no_embedding_model(
    coin: Coin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    monkeypatch.setattr("verifier_sdk.node.doctor._SECONDS", 0.2)
    wanted = "wrong" if threads else "good"
    file = _provider(tmp_path, coin)
    file.write_text(f"embedding_workers = {threads}\n{file.read_text()}")
    code, found = findings(coin, "--provider", file)
    assert states(found, "installation")["embedding model"] == "note"
    assert states(found, "provider")["embedding"] == wanted
    assert code == bool(threads)
    (note,) = [one for one in found if one["what"] == "embedding model"]
    assert "coin provider worker" in note["advice"]
    node = _verifier(tmp_path, lambda text: f"audits_at_once = {threads}\n{text}")
    _, found = findings(coin, "--verifier", node)
    assert states(found, "verifier")["embedding"] == wanted


@pytest.mark.usefixtures("quick")
def test_people_are_shown_a_table_and_a_count(coin: Coin, tmp_path: Path) -> None:
    file = tmp_path / "verifier.toml"
    file.write_text("name = [red]")
    done = coin("doctor", "--verifier", file)
    assert done.code == 1
    assert "1 to mend" in done.out
