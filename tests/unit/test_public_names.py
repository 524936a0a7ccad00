"""The package's public names, which are loaded when first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import coin_protocol


@pytest.mark.parametrize("name", coin_protocol.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(coin_protocol, name).__name__ if name != "CHECKS" else coin_protocol.CHECKS


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = coin_protocol.nothing


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import coin_protocol, sys; print(*sys.modules)"
    run = [sys.executable, "-c", code]
    loaded = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "grpc", "google.protobuf", "cryptography", "typer"} & set(loaded)
