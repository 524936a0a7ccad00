"""Every limit of `coin_protocol.limits`, each with what it keeps out; `tests/unit/test_limits.py`
runs them."""

from typing import Final

from tests.support.limit_cases.caps import CAPS, CapCase
from tests.support.limit_cases.case import LimitCase, MadeCase
from tests.support.limit_cases.elsewhere import ELSEWHERE, UNREAD
from tests.support.limit_cases.kept import KEPT
from tests.support.limit_cases.logged import LOGGED
from tests.support.limit_cases.providing import PROVIDING
from tests.support.limit_cases.signed import MADE, SIGNED
from tests.support.limit_cases.verifying import VERIFYING

__all__ = [
    "CAPS",
    "CASES",
    "ELSEWHERE",
    "MADE",
    "UNREAD",
    "CapCase",
    "LimitCase",
    "MadeCase",
]

CASES: Final = (*SIGNED, *KEPT, *LOGGED, *PROVIDING, *VERIFYING)
"""Every module that refuses what is past a limit."""
