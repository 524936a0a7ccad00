"""Receipts and bundles are checked again with the network cut, from files alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from coin_protocol.checks import Case, Trust, run_checks
from coin_protocol.cli.main import build
from coin_protocol.errors import VerificationError
from coin_protocol.files import read_file
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned, pinned_verifiers
from coin_protocol.offline import Rechecked, verify_bundle
from coin_protocol.profile import Policy, Profile
from coin_protocol.receipt import read_bundle, read_receipt
from coin_protocol.testing.small import SmallEmbedder, SmallModels, SmallTokenizer, small_profile
from coin_protocol.v1 import receipt_pb2
from tests.support.files import AuditFiles, leave_files
from tests.support.parties import VERIFIER, Parties


class NetworkUsedError(AssertionError):
    """Something reached for the network."""


@contextmanager
def cut_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make every way to the network raise."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NetworkUsedError

    class Cut(socket.socket):
        def __init__(self, *_: Any, **__: Any) -> None:
            refuse()

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Cut)
        for name in ("create_connection", "create_server", "getaddrinfo", "gethostbyname"):
            patch.setattr(socket, name, refuse)
        yield


@pytest.fixture(params=["binpb", "json"])
def files(request: pytest.FixtureRequest, parties: Parties, tmp_path: Path) -> AuditFiles:
    """What an audit over the network left behind."""
    return leave_files(parties, tmp_path, form=request.param)


@pytest.fixture
def offline(files: AuditFiles, monkeypatch: pytest.MonkeyPatch) -> Iterator[AuditFiles]:
    """The same files, with the network cut."""
    with cut_network(monkeypatch):
        yield files


def trust_of(files: AuditFiles) -> Trust:
    root = VerificationKey.from_pem(ROOT_KEY_NAME, read_file(files.root))
    return Trust([root], pinned_verifiers({VERIFIER: read_file(files.verifier)}))


def recheck(files: AuditFiles, bundle: receipt_pb2.Bundle, *, models: bool = True) -> Rechecked:
    return verify_bundle(
        bundle,
        trust=trust_of(files),
        profile=Profile.from_file(files.profile),
        policy=Policy.from_file(files.policy),
        installed=(SmallTokenizer(), SmallEmbedder()) if models else None,
    )


def test_a_receipt_is_checked_from_files(offline: AuditFiles) -> None:
    case = Case(
        receipt=read_receipt(read_file(offline.receipt)),
        trust=Trust(trust_of(offline).provider_roots, pinned("verifiers", ())),
        profile=Profile.from_file(offline.profile),
        policy=Policy.from_file(offline.policy),
    )
    report = run_checks(case)
    assert report.failed is None, report.detail
    assert report.passed("BILL")


def test_a_bundle_is_checked_from_files(offline: AuditFiles) -> None:
    found = recheck(offline, read_bundle(read_file(offline.bundle)))
    assert found.verdict.outcome == receipt_pb2.OUTCOME_PASS
    assert not found.unchecked
    assert found.report.failed is None


def test_without_models_what_needs_them_is_named(offline: AuditFiles) -> None:
    found = recheck(offline, read_bundle(read_file(offline.bundle)), models=False)
    assert set(found.unchecked) == {"WHOLE_EMBEDDING", "WHOLE_TEXT"}


def test_a_bundle_that_was_tampered_with_is_not_borne_out(offline: AuditFiles) -> None:
    bundle = read_bundle(read_file(offline.bundle))
    bundle.receipt.answer += b"!"
    with pytest.raises(VerificationError):
        recheck(offline, bundle)


def test_the_command_line_checks_receipts_and_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = leave_files(Parties(profile=small_profile(whole_blocks_ppm=0)), tmp_path)
    runner = CliRunner()
    bundle = [str(files.bundle), *files.options, "--verifier-key", str(files.verifier)]
    monkeypatch.setattr("coin_protocol.cli.offline.Models", SmallModels)
    with cut_network(monkeypatch):
        for arguments in (
            ["receipt", "verify", str(files.receipt), *files.options],
            ["bundle", "verify", *bundle],
            ["bundle", "verify", *bundle, "--checks-only"],
            ["profile", "show", str(files.profile)],
            ["policy", "show", str(files.policy)],
        ):
            found = runner.invoke(build(), arguments)
            assert found.exit_code == 0, found.output


def test_the_network_is_cut_while_these_tests_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with cut_network(monkeypatch):
        with pytest.raises(NetworkUsedError):
            socket.create_connection(("127.0.0.1", 1))
        with pytest.raises(NetworkUsedError):
            socket.socket()
