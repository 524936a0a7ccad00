"""How many examples a property is given: some by default, all that a deep run asks for."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

DEEP: Final = 10_000
LONG: Final = 2_000


def register() -> None:
    """Register the profiles: `coin`, `deep` for properties, `long` for state machines."""
    # A busy machine is no failure. The gate tries the same examples each time: a change is not
    # held up by what another one broke; whoever works here, and the deep run, try new ones.
    settings.register_profile("coin", deadline=None, derandomize="CI" in os.environ)
    settings.register_profile("deep", deadline=None, max_examples=DEEP)
    settings.register_profile("long", deadline=None, stateful_step_count=LONG)


def examples(usually: int) -> settings:
    """Return settings with so many examples, or with those of the profile `deep` under it."""
    deep = settings().max_examples >= DEEP
    return settings(deadline=None, max_examples=DEEP if deep else usually)
