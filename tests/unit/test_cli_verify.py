"""`coin receipt verify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from coin_protocol.checks import CHECKS
from coin_protocol.files import read_file
from coin_protocol.receipt import read_receipt, to_json, write_file
from coin_protocol.testing.small import small_profile
from coin_protocol.v1 import receipt_pb2
from tests.support.command import Coin
from tests.support.files import AuditFiles
from tests.support.parties import Parties, reasoning_ids

# Receipts


def test_a_sound_receipt_is_code_0_and_its_count_only_asserted(
    coin: Coin, audited: tuple[Parties, AuditFiles]
) -> None:
    _, files = audited
    done = coin("receipt", "verify", files.receipt, *files.options)
    assert done.code == 0
    assert "Tier: asserted" in done.said
    document = coin("receipt", "verify", files.receipt, *files.options, "--json").document
    assert set(document) == {
        *("outcome", "tier", "failed_checks", "fault", "detail", "checks", "findings", "signed"),
    }
    assert document["outcome"] == "PASS"
    assert document["tier"] == "asserted"
    assert document["failed_checks"] == []
    assert [check["code"] for check in document["checks"]] == [check.code for check in CHECKS]
    assert {frozenset(check) for check in document["checks"]} == {
        frozenset({"code", "status", "detail"})
    }
    assert {name: each["holds"] for name, each in document["findings"].items()} == {
        **dict.fromkeys(("signature", "key_window", "profile", "request", "answer", "bill"), True),
        **dict.fromkeys(("checkpoints", "order", "times", "decode_rate", "timed"), True),
    }
    assert document["signed"]["provider"] == "acme"
    assert document["signed"]["reasoning_tokens"] == str(len(reasoning_ids()))


def test_why_no_times_could_be_earned_is_said_plainly(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    _, files = audited
    path = _edited(files, tmp_path, lambda r: r.ClearField("checkpoints"))
    done = coin("receipt", "verify", path, *files.options)
    assert done.code == 0
    assert "no cannot be earned: the client saw 0 checkpoints of" in done.said


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
        (lambda r: setattr(r.billed, "completion_tokens", 1), "BILL", "unattributed"),
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


def test_a_bill_that_was_told_otherwise_accuses_nobody(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    _, files = audited
    path = _edited(files, tmp_path, lambda r: setattr(r.billed, "completion_tokens", 1))
    said = coin("receipt", "verify", path, *files.options).said
    assert "nobody is shown to be wrong" in said
    assert "Hold the invoice against the signed counts" in said
    assert "Dispute" not in said


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


# Many receipts


def _line(path: Path, response_id: str) -> str:
    receipt = json.loads(to_json(read_receipt(read_file(path))))
    return json.dumps({"response_id": response_id, "receipt": receipt}) + "\n"


def _many(files: AuditFiles, folder: Path) -> Path:
    """Leave one receipt of each kind, in a folder."""
    folder.mkdir()
    bad = _edited(files, folder, lambda r: setattr(r, "answer", b"other"))
    (folder / "lines.jsonl").write_text(
        _line(files.receipt, "chatcmpl-1")
        + _line(bad, "chatcmpl-\x1b[2J2")
        + '{"response_id": "chatcmpl-3", "usage": {"completion_tokens": 7}}\n'
        + '{"half'
    )
    bad.unlink()
    (folder / "receipt.binpb").write_bytes(read_file(files.receipt))
    return folder


def test_of_many_receipts_each_has_a_line_and_the_worst_gives_the_code(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    _, files = audited
    folder = _many(files, tmp_path / "receipts")
    done = coin("receipt", "verify", folder, *files.options)
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["PASS", "FAIL", "NO", "UNREADABLE", "PASS"]
    assert "lines.jsonl:2" in lines[1]
    assert "ANSWER_DIGEST (unattributed)" in lines[1]
    assert "\x1b" not in done.out
    assert lines[5].startswith("4 receipts: 2 sound, 1 failed, 0 undecided, 1 unreadable.")
    assert done.code == 1
    again = coin("receipt", "verify", folder, *files.options, "--json")
    assert again.code == again.document["exit_code"] == 1
    assert again.document["summary"] == {
        "receipts": 4,
        "sound": 2,
        "failed": 1,
        "undecided": 0,
        "unreadable": 1,
        "without_receipt": 1,
        "sound_reasoning_tokens": 2 * len(reasoning_ids()),
    }
    entries = again.document["receipts"]
    assert [each["outcome"] for each in entries] == [
        *("PASS", "FAIL", "NO RECEIPT", "UNREADABLE", "PASS"),
    ]
    assert entries[0]["response_id"] == "chatcmpl-1"
    assert entries[0]["findings"]["timed"]["holds"] is True
    assert entries[1]["failed_checks"] == ["ANSWER_DIGEST"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", 0),
        ('{"response_id": "chatcmpl-3"}\n', 0),
        ("{\n", 2),
    ],
    ids=["alone", "note", "garbage"],
)
def test_without_a_failed_one_the_worst_is_what_cannot_be_read(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path, content: str, code: int
) -> None:
    _, files = audited
    (tmp_path / "more.jsonl").write_text(content)
    done = coin("receipt", "verify", files.receipt, tmp_path / "more.jsonl", *files.options)
    assert done.code == code


def test_receipts_of_another_profile_leave_many_undecided(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    _, files = audited
    (tmp_path / "profile").write_bytes(small_profile(tokens_ppm=1).raw)
    options = [*files.options, "--profile", tmp_path / "profile"]
    done = coin("receipt", "verify", files.receipt, files.receipt, *options)
    assert done.code == 3
    assert "2 undecided" in done.said


def test_notes_alone_leave_nothing_to_decide(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    _, files = audited
    (tmp_path / "notes.jsonl").write_text('{"response_id": "chatcmpl-3"}\n')
    done = coin("receipt", "verify", tmp_path / "notes.jsonl", *files.options)
    assert done.code == 3
    assert "Replies without a receipt: 1" in done.said
