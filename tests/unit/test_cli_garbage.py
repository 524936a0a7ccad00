"""Files that are garbage give a sentence and code 2, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from coin_protocol.cli.main import build
from coin_protocol.errors import (
    InvalidInputError,
)
from coin_protocol.files import read_file
from coin_protocol.receipt import read_receipt, write_file
from tests.support.command import Coin
from tests.support.files import AuditFiles
from tests.support.parties import Parties

# Files that are garbage


GARBAGE: dict[str, bytes] = {
    "empty": b"",
    "text": b"garbage",
    "bytes": bytes(range(256)) * 3,
    "zeros": bytes(1000),
    "empty object": b"{}",
    "other object": b'{"a": [1, 2, {"b": null}]}',
    "list": b"[]",
    "half an object": b'{"format": "coin.rec',
    "other format": b'{"format": "coin.receipt.v9"}',
    "bare format": b'{"format": "coin.receipt.v1"}',
    "bare bundle": b'{"format": "coin.bundle.v1"}',
    "wrong types": b'{"format": 1, "receipt": []}',
    "deep object": b'{"receipt":' * 5_000,
    "utf-16": '{"format": "coin.receipt.v1"}'.encode("utf-16"),
    "certificate": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "public key": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_in_any_file_is_code_2_and_a_sentence(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path, kind: str
) -> None:
    _, files = audited
    bad = tmp_path / "garbage"
    bad.write_bytes(GARBAGE[kind])
    bundle = [str(files.bundle), *files.options]
    for arguments in (
        ["receipt", "verify", bad, *files.options],
        ["receipt", "verify", files.receipt, "--root", bad],
        ["receipt", "verify", files.receipt, "--root", files.root, "--profile", bad],
        ["receipt", "verify", files.receipt, "--root", files.root, "--policy", bad],
        ["bundle", "verify", bad, *files.bundle_options],
        ["bundle", "verify", *bundle, "--verifier-key", bad],
        ["profile", "show", bad],
        ["policy", "show", bad],
        ["table", "build", "--profile", bad],
        ["audit", bad, "--provider", "127.0.0.1:1", "--root", files.root, "--key", bad,
         "--name", "me"],
        ["audit", files.receipt, "--provider", "127.0.0.1:1", "--root", files.root, "--key", bad,
         "--name", "me"],
        ["verifier", "serve", "--key", bad, "--name", "me", "--provider", "a=127.0.0.1:1",
         "--root", files.root],
    ):  # fmt: skip
        done = coin(*arguments)
        assert done.code == 2, (arguments, done)
        assert "error: " in done.said
        assert "internal" not in done.said


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_cannot_be_read_is_code_2(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path, kind: str
) -> None:
    _, files = audited
    bad = tmp_path if kind == "folder" else tmp_path / "missing"
    for arguments in (
        ["receipt", "verify", bad, *files.options],
        ["receipt", "verify", files.receipt, "--root", bad],
        ["receipt", "verify", files.receipt, "--root", files.root, "--profile", bad],
        ["bundle", "verify", bad, *files.bundle_options],
        ["bundle", "verify", files.bundle, *files.options, "--verifier-key", bad],
        ["profile", "show", bad],
        ["policy", "show", bad],
    ):
        done = coin(*arguments)
        assert done.code == 2, (arguments, done)
        assert "internal" not in done.said


@pytest.mark.parametrize("form", ["binpb", "json"])
def test_a_truncated_file_loses_what_the_client_need_not_keep_at_most(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path, form: str
) -> None:
    _, files = audited
    path = tmp_path / f"receipt.{form}"
    whole = read_receipt(read_file(files.receipt))
    write_file(path, whole)
    raw = path.read_bytes()
    whole.ClearField("answer_first_at")
    whole.ClearField("answer_last_at")
    for at in [*range(0, len(raw), len(raw) // 23), *range(len(raw) - 30, len(raw))]:
        path.write_bytes(raw[:at])
        # A cut between two protobuf fields leaves a well-formed receipt that lacks parts.
        if coin("receipt", "verify", path, *files.options).code not in (1, 2):
            left = read_receipt(raw[:at])
            left.ClearField("answer_first_at")
            assert left == whole


def test_a_receipt_is_no_bundle_and_a_bundle_no_receipt(
    coin: Coin, audited: tuple[Parties, AuditFiles]
) -> None:
    _, files = audited
    assert coin("receipt", "verify", files.bundle, *files.options).code == 2
    assert coin("bundle", "verify", files.receipt, *files.bundle_options).code == 2


def test_with_the_test_runner_of_typer_the_codes_are_the_same(
    audited: tuple[Parties, AuditFiles],
) -> None:
    _, files = audited
    runner = CliRunner()
    sound = runner.invoke(build(), ["receipt", "verify", str(files.receipt), *files.options])
    assert sound.exit_code == 0
    wrong = runner.invoke(build(), ["receipt", "verify", str(files.bundle), *files.options])
    assert isinstance(wrong.exception, InvalidInputError)
