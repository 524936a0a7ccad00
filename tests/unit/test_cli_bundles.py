"""`coin bundle verify`: decided again, or checked alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from coin_protocol import envelope
from coin_protocol.errors import (
    MissingDependencyError,
)
from coin_protocol.files import read_file
from coin_protocol.receipt import read_bundle, write_file
from coin_protocol.statements import read_verdict
from coin_protocol.testing.small import SmallModels, small_profile
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import profile_pb2, receipt_pb2
from tests.support.command import Coin, run_coin
from tests.support.files import AuditFiles, leave_files
from tests.support.judges import SPACE, learned_rules, rounds, write_model
from tests.support.parties import Parties, small_policy, strict
from verifier_sdk.semantic.choose import judge_for


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command find the small models."""
    monkeypatch.setattr("coin_protocol.cli.offline.Models", SmallModels)


@pytest.mark.usefixtures("small")
def test_a_verdict_that_its_evidence_gives_is_code_0(
    coin: Coin, audited: tuple[Parties, AuditFiles]
) -> None:
    _, files = audited
    done = coin("bundle", "verify", files.bundle, *files.bundle_options)
    assert done.code == 0, done.said
    assert "the same verdict, bit for bit: checks and judge." in done.said
    document = coin("bundle", "verify", files.bundle, *files.bundle_options, "--json").document
    assert set(document) == {
        *("same", "difference", "replayed", "borne_out", "unchecked", "matches", "verdict"),
    }
    assert document["same"] is document["borne_out"] is True
    assert document["difference"] is None
    assert document["replayed"] == {"checks": True, "judge": True, "reference": None}
    assert document["matches"] == 0
    assert document["verdict"]["outcome"] == "OUTCOME_PASS"
    assert document["verdict"]["tier"] == "TIER_TIMED"


def test_a_verdict_of_fail_that_is_borne_out_is_code_0_too(coin: Coin, tmp_path: Path) -> None:
    parties = Parties(profile=small_profile(whole_blocks_ppm=0))
    files = leave_files(
        parties, tmp_path, edit=lambda receipt: setattr(receipt, "answer", b"other")
    )
    # A failed check takes no models.
    done = coin("bundle", "verify", files.bundle, *files.bundle_options)
    assert done.code == 0
    assert "FAIL" in done.out
    assert "ANSWER_DIGEST" in done.out
    assert "the same verdict, bit for bit: checks; no judge was asked." in done.said


def _accuse(verdict: receipt_pb2.Verdict) -> None:
    verdict.outcome = receipt_pb2.OUTCOME_FAIL
    verdict.ClearField("scores")


@pytest.mark.parametrize(
    "lie",
    [
        _accuse,
        lambda verdict: verdict.tiers.append(receipt_pb2.TIER_OPENED),
        lambda verdict: setattr(verdict, "commitment_sha256", bytes(32)),
        lambda verdict: setattr(verdict.checks[0], "status", receipt_pb2.CHECK_STATUS_FAILED),
    ],
    ids=["accuses", "claims more", "other commitment", "invents a failure"],
)
@pytest.mark.usefixtures("small")
def test_a_verdict_that_lies_is_code_1(
    coin: Coin,
    audited: tuple[Parties, AuditFiles],
    tmp_path: Path,
    lie: Callable[[receipt_pb2.Verdict], object],
) -> None:
    parties, files = audited
    path = tmp_path / "bundle.binpb"
    _lied(parties, files, path, lie)
    assert coin("bundle", "verify", path, *files.bundle_options).code == 1
    assert coin("bundle", "verify", path, *files.bundle_options, "--checks-only").code == 1


def _lied(
    parties: Parties,
    files: AuditFiles,
    path: Path,
    lie: Callable[[receipt_pb2.Verdict], object],
) -> None:
    """Leave a bundle whose verdict says something else."""
    bundle = read_bundle(read_file(files.bundle))
    verdict = read_verdict(bundle.verdict.payload)
    lie(verdict)
    bundle.verdict.CopyFrom(
        envelope.sign(verdict.SerializeToString(), envelope.VERDICT, parties.verifier)
    )
    write_file(path, bundle)


@pytest.mark.usefixtures("small")
def test_a_judgement_that_the_evidence_does_not_give_is_named_with_both_values(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    parties, files = audited
    path = tmp_path / "bundle.binpb"

    def raise_score(verdict: receipt_pb2.Verdict) -> None:
        verdict.scores[1].value += 2.0**-50
        verdict.reasons[0] = "\x1b[2Jeverything is fine"

    _lied(parties, files, path, raise_score)
    done = coin("bundle", "verify", path, *files.bundle_options)
    assert done.code == 1
    assert "another verdict: first difference at scores[1].value" in done.said
    document = coin("bundle", "verify", path, *files.bundle_options, "--json").document
    assert document["same"] is document["borne_out"] is False
    assert document["difference"]["path"] == "scores[1].value"
    found, given = (float(document["difference"][name]) for name in ("found", "replayed"))
    assert found == given + 2.0**-50
    assert "\x1b" not in done.out
    # The deterministic part holds: whoever checks no more is told so.
    less = coin("bundle", "verify", path, *files.bundle_options, "--checks-only")
    assert less.code == 0
    assert "not replayed: the judge's part" in less.said
    document = coin(
        "bundle", "verify", path, *files.bundle_options, "--checks-only", "--json"
    ).document
    assert (document["same"], document["borne_out"]) == (None, True)
    assert document["replayed"] == {"checks": True, "judge": False, "reference": False}


def test_a_verdict_of_another_key_is_code_1(
    coin: Coin, audited: tuple[Parties, AuditFiles]
) -> None:
    _, files = audited
    options = [*files.options, "--verifier-key", files.root]
    assert coin("bundle", "verify", files.bundle, *options).code == 1


def test_a_verdict_under_another_policy_is_wrong_usage(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    _, files = audited
    (tmp_path / "policy").write_bytes(small_policy(strict).raw)
    options = [*files.bundle_options, "--policy", tmp_path / "policy"]
    done = coin("bundle", "verify", files.bundle, *options)
    assert done.code == 2
    assert "policy" in done.said


@pytest.mark.usefixtures("small")
def test_with_models_blocks_opened_whole_are_embedded_again(
    coin: Coin, opened: tuple[Parties, AuditFiles]
) -> None:
    _, files = opened
    for how in ((), ("--checks-only",)):
        done = coin("bundle", "verify", files.bundle, *files.bundle_options, "--json", *how)
        assert done.code == 0
        assert done.document["borne_out"] is True
        assert done.document["verdict"]["tier"] == "TIER_OPENED"


class NoModels(SmallModels):
    """Models that are not installed."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Raise."""
        msg = "not installed"
        raise MissingDependencyError(msg)


def test_without_models_nothing_is_judged_again_and_the_way_out_is_said(
    coin: Coin, opened: tuple[Parties, AuditFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = opened
    monkeypatch.setattr("coin_protocol.cli.offline.Models", NoModels)
    done = coin("bundle", "verify", files.bundle, *files.bundle_options)
    assert done.code == 2
    for words in ("cannot be replayed", "coin-audit[embedding,verifier]", "--checks-only"):
        assert words in done.said


def test_without_models_what_was_not_checked_is_code_3(
    coin: Coin, opened: tuple[Parties, AuditFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = opened
    monkeypatch.setattr("coin_protocol.cli.offline.Models", NoModels)
    checks = [files.bundle, *files.bundle_options, "--checks-only"]
    done = coin("bundle", "verify", *checks)
    assert done.code == 3
    assert "not checked here: WHOLE_" in done.said
    document = coin("bundle", "verify", *checks, "--json").document
    assert document["borne_out"] is False
    assert set(document["unchecked"]) == {"WHOLE_EMBEDDING", "WHOLE_TEXT"}
    assert document["replayed"]["checks"] is False


def _lacks(*_: object, **__: object) -> NoReturn:
    raise ModuleNotFoundError(name="safetensors")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "in the group 'coin.replayers'"),
        ([SimpleNamespace(load=_lacks)], "safetensors is not installed"),
        ([SimpleNamespace(load=lambda: _lacks)], "safetensors is not installed"),
    ],
    ids=["no package", "its package lacks one", "its judge lacks one"],
)
def test_where_nobody_replays_the_way_out_is_said(
    coin: Coin,
    audited: tuple[Parties, AuditFiles],
    monkeypatch: pytest.MonkeyPatch,
    found: list[SimpleNamespace],
    said: str,
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: found)
    _, files = audited
    done = coin("bundle", "verify", files.bundle, *files.bundle_options)
    assert done.code == 2
    for words in ("cannot be replayed", said, "--checks-only"):
        assert words in done.said
    assert coin("bundle", "verify", files.bundle, *files.bundle_options, "--checks-only").code == 0


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("judge", ["rules", "judge.safetensors"])
def test_a_judge_is_named_as_in_the_audit(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path, judge: str
) -> None:
    parties, files = audited
    if judge == "rules":
        done = coin("bundle", "verify", files.bundle, *files.bundle_options, "--judge", judge)
        assert done.code == 0
        return
    write_model(tmp_path / judge, parties.profile)
    named = ["--judge", tmp_path / judge]
    done = coin("bundle", "verify", files.bundle, *files.bundle_options, *named)
    # The audit's policy does not name this one.
    assert done.code == 2
    assert "the policy names none" in done.said
    both = coin("bundle", "verify", files.bundle, *files.bundle_options, *named, "--checks-only")
    assert both.code == 2
    assert "leave out --checks-only" in both.said


@pytest.mark.usefixtures("small")
def test_a_bundle_that_a_learned_judge_judged_is_replayed_with_its_file(
    coin: Coin, tmp_path: Path
) -> None:
    profile = small_profile(projection=SPACE, run_tokens=4, whole_blocks_ppm=0)
    model = write_model(tmp_path / "judge.safetensors", profile)

    def name(policy: profile_pb2.Policy) -> None:
        policy.semantic_model_sha256.append(model.digest)
        policy.learned_rules.CopyFrom(learned_rules())
        policy.rounds.CopyFrom(rounds())

    policy = small_policy(name)
    parties = Parties(profile=profile, policy=policy)
    judge = judge_for(policy, parties.models, tmp_path / "judge.safetensors")
    files = leave_files(parties, tmp_path, judge=judge)
    named = [*files.bundle_options, "--judge", tmp_path / "judge.safetensors"]
    done = coin("bundle", "verify", files.bundle, *named, "--json")
    assert done.code == 0, done.said
    assert done.document["same"] is True
    assert "inflation_probability" in done.document["verdict"]
    # The one that ships is not the one that this policy names.
    assert coin("bundle", "verify", files.bundle, *files.bundle_options).code == 2


@pytest.mark.usefixtures("small")
def test_what_others_wrote_cannot_command_the_terminal(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    parties, files = audited
    bundle = read_bundle(read_file(files.bundle))
    verdict = read_verdict(bundle.verdict.payload)
    verdict.reasons.append("\x1b[2Jeverything is fine")
    bundle.verdict.CopyFrom(
        envelope.sign(verdict.SerializeToString(), envelope.VERDICT, parties.verifier)
    )
    write_file(tmp_path / "bundle.binpb", bundle)
    done = coin("bundle", "verify", tmp_path / "bundle.binpb", *files.bundle_options)
    assert "everything is fine" in done.out
    assert "\x1b" not in done.out


def test_a_terminal_without_unicode_gets_the_same_verdict(
    audited: tuple[Parties, AuditFiles],
) -> None:
    _, files = audited
    plain = {"PYTHONIOENCODING": "ascii"}
    bundle = ["bundle", "verify", str(files.bundle), *files.bundle_options, "--checks-only"]
    for arguments in (
        ["receipt", "verify", str(files.receipt), *files.options],
        bundle,
        [*bundle, "--json"],
    ):
        done = run_coin(*arguments, env=plain)
        assert done.code == 0, done.err
