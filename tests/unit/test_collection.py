"""Receipts kept together are read one by one, and what is none is named with its place."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from coin_protocol.collection import collected, is_collection
from coin_protocol.errors import InvalidInputError
from coin_protocol.receipt import BUNDLE_FORMAT, to_json, write_file
from coin_protocol.testing.world import World
from coin_protocol.v1 import receipt_pb2

RECEIPT = World().reply(tokens=20).receipt


def line(receipt: receipt_pb2.Receipt = RECEIPT, **named: Any) -> bytes:
    document = json_format.MessageToDict(receipt, preserving_proto_field_name=True)
    return json.dumps({"response_id": "chatcmpl-1", **named, "receipt": document}).encode()


def test_files_of_either_form_are_read(tmp_path: Path) -> None:
    for name in ("b.json", "a.binpb"):
        write_file(tmp_path / name, RECEIPT)
    for paths in ([tmp_path], [tmp_path / "a.binpb", tmp_path / "b.json"]):
        found = list(collected(paths))
        assert [Path(each.name).name for each in found] == ["a.binpb", "b.json"]
        assert [each.receipt for each in found] == [RECEIPT, RECEIPT]
        assert not any(each.problem for each in found)


def test_lines_are_read_each_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    bare = json_format.MessageToJson(RECEIPT, preserving_proto_field_name=True, indent=None)
    note = {"response_id": "chatcmpl-2", "usage": {"completion_tokens": 5}}
    path.write_bytes(
        b"\n".join([line(), b"", bare.encode(), json.dumps(note).encode(), b"[1]", b'{"rece'])
    )
    found = list(collected([path]))
    assert [each.name.rpartition(":")[2] for each in found] == ["1", "3", "4", "5", "6"]
    assert [each.receipt is not None for each in found] == [True, True, False, False, False]
    assert found[0].response_id == "chatcmpl-1"
    assert (found[2].response_id, found[2].problem) == ("chatcmpl-2", "")
    assert "not a receipt" in found[3].problem
    assert "cut off" in found[4].problem


@pytest.mark.parametrize("receipt", [5, "coin.receipt.v1", [], {}, {"format": "coin.receipt.v9"}])
def test_a_line_whose_receipt_is_none_is_a_problem(tmp_path: Path, receipt: object) -> None:
    path = tmp_path / "receipts.jsonl"
    path.write_text(json.dumps({"response_id": 7, "receipt": receipt}) + "\n")
    (found,) = collected([path])
    assert found.receipt is None
    assert found.response_id == ""
    assert found.problem


def test_a_line_past_the_limit_is_skipped_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coin_protocol.collection.MAX_COLLECTED_BYTES", len(line()) + 1)
    path = tmp_path / "receipts.jsonl"
    path.write_bytes(b"x" * 5 * len(line()) + b"\n" + line() + b"\n")
    large, kept = collected([path])
    assert "more than" in large.problem
    assert kept.receipt == RECEIPT
    assert kept.name.endswith(":2")


def test_what_is_still_being_written_and_other_files_are_left_alone(tmp_path: Path) -> None:
    write_file(tmp_path / "a.json", RECEIPT)
    for name in ("b.json.part", ".c.json", "asserted.jsonl.lock", "readme.md"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / ".kept").mkdir()
    write_file(tmp_path / ".kept" / "a.json", RECEIPT)
    (found,) = collected([tmp_path])
    assert found.receipt == RECEIPT


def test_a_file_that_is_no_receipt_is_a_problem_and_the_next_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"{}")
    write_file(tmp_path / "b.json", RECEIPT)
    bad, good = collected([tmp_path])
    assert "format" in bad.problem
    assert good.receipt == RECEIPT


def test_audits_are_read_as_well_and_so_are_folders_below(tmp_path: Path) -> None:
    bundle = receipt_pb2.Bundle(format=BUNDLE_FORMAT, receipt=RECEIPT)
    bundle.verdict.payload = b"not looked at"
    (tmp_path / "october" / "first").mkdir(parents=True)
    for name in ("a.bundle", "october/b.json", "october/first/C.BINPB"):
        write_file(tmp_path / name, bundle)
    found = list(collected([tmp_path]))
    assert [each.message for each in found] == [bundle] * 3
    assert [each.receipt for each in found] == [RECEIPT] * 3
    path = tmp_path / "audits.ndjson"
    path.write_text(json.dumps(json.loads(to_json(bundle))) + "\n")
    assert [each.message for each in collected([path])] == [bundle]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.json")
    for path in (tmp_path, tmp_path / "r.json"):
        assert [each.problem for each in collected([path])] == ["it is no file"]


def test_json_of_millions_of_parts_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    path.write_bytes(b'{"response_id": "a", "receipt": [' + b"{}," * 100_000 + b"{}]}\n" + line())
    bomb, kept = collected([path])
    assert "parts" in bomb.problem
    assert kept.receipt == RECEIPT


def test_what_cannot_be_read_is_a_problem_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/r.json", "b/r.json"):
        (tmp_path / name).parent.mkdir()
        write_file(tmp_path / name, RECEIPT)
    scan = os.scandir

    def refused(path: str) -> Any:
        if Path(path).name == "a":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    # As root, nothing is unreadable.
    monkeypatch.setattr(os, "scandir", refused)
    kept, problem = collected([tmp_path])
    assert kept.receipt == RECEIPT
    assert (Path(problem.name).name, problem.problem) == ("a", "cannot be read: Permission denied")


def test_a_folder_without_receipts_holds_none_and_a_path_without_anything_is_an_error(
    tmp_path: Path,
) -> None:
    assert list(collected([tmp_path])) == []
    for missing in ("missing.jsonl", "missing.json"):
        with pytest.raises(InvalidInputError, match="cannot read"):
            list(collected([tmp_path / missing]))


def test_collections_are_told_by_their_names(tmp_path: Path) -> None:
    assert is_collection(tmp_path)
    assert is_collection(tmp_path / "a.jsonl")
    assert is_collection(tmp_path / "A.NDJSON")
    assert not is_collection(tmp_path / "a.json")


def test_what_was_found_shows_nothing_of_the_conversation(tmp_path: Path) -> None:
    write_file(tmp_path / "a.json", RECEIPT)
    (found,) = collected([tmp_path])
    assert RECEIPT.request.decode() not in repr(found)
