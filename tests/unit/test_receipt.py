"""Receipts and bundles: one file each, in two forms, and nothing else is taken for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from coin_protocol import receipt as module
from coin_protocol.errors import InvalidInputError, LimitError
from coin_protocol.keyset import stamp
from coin_protocol.limits import FILE_BYTES_A_PART, FLIP_CHAIN_LENGTH, NONCE_MAX_BYTES
from coin_protocol.receipt import (
    BUNDLE_FORMAT,
    RECEIPT_FORMAT,
    check_parts,
    check_receipt,
    check_rounds,
    read_bundle,
    read_receipt,
    to_json,
    write_file,
)
from coin_protocol.testing.forgeries import audit, put, refused, unanswered, without
from coin_protocol.testing.world import START, VERIFIER, Edit, World
from coin_protocol.v1 import receipt_pb2 as pb

AUDIT = audit().ask().ask_whole().ask(edit_round=unanswered("DEADLINE_EXCEEDED"))
RECEIPT = AUDIT.reply.receipt
VERDICT = pb.Verdict(
    commitment_sha256=bytes(32),
    profile_sha256=bytes(32),
    policy_sha256=bytes(32),
    verifier=VERIFIER,
    outcome=pb.OUTCOME_FAIL,
    decided_at=stamp(START + timedelta(hours=3)),
)
BUNDLE = pb.Bundle(
    format=BUNDLE_FORMAT,
    receipt=RECEIPT,
    manifest=AUDIT.reply.manifest,
    rounds=AUDIT.rounds,
    whole_rounds=AUDIT.whole_rounds,
    verdict=World().sign(VERDICT, "application/vnd.coin.verdict.v1+protobuf", VERIFIER),
)


def receipt_with(edit: Edit[Any]) -> bytes:
    copy = pb.Receipt()
    copy.CopyFrom(RECEIPT)
    edit(copy)
    return copy.SerializeToString()


def bundle_with(edit: Edit[Any]) -> bytes:
    copy = pb.Bundle()
    copy.CopyFrom(BUNDLE)
    edit(copy)
    return copy.SerializeToString()


def test_a_receipt_reads_back_from_both_forms() -> None:
    assert read_receipt(RECEIPT.SerializeToString()) == RECEIPT
    assert read_receipt(to_json(RECEIPT).encode()) == RECEIPT


def test_a_bundle_reads_back_from_both_forms() -> None:
    assert read_bundle(BUNDLE.SerializeToString()) == BUNDLE
    assert read_bundle(to_json(BUNDLE).encode()) == BUNDLE


def test_signed_bytes_come_back_exactly() -> None:
    found = read_bundle(to_json(BUNDLE).encode())
    assert found.receipt.commitment.payload == RECEIPT.commitment.payload
    assert found.rounds[0].opening.payload == AUDIT.rounds[0].opening.payload


def test_the_json_form_has_the_names_of_the_proto_files_and_its_format_first() -> None:
    document = json.loads(to_json(RECEIPT))
    assert document["format"] == RECEIPT_FORMAT == "coin.receipt.v1"
    assert {"key_set", "client_nonce", "sent_at"} <= document.keys()
    assert json.loads(to_json(BUNDLE))["format"] == "coin.bundle.v1"


@pytest.mark.parametrize("space", [b" ", b"\n\t ", b"\r\n"])
def test_space_before_json_does_not_matter(space: bytes) -> None:
    assert read_receipt(space + to_json(RECEIPT).encode()) == RECEIPT


@pytest.mark.parametrize("name", ["receipt.json", "receipt.binpb", "receipt"])
def test_a_written_file_reads_back_in_the_form_that_its_name_says(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    write_file(path, RECEIPT)
    raw = path.read_bytes()
    assert (raw[:1] == b"{") == name.endswith(".json")
    assert read_receipt(raw) == RECEIPT


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot write"):
        write_file(tmp_path / "missing" / "receipt.json", RECEIPT)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"garbage",
        b"{",
        b"{}",
        b"[]",
        b'{"format": 1}',
        b'{"format": "coin.receipt.v1"',
        b'{"format": "coin.receipt.v1", "unknown": 1}',
        b'{"format": "coin.receipt.v1", "format": "coin.receipt.v1"}',
        b'{"client_nonce": "not base64!"}',
        b'{"sent_at": "yesterday"}',
        b'{"sent_at": "0000-01-01T00:00:00Z"}',
        b'{"format": "\\ud800"}',
        b'{"format": "\xff"}',
        b'{"commitment": 5}',
        b'{"checkpoints": {}}',
        b'{"billed": {"prompt_tokens": -1}}',
        b'{"billed": {"prompt_tokens": 1e999}}',
        b'{"a": ' + b"[" * 10_000,
    ],
)
def test_what_is_not_a_receipt_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read_receipt(raw)
    with pytest.raises(InvalidInputError):
        read_bundle(raw)


@pytest.mark.parametrize("found", ["", "coin.receipt.v2", "coin.bundle.v1", "COIN.RECEIPT.V1"])
def test_another_format_version_is_refused_by_name(found: str) -> None:
    with pytest.raises(InvalidInputError, match=r"wanted 'coin\.receipt\.v1'") as caught:
        read_receipt(receipt_with(put("format", found)))
    assert repr(found) in str(caught.value)


def test_a_bundle_of_another_version_or_with_a_receipt_of_another_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"wanted 'coin\.bundle\.v1'"):
        read_bundle(bundle_with(put("format", "coin.bundle.v2")))
    with pytest.raises(InvalidInputError, match=r"coin\.receipt\.v2"):
        read_bundle(bundle_with(put("receipt.format", "coin.receipt.v2")))


def test_a_receipt_is_no_bundle_and_a_bundle_no_receipt() -> None:
    with pytest.raises(InvalidInputError):
        read_bundle(RECEIPT.SerializeToString())
    with pytest.raises(InvalidInputError):
        read_receipt(BUNDLE.SerializeToString())


@pytest.mark.parametrize("part", ["key_set", "commitment", "sent_at"])
def test_a_receipt_without_a_part_that_it_needs_is_refused(part: str) -> None:
    with pytest.raises(InvalidInputError, match=f"no {part}"):
        read_receipt(receipt_with(without(part)))


@pytest.mark.parametrize(
    "part", ["fingerprints", "checkpoints", "billed", "answer_first_at", "answer_last_at"]
)
def test_a_receipt_may_leave_out_what_the_client_did_not_get(part: str) -> None:
    found = read_receipt(receipt_with(without(part)))
    assert found != RECEIPT


@pytest.mark.parametrize("part", ["receipt", "verdict"])
def test_a_bundle_without_receipt_or_verdict_is_refused(part: str) -> None:
    with pytest.raises(InvalidInputError, match="a receipt and a verdict"):
        read_bundle(bundle_with(without(part)))


def test_a_bundle_is_checked_like_its_receipt() -> None:
    with pytest.raises(InvalidInputError, match="no commitment"):
        read_bundle(bundle_with(lambda bundle: bundle.receipt.ClearField("commitment")))


def bare_checkpoint(receipt: pb.Receipt) -> None:
    receipt.checkpoints[1].ClearField("checkpoint")


def timeless_checkpoint(receipt: pb.Receipt) -> None:
    receipt.checkpoints[1].ClearField("seen_at")


@pytest.mark.parametrize("edit", [bare_checkpoint, timeless_checkpoint])
def test_a_checkpoint_needs_its_envelope_and_its_time(edit: Callable[[pb.Receipt], None]) -> None:
    with pytest.raises(InvalidInputError, match="no envelope or no time"):
        read_receipt(receipt_with(edit))


@pytest.mark.parametrize(
    "path", ["sent_at", "answer_first_at", "answer_last_at", "checkpoints.0.seen_at"]
)
@pytest.mark.parametrize("seconds", [1 << 60, -(1 << 60)])
def test_a_time_out_of_range_is_refused(path: str, seconds: int) -> None:
    with pytest.raises(InvalidInputError, match="1 to 9999"):
        read_receipt(receipt_with(put(f"{path}.seconds", seconds)))


def test_the_first_and_last_times_that_can_be_said_are_read() -> None:
    for time in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)):
        assert read_receipt(receipt_with(put("sent_at", stamp(time)))).sent_at == stamp(time)


@pytest.mark.parametrize("part", ["request", "answer", "summary"])
def test_a_text_past_its_limit_is_refused(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TEXT_BYTES", 100)
    check_receipt(read_receipt(receipt_with(put(part, b"x" * 100))))
    with pytest.raises(LimitError, match=f"receipt's {part} has length 101; at most 100 is read$"):
        read_receipt(receipt_with(put(part, b"x" * 101)))


def test_a_nonce_past_its_limit_is_refused() -> None:
    read_receipt(receipt_with(put("client_nonce", bytes(NONCE_MAX_BYTES))))
    with pytest.raises(LimitError, match=f"receipt's client_nonce .* at most {NONCE_MAX_BYTES} is"):
        read_receipt(receipt_with(put("client_nonce", bytes(NONCE_MAX_BYTES + 1))))


def test_more_checkpoints_than_a_session_can_have_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_CHECKPOINTS", 2)
    assert len(read_receipt(RECEIPT.SerializeToString()).checkpoints) == 2
    monkeypatch.setattr(module, "MAX_CHECKPOINTS", 1)
    with pytest.raises(LimitError, match="receipt's checkpoints has length 2; at most 1 is read"):
        read_receipt(RECEIPT.SerializeToString())


def test_a_file_past_the_limit_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 10)
    with pytest.raises(LimitError, match="at most 10"):
        read_receipt(b"\xff" * 11)
    with pytest.raises(LimitError, match="at most 10"):
        read_bundle(b"{" * 11)


def test_a_file_as_large_as_the_limit_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = RECEIPT.SerializeToString()
    monkeypatch.setattr(module, "MAX_FILE_BYTES", len(raw))
    assert read_receipt(raw) == RECEIPT


def several_answers(entry: pb.Round) -> None:
    entry.no_answer = "DEADLINE_EXCEEDED"


def opened_and_refused(entry: pb.Round) -> None:
    other = pb.Round()
    other.CopyFrom(entry)
    refused(World())(other)
    entry.refusal.CopyFrom(other.refusal)


@pytest.mark.parametrize(
    "edit",
    [without("opening"), without("challenge"), several_answers, opened_and_refused],
    ids=["no answer of any kind", "no challenge", "opening and no answer", "opening and refusal"],
)
@pytest.mark.parametrize("rounds", ["rounds", "whole_rounds"])
def test_a_round_holds_a_challenge_and_exactly_one_answer(rounds: str, edit: Edit[Any]) -> None:
    def edit_bundle(bundle: pb.Bundle) -> None:
        edit(getattr(bundle, rounds)[0])

    with pytest.raises(InvalidInputError, match="round 1 must hold"):
        read_bundle(bundle_with(edit_bundle))


@pytest.mark.parametrize("part", ["{}", "[]", "0", '""', "    {}"])
def test_json_of_millions_of_parts_is_refused_before_it_is_parsed(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_format, "Parse", pytest.fail)
    raw = f'{{"checkpoints": [{",".join([part] * 200_000)}]}}'.encode()
    with pytest.raises(LimitError, match=r"bytes of JSON have \d+ parts; at most \d+ are"):
        read_receipt(raw)


@pytest.mark.parametrize("part", [b"{", b"[", b","])
def test_each_object_list_and_comma_is_a_part(part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SMALL_FILE_PARTS", 10)
    check_parts(part * 10)
    with pytest.raises(LimitError, match="have 11 parts; at most 10 are read"):
        check_parts(part * 11)
    check_parts(part * 11 + bytes(FILE_BYTES_A_PART - 11))


@pytest.mark.parametrize("indent", [None, 2])
def test_many_checkpoints_in_json_are_not_too_many_parts(indent: int | None) -> None:
    many = pb.Receipt()
    many.CopyFrom(RECEIPT)
    many.checkpoints.extend(list(RECEIPT.checkpoints) * 3_000)
    compact = json.dumps(json.loads(to_json(many)), indent=indent, separators=(",", ":"))
    assert len(read_receipt(compact.encode()).checkpoints) == len(many.checkpoints)


def test_an_empty_word_on_why_nothing_came_is_an_answer_still() -> None:
    read_bundle(bundle_with(put("rounds.1.no_answer", "")))


@pytest.mark.parametrize("path", ["rounds.0.sent_at", "whole_rounds.0.received_at"])
def test_a_round_with_a_time_out_of_range_is_refused(path: str) -> None:
    with pytest.raises(InvalidInputError, match="1 to 9999"):
        read_bundle(bundle_with(put(f"{path}.seconds", 1 << 60)))


def test_there_are_no_more_rounds_than_flips() -> None:
    check_rounds([AUDIT.rounds[0]] * FLIP_CHAIN_LENGTH)
    with pytest.raises(LimitError, match="at most 64"):
        check_rounds([AUDIT.rounds[0]] * (FLIP_CHAIN_LENGTH + 1))


def test_errors_quote_little_of_what_they_refuse() -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_receipt(receipt_with(put("format", "x" * 10_000)))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("read", "kind"), [(read_receipt, "receipt"), (read_bundle, "bundle")])
@pytest.mark.parametrize(
    "raw",
    [b"{", b'{"x": 1}', b'{"' + b"x" * 10_000 + b'": 1}', b"garbage"],
    ids=["cut off", "unknown", "long", "no protobuf"],
)
def test_an_error_says_what_was_to_be_read_and_a_line_of_why(
    read: Callable[[bytes], Any], kind: str, raw: bytes
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read(raw)
    line = str(caught.value.__cause__).splitlines()[0]
    assert line
    assert str(caught.value) == f"not a {kind}: {line[:200]}"


@pytest.mark.parametrize("time", ["sent_at", "received_at"])
def test_a_round_says_when_it_was_sent_and_answered(time: str) -> None:
    with pytest.raises(InvalidInputError, match="round 1 does not say when it was sent and"):
        read_bundle(bundle_with(lambda bundle: bundle.rounds[0].ClearField(time)))
