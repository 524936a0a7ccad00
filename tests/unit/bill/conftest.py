"""Fixtures for bills."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer

from coin_protocol.cli.common import guarded
from tests.support.command import Coin, Done
from tests.unit.bill.making import PROFILE, Provider
from verifier_sdk.bill.cli import app


@pytest.fixture(scope="session")
def acme() -> Provider:
    """A provider."""
    return Provider()


@pytest.fixture
def root(acme: Provider, tmp_path: Path) -> list[str | Path]:
    """Options that pin the provider's root, and name the profile of its receipts."""
    (tmp_path / "root.pub.pem").write_bytes(acme.root_pem)
    (tmp_path / "small.profile.binpb").write_bytes(PROFILE.raw)
    return ["--root", tmp_path / "root.pub.pem", "--profile", tmp_path / "small.profile.binpb"]


@pytest.fixture
def bill(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Coin:
    """`coin bill` in this process, as the entry point adds it to `coin`."""

    def run(*arguments: str | Path) -> Done:
        coin = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
        coin.callback()(lambda: None)
        coin.add_typer(app, name="bill")
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["coin", "bill", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            sys.exit(guarded(coin))
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        assert "Traceback" not in out + err
        return Done(code, out, err)

    return run
