"""`from_type` knows the public classes, and knowing them costs nothing until they are there."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coin_protocol.checks import run_checks
from coin_protocol.profile import Profile
from coin_protocol.testing import strategies as coin
from coin_protocol.testing.strategies.registering import TYPES
from coin_protocol.testing.world import Audit
from coin_protocol.v1 import statements_pb2

coin.register()

FEW = settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
CLASSES = [(module, name) for module, names in TYPES.items() for name in names]


@pytest.mark.parametrize(("module", "name"), CLASSES, ids=lambda part: part)
def test_from_type_draws_each_public_class(module: str, name: str) -> None:
    kind = getattr(import_module(module), name)

    @FEW
    @given(st.from_type(kind))
    def holds(found: Any) -> None:
        assert isinstance(found, kind)

    holds()


@given(st.from_type(Audit))
@FEW
def test_what_from_type_draws_is_what_the_strategy_draws(audit: Audit) -> None:
    assert run_checks(audit.case()).failed is None


@FEW
@given(...)
def test_annotations_are_enough(profile: Profile, message: statements_pb2.Commitment) -> None:
    assert Profile.from_bytes(profile.raw) == profile
    assert message.HasField("usage")


def test_registering_again_leaves_what_somebody_else_registered() -> None:
    mine = Profile.shipped("default")
    try:
        st.register_type_strategy(Profile, st.just(mine))
        coin.register()
        coin.register()

        @FEW
        @given(st.from_type(Profile))
        def holds(found: Profile) -> None:
            assert found is mine

        holds()
    finally:
        st.register_type_strategy(Profile, coin.profiles())
    finders = [one for one in sys.meta_path if type(one).__module__ == coin.register.__module__]
    assert len(finders) == 1


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(getattr(coin, name).__doc__ for name in coin.__all__)
    assert list(coin.__all__) == sorted(coin.__all__, key=lambda name: (name.lower() == name, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = coin.nothing


# In a process of its own, since this one has imported everything.

HOOKED = """
import sys
from importlib.metadata import EntryPoint
import hypothesis
from hypothesis import strategies as st

hook = EntryPoint("coin", "coin_protocol.testing.strategies:register", "hypothesis").load()
hook()
hook()
{then}
"""


def run(then: str) -> str:
    code = HOOKED.format(then=then)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_the_hook_imports_nothing_heavy() -> None:
    loaded = run("print(*sys.modules)").split()
    heavy = {"google.protobuf", "numpy", "cryptography", "grpc", "provider_sdk", "verifier_sdk"}
    assert "coin_protocol.testing.strategies.registering" in loaded
    assert not heavy & set(loaded)


def test_a_class_that_is_imported_after_the_hook_is_known() -> None:
    then = """
from importlib.util import find_spec
source = find_spec("coin_protocol.profile").loader.get_source("coin_protocol.profile")
from coin_protocol import profile
assert "class Profile" in source
assert type(profile.__loader__).__name__ == "SourceFileLoader", profile.__loader__
assert profile.__spec__.loader is profile.__loader__
found = []
hypothesis.find(st.from_type(profile.Profile), lambda one: found.append(one) or True)
print(found[-1].message.name)
"""
    assert run(then) == "small\n"


@pytest.mark.parametrize("module", [name for name in TYPES if ".strategies." in name])
def test_a_module_of_strategies_may_be_imported_before_hypothesis(module: str) -> None:
    (name, *_) = TYPES[module]
    code = f"""
from {module} import {name}
from hypothesis import find, strategies as st
print(type(find(st.from_type({name}), lambda _: True)).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"{name}\n", done.stderr


def test_strategies_import_no_sdk() -> None:
    then = """
from coin_protocol.testing import strategies
for name in strategies.__all__:
    getattr(strategies, name)
print(*sys.modules)
"""
    loaded = set(run(then).split())
    assert not {"provider_sdk", "verifier_sdk", "torch", "grpc"} & loaded
    assert "coin_protocol.testing.strategies.world" in loaded


def test_the_entry_point_names_something_that_can_be_called() -> None:
    name = "coin_protocol.testing.strategies:register"
    assert EntryPoint("coin", name, "hypothesis").load() is coin.register
