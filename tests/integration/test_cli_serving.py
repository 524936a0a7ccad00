"""Servers, questions and audits by the command line, over the small models."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from coin_protocol.files import read_file
from coin_protocol.receipt import read_receipt, write_file
from coin_protocol.testing.small import SmallModels
from tests.support.command import Coin, run_coin, serving_coin
from tests.support.files import AuditFiles
from tests.support.judges import policy_naming, write_model
from tests.support.parties import WAIT_SECONDS, Parties

# Servers and audits, over the small models


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a provider and a verifier, a profile, a policy and traces."""
    folder = tmp_path_factory.mktemp("serving")
    for name, role in (("acme", "provider"), ("me", "verifier")):
        done = run_coin("keys", "init", folder / role, "--name", name, "--role", role)
        assert done.code == 0, done.err
    parties = Parties()
    (folder / "profile").write_bytes(parties.profile.raw)
    (folder / "policy").write_bytes(parties.policy.raw)
    reasoning = " ".join(["the air sends the short waves of the light around"] * 8)
    trace = {
        "id": "sky-01",
        "domain": "physics",
        "question": "why is the sky blue?",
        "reasoning": reasoning,
        "answer": "the air sends the blue light around",
    }
    (folder / "traces").write_text(json.dumps(trace))
    return folder


def provider_options(keys: Path) -> list[str]:
    return [
        *("--keys", str(keys / "provider"), "--name", "acme"),
        *("--verifier", f"me={keys / 'verifier' / 'key.pub.pem'}"),
        *("--traces", str(keys / "traces"), "--profile", str(keys / "profile")),
    ]


def audit_options(keys: Path) -> list[str]:
    return [
        *("--root", str(keys / "provider" / "root.pub.pem")),
        *("--key", str(keys / "verifier" / "key.pem"), "--name", "me"),
        *("--profile", str(keys / "profile"), "--policy", str(keys / "policy")),
    ]


def test_an_audit_is_judged_by_whom_the_command_names(
    coin: Coin, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coin_protocol.models.Models", SmallModels)
    file = write_model(tmp_path / "judge", Parties().profile)
    (tmp_path / "policy").write_bytes(policy_naming(file.digest).raw)
    own = [*audit_options(keys)[:-1], str(tmp_path / "policy")]
    with serving_coin("provider", "replay", *provider_options(keys)) as ready:
        target = f"127.0.0.1:{ready['port']}"

        def scores(*judge: str | Path) -> set[str]:
            receipt = tmp_path / "receipt.binpb"
            assert coin("ask", "sky-01", "--provider", target, "--out", receipt).code == 0
            done = coin("audit", receipt, "--provider", target, *own, *judge, "--json")
            assert done.code in (0, 1, 3), done.err
            return {score["name"] for score in done.document["scores"]}

        assert {"p_value", "p_value_bag"} <= scores("--judge", tmp_path / "judge")
        assert {"tokens_to_block", "block_to_answer"} <= scores("--judge", "rules")


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ("missing", "cannot read the model file missing"),
        ("PROFILE", "not a safetensors file"),
        ("JUDGE", "the policy names none"),
    ],
)
def test_a_judge_that_cannot_be_used_is_said(
    coin: Coin,
    keys: Path,
    tmp_path: Path,
    audited: tuple[Parties, AuditFiles],
    monkeypatch: pytest.MonkeyPatch,
    judge: str,
    said: str,
) -> None:
    monkeypatch.setattr("coin_protocol.models.Models", SmallModels)
    write_model(tmp_path / "judge", Parties().profile)
    path = {"PROFILE": keys / "profile", "JUDGE": tmp_path / "judge"}.get(judge, judge)
    options = ["--provider", "127.0.0.1:1", *audit_options(keys), "--judge", path]
    done = coin("audit", audited[1].receipt, *options)
    assert done.code == 2, done
    assert said in done.said
    done = coin("verifier", "serve", "--provider", "acme=127.0.0.1:1", *options[2:])
    assert done.code == 2, done
    assert said in done.said


def test_a_reply_is_asked_for_audited_and_checked_again_by_the_command(
    coin: Coin, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coin_protocol.models.Models", SmallModels)
    monkeypatch.setattr("coin_protocol.cli.offline.Models", SmallModels)
    receipt, bundle = tmp_path / "receipt.json", tmp_path / "bundle.json"
    with serving_coin("provider", "replay", *provider_options(keys)) as ready:
        assert ready["serving"] == "coin_protocol.v1.ProviderService"
        target = f"127.0.0.1:{ready['port']}"
        asked = coin("ask", "sky-01", "--provider", target, "--out", receipt)
        assert asked.code == 0, asked.err
        assert asked.out.strip() == "the air sends the blue light around"
        options = ["--provider", target, *audit_options(keys)]
        done = coin("audit", receipt, *options, "--bundle-out", bundle)
        assert done.code == 0, done
        assert "PASS" in done.out
        assert "tier opened" in done.said
        again = coin("audit", receipt, *options, "--json")
        assert again.code in (0, 3)
        assert again.document["verifier"] == "me"
        kept = read_receipt(read_file(receipt))
        kept.answer += b"!"
        write_file(tmp_path / "lie.binpb", kept)
        lie = coin("audit", tmp_path / "lie.binpb", *options, "--json")
        assert lie.code == 1
        assert lie.document["outcome"] == "OUTCOME_FAIL"
        unknown = coin("ask", "sky-99", "--provider", target, "--out", tmp_path / "x")
        assert unknown.code == 2
        assert "sky-01" in unknown.said
        nowhere = tmp_path / "nowhere" / "receipt"
        assert coin("ask", "sky-01", "--provider", target, "--out", nowhere).code == 2
    root, verifier = keys / "provider" / "root.pub.pem", keys / "verifier" / "key.pub.pem"
    rules = ["--profile", keys / "profile", "--policy", keys / "policy"]
    checked = coin("bundle", "verify", bundle, "--root", root, "--verifier-key", verifier, *rules)
    assert checked.code == 0, checked
    assert coin("audit", receipt, *options, "--timeout", "0.5").code == 3
    assert coin("ask", "sky-01", "--provider", target, "--out", tmp_path / "x").code == 3


def test_a_receipt_and_a_bundle_are_readable_by_their_owner_alone(
    coin: Coin, keys: Path, tmp_path: Path
) -> None:
    receipt = tmp_path / "receipt.binpb"
    with serving_coin("provider", "replay", *provider_options(keys)) as ready:
        target = f"127.0.0.1:{ready['port']}"
        assert coin("ask", "sky-01", "--provider", target, "--out", receipt).code == 0
    assert stat.S_IMODE(receipt.stat().st_mode) == 0o600


def test_a_verifier_serves_until_it_is_told_to_stop(keys: Path) -> None:
    options = [*audit_options(keys), "--provider", "acme=127.0.0.1:1"]
    with serving_coin("verifier", "serve", *options) as ready:
        assert ready["serving"] == "coin_protocol.v1.VerifierService"
        with socket.create_connection(("127.0.0.1", ready["port"]), WAIT_SECONDS):
            pass


@pytest.mark.parametrize(
    "changed",
    [
        ["--verifier", "me"],
        ["--verifier", "=key"],
        ["--verifier", "me=missing.pem"],
        ["--name", "other"],
        ["--traces", "missing"],
        ["--listen", "0.0.0.0:0"],
        ["--listen", "127.0.0.1"],
        ["--profile", "missing"],
        ["--tls", "missing", "missing", "missing"],
    ],
    ids=" ".join,
)
def test_a_provider_that_is_set_up_wrong_does_not_serve(
    coin: Coin, keys: Path, monkeypatch: pytest.MonkeyPatch, changed: list[str]
) -> None:
    monkeypatch.setattr("coin_protocol.cli.common.Models", SmallModels)
    done = coin("provider", "replay", *provider_options(keys), *changed)
    assert done.code == 2, done
    assert "error: " in done.said
    assert not done.out


@pytest.mark.parametrize(
    "changed",
    [
        ["--provider", "acme"],
        ["--provider", "acme=example.org:1"],
        ["--provider", "acme=nowhere"],
        ["--listen", "192.0.2.1:0"],
        ["--name", ""],
        ["--policy", "missing"],
    ],
    ids=" ".join,
)
def test_a_verifier_that_is_set_up_wrong_does_not_serve(
    coin: Coin, keys: Path, monkeypatch: pytest.MonkeyPatch, changed: list[str]
) -> None:
    monkeypatch.setattr("coin_protocol.models.Models", SmallModels)
    options = [*audit_options(keys), "--provider", "acme=127.0.0.1:1"]
    done = coin("verifier", "serve", *options, *changed)
    assert done.code == 2, done
    assert not done.out


def test_a_target_that_is_none_is_wrong_usage(coin: Coin, keys: Path, tmp_path: Path) -> None:
    for target in ("nowhere", "example.org:443", "127.0.0.1:x"):
        done = coin("ask", "sky-01", "--provider", target, "--out", tmp_path / "x")
        assert done.code == 2, done
    assert keys


def test_a_port_in_odd_digits_is_wrong_usage(coin: Coin, tmp_path: Path) -> None:
    done = coin("ask", "sky-01", "--provider", "127.0.0.1:²", "--out", tmp_path / "x")
    assert done.code == 2


def test_a_key_set_file_that_is_garbage_is_wrong_usage(
    coin: Coin, keys: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "provider"
    folder.mkdir()
    for path in (keys / "provider").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "keyset.binpb").write_bytes(b"garbage")
    done = coin("provider", "replay", *provider_options(keys), "--keys", folder)
    assert done.code == 2
