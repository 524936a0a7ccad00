"""The attack laboratory: what cheating providers do, applied to real traces.

    from verifier_sdk.lab import ATTACKS, Library, Material, apply_attack, read_traces

Others add attacks with `filler` or `attack`; see `verifier_sdk.lab.attack`.
"""

from verifier_sdk.lab import attacks as _attacks  # noqa: F401 - defines them
from verifier_sdk.lab.attack import (
    ATTACKS,
    PLACEMENTS,
    RATES,
    Attack,
    Attacked,
    Material,
    NotApplicableError,
    apply_attack,
    attack,
    family_of,
    filler,
    inject,
    named_attack,
)
from verifier_sdk.lab.library import Library, sentences
from verifier_sdk.lab.trace import SPLITS, Trace, read_traces, split

__all__ = [
    "ATTACKS",
    "PLACEMENTS",
    "RATES",
    "SPLITS",
    "Attack",
    "Attacked",
    "Library",
    "Material",
    "NotApplicableError",
    "Trace",
    "apply_attack",
    "attack",
    "family_of",
    "filler",
    "inject",
    "named_attack",
    "read_traces",
    "sentences",
    "split",
]
