"""`coin receipt verify` and `coin bundle verify`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coin_protocol import envelope
from coin_protocol.checks import CHECKS
from coin_protocol.errors import (
    MissingDependencyError,
)
from coin_protocol.files import read_file
from coin_protocol.receipt import read_bundle, read_receipt, write_file
from coin_protocol.statements import read_verdict
from coin_protocol.testing.small import SmallModels, small_profile
from coin_protocol.v1 import receipt_pb2
from tests.support.command import Coin, run_coin
from tests.support.files import AuditFiles, leave_files
from tests.support.parties import Parties, small_policy, strict

# Receipts


def test_a_sound_receipt_is_code_0_and_its_count_only_asserted(
    coin: Coin, audited: tuple[Parties, AuditFiles]
) -> None:
    _, files = audited
    done = coin("receipt", "verify", files.receipt, *files.options)
    assert done.code == 0
    assert "Tier: asserted" in done.said
    document = coin("receipt", "verify", files.receipt, *files.options, "--json").document
    assert set(document) == {"outcome", "tier", "failed_checks", "fault", "detail", "checks"}
    assert document["outcome"] == "PASS"
    assert document["tier"] == "asserted"
    assert document["failed_checks"] == []
    assert [check["code"] for check in document["checks"]] == [check.code for check in CHECKS]
    assert {frozenset(check) for check in document["checks"]} == {
        frozenset({"code", "status", "detail"})
    }


def _edited(files: AuditFiles, folder: Path, edit: Callable[[receipt_pb2.Receipt], object]) -> Path:
    receipt = read_receipt(read_file(files.receipt))
    edit(receipt)
    path = folder / "edited.binpb"
    write_file(path, receipt)
    return path


@pytest.mark.parametrize(
    ("edit", "failed", "fault"),
    [
        (lambda r: setattr(r, "answer", b"other"), "ANSWER_DIGEST", "unattributed"),
        (lambda r: setattr(r, "request", b"other"), "REQUEST_DIGEST", "unattributed"),
        (lambda r: setattr(r, "client_nonce", bytes(32)), "CLIENT_NONCE", "unattributed"),
        (lambda r: setattr(r.billed, "reasoning_tokens", 1), "BILL", "unattributed"),
        (lambda r: setattr(r.commitment, "payload", b""), "SIGNATURE", "unattributed"),
    ],
    ids=["answer", "request", "nonce", "bill", "signature"],
)
def test_a_receipt_that_contradicts_itself_is_code_1(
    coin: Coin,
    audited: tuple[Parties, AuditFiles],
    tmp_path: Path,
    edit: Callable[[receipt_pb2.Receipt], object],
    failed: str,
    fault: str,
) -> None:
    _, files = audited
    path = _edited(files, tmp_path, edit)
    done = coin("receipt", "verify", path, *files.options)
    assert done.code == 1
    assert failed in done.out
    again = coin("receipt", "verify", path, *files.options, "--json")
    assert again.code == 1
    document = again.document
    assert document["outcome"] == "FAIL"
    assert document["failed_checks"] == [failed]
    assert document["fault"] == fault
    assert document["detail"]


def test_a_receipt_under_another_root_is_code_1(
    coin: Coin, audited: tuple[Parties, AuditFiles]
) -> None:
    _, files = audited
    done = coin("receipt", "verify", files.receipt, *files.options[2:], "--root", files.verifier)
    assert done.code == 1
    assert "SIGNATURE" in done.out


def test_one_of_several_roots_is_enough(coin: Coin, audited: tuple[Parties, AuditFiles]) -> None:
    _, files = audited
    done = coin("receipt", "verify", files.receipt, "--root", files.verifier, *files.options)
    assert done.code == 0


@pytest.mark.parametrize("block_size", [8, 16])
def test_a_receipt_of_another_profile_is_undecided_code_3(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path, block_size: int
) -> None:
    _, files = audited
    other = small_profile(block_size=block_size, tokens_ppm=1)
    (tmp_path / "profile").write_bytes(other.raw)
    options = [*files.options, "--profile", tmp_path / "profile"]
    done = coin("receipt", "verify", files.receipt, *options, "--json")
    assert done.document["failed_checks"] == ["PROFILE"]
    assert done.document["outcome"] == "INCONCLUSIVE"
    assert done.document["fault"] == "unspecified"
    assert done.code == 3


# Bundles


def test_a_verdict_that_its_evidence_bears_out_is_code_0(
    coin: Coin, audited: tuple[Parties, AuditFiles]
) -> None:
    _, files = audited
    done = coin("bundle", "verify", files.bundle, *files.bundle_options)
    assert done.code == 0
    assert "borne out" in done.said
    document = coin("bundle", "verify", files.bundle, *files.bundle_options, "--json").document
    assert set(document) == {"borne_out", "unchecked", "verdict"}
    assert document["borne_out"] is True
    assert document["unchecked"] == []
    assert document["verdict"]["outcome"] == "OUTCOME_PASS"
    assert document["verdict"]["tier"] == "TIER_TIMED"


def test_a_verdict_of_fail_that_is_borne_out_is_code_0_too(coin: Coin, tmp_path: Path) -> None:
    parties = Parties(profile=small_profile(whole_blocks_ppm=0))
    files = leave_files(
        parties, tmp_path, edit=lambda receipt: setattr(receipt, "answer", b"other")
    )
    done = coin("bundle", "verify", files.bundle, *files.bundle_options)
    assert done.code == 0
    assert "FAIL" in done.out
    assert "ANSWER_DIGEST" in done.out


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
def test_a_verdict_that_lies_is_code_1(
    coin: Coin,
    audited: tuple[Parties, AuditFiles],
    tmp_path: Path,
    lie: Callable[[receipt_pb2.Verdict], object],
) -> None:
    parties, files = audited
    bundle = read_bundle(read_file(files.bundle))
    verdict = read_verdict(bundle.verdict.payload)
    lie(verdict)
    bundle.verdict.CopyFrom(
        envelope.sign(verdict.SerializeToString(), envelope.VERDICT, parties.verifier)
    )
    path = tmp_path / "bundle.binpb"
    write_file(path, bundle)
    assert coin("bundle", "verify", path, *files.bundle_options).code == 1


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


def test_with_models_blocks_opened_whole_are_embedded_again(
    coin: Coin, opened: tuple[Parties, AuditFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = opened
    monkeypatch.setattr("coin_protocol.cli.offline.Models", SmallModels)
    done = coin("bundle", "verify", files.bundle, *files.bundle_options, "--json")
    assert done.code == 0
    assert done.document["borne_out"] is True
    assert done.document["verdict"]["tier"] == "TIER_OPENED"


def test_without_models_what_was_not_checked_is_code_3(
    coin: Coin, opened: tuple[Parties, AuditFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing(SmallModels):
        @property
        def tokenizer(self) -> None:  # type: ignore[override]
            msg = "not installed"
            raise MissingDependencyError(msg)

    _, files = opened
    monkeypatch.setattr("coin_protocol.cli.offline.Models", Missing)
    done = coin("bundle", "verify", files.bundle, *files.bundle_options)
    assert done.code == 3
    assert "not checked here: WHOLE_" in done.said
    document = coin("bundle", "verify", files.bundle, *files.bundle_options, "--json").document
    assert document["borne_out"] is False
    assert set(document["unchecked"]) == {"WHOLE_EMBEDDING", "WHOLE_TEXT"}


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
    bundle = ["bundle", "verify", str(files.bundle), *files.bundle_options]
    for arguments in (
        ["receipt", "verify", str(files.receipt), *files.options],
        bundle,
        [*bundle, "--json"],
    ):
        done = run_coin(*arguments, env=plain)
        assert done.code == 0, done.err
