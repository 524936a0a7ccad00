"""Every statement verifies, whatever becomes of its key; keys that err are found out."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from coin_protocol.testing.machines.rotation import RotationMachine
from tests.machines.systems import FOUND_OUT, fewer, finding, tried
from tests.machines.systems.provider_broken import (
    CountsFromOne,
    DropsEndedKeys,
    LeavesNoOverlap,
    ServesOldSet,
    SignsWithEndedKey,
    SignsWithFirstKey,
    TakesRevocationsBack,
)
from tests.machines.systems.provider_keys import FolderKeys, RulesKeys


class OfRules(RotationMachine):
    make = RulesKeys


class OfFolder(RotationMachine):
    make = FolderKeys


TestRotationOfRules = tried(OfRules, settings())
TestRotationOfAFolder = tried(OfFolder, fewer(5))

BROKEN = (
    SignsWithEndedKey,
    SignsWithFirstKey,
    CountsFromOne,
    DropsEndedKeys,
    ServesOldSet,
    LeavesNoOverlap,
    TakesRevocationsBack,
)


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_keys_are_found_out(kind: type[RulesKeys]) -> None:
    class OfBroken(RotationMachine):
        make = kind

    with pytest.raises(FOUND_OUT):
        run_state_machine_as_test(OfBroken, settings=finding())
