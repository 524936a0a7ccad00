"""Fixtures and rules for all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from coin_protocol.cli.main import main
from coin_protocol.profile import Profile
from coin_protocol.table import table_path
from coin_protocol.testing.small import small_profile
from provider_sdk.provider import Provider
from tests.support import examples
from tests.support.certificates import Certificates, make_certificates
from tests.support.command import Coin, Done
from tests.support.files import AuditFiles, leave_files
from tests.support.parties import Parties

try:
    import coverage
except ImportError:
    coverage = None  # type: ignore[assignment]

_NOT_OF_THE_CORE = (
    *("e2e", "integration/gateway", "integration/node", "unit/gateway", "unit/lab", "unit/log"),
    *("unit/memory", "unit/node", "unit/semantic", "unit/store", "unit/training", "unit/web"),
)
"""Folders of tests of the SDKs."""

examples.register()
settings.load_profile("coin")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of the real models where their table would have to be built first."""
    cached = table_path(Profile.shipped("default").message).exists()
    if cached or os.environ.get("CI"):
        return
    skip = pytest.mark.skip(reason="no cached token table: run `coin table build` first")
    for item in items:
        if "models" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="module")
def coverage_of_the_core(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measure coverage where the core's own tests run: it makes tests take half as long again."""
    measuring = coverage.Coverage.current() if coverage else None
    folder = request.path.parent.relative_to(Path(__file__).parent)
    if measuring is None or not any(map(folder.is_relative_to, _NOT_OF_THE_CORE)):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        # By which processes that tests start learn that they are measured.
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        measuring.stop()
        yield
        measuring.start()


@pytest.fixture
def parties() -> Parties:
    """Keys and rules of a provider and two verifiers."""
    return Parties()


@pytest.fixture
def provider(parties: Parties) -> Iterator[Provider]:
    """An honest provider over the small models."""
    with parties.provider() as provider:
        yield provider


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for mutual TLS on this machine."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def coin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Coin:
    """`coin` in this process, through its real entry point."""

    def run(*arguments: str | Path) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["coin", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        assert "Traceback" not in out + err
        return Done(code, out, err)

    return run


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Parties, AuditFiles]:
    """A passed audit under a profile that lets no block be opened whole."""
    parties = Parties(profile=small_profile(whole_blocks_ppm=0))
    return parties, leave_files(parties, tmp_path_factory.mktemp("audited"))


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Parties, AuditFiles]:
    """A passed audit with a block opened whole."""
    parties = Parties()
    return parties, leave_files(parties, tmp_path_factory.mktemp("opened"))
