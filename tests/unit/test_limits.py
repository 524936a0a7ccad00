"""Every limit: what is at it is taken, what is past it is refused, and nothing else would do so."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from coin_protocol import draw, limits
from coin_protocol.checks import run_checks
from coin_protocol.errors import CoinError
from coin_protocol.profile import Profile
from coin_protocol.testing.forgeries import put
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import World
from coin_protocol.v1 import opening_pb2, profile_pb2
from provider_sdk.provider import RefusedChallengeError
from tests.support.limit_cases import (
    CAPS,
    CASES,
    ELSEWHERE,
    MADE,
    UNREAD,
    CapCase,
    LimitCase,
    MadeCase,
)

EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def hold(monkeypatch: pytest.MonkeyPatch, case: LimitCase | MadeCase, value: int) -> None:
    """Have the module keep another limit."""
    monkeypatch.setattr(import_module(case.module), case.limit, value)


ALL: tuple[LimitCase | MadeCase, ...] = (*CASES, *MADE)
ROOT = Path(__file__).parents[2]
PACKAGES = ("coin_protocol", "provider_sdk", "verifier_sdk")
KIT = "coin_protocol.testing"
"""Tests what others read, and reads nothing by itself."""


def imported() -> Iterator[tuple[str, str]]:
    """Yield module and name wherever a limit is imported."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            source = path.read_text()
            if limits.__name__ not in source:
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(part for part in parts if part != "__init__")
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ImportFrom) and node.module == limits.__name__:
                    yield from ((module, alias.name) for alias in node.names)


@EACH
def test_what_is_at_a_limit_is_taken(case: LimitCase, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(monkeypatch, case, case.size)
    case.read(case.size)


@EACH
def test_what_is_past_a_limit_is_refused_in_a_sentence(
    case: LimitCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, case, case.size)
    for size in case.refused:
        with pytest.raises(CoinError, match=case.says):
            case.read(size)


@EACH
def test_without_the_limit_it_is_taken_or_meets_the_next_one(
    case: LimitCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, case, case.lifted)
    for size in case.refused:
        if not case.behind:
            case.read(size)
            continue
        with pytest.raises((CoinError, ValueError), match=case.behind) as caught:
            case.read(size)
        assert not re.search(case.says, str(caught.value))


@pytest.mark.parametrize("case", MADE, ids=lambda case: case.name)
def test_what_is_made_has_the_size_that_everybody_else_makes(
    case: MadeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert case.make() == case.wanted()
    for other in (-1, 1):
        hold(monkeypatch, case, getattr(limits, case.limit) + other)
        assert case.make() != case.wanted()


@pytest.mark.parametrize("case", CAPS, ids=lambda case: case.cap)
def test_a_cap_of_the_profile_alone_keeps_the_rest_closed(case: CapCase) -> None:
    case.opened(case.most, capped=True)
    with pytest.raises(RefusedChallengeError, match=f"past the cap of {case.most}"):
        case.opened(case.most + 1, capped=True)
    case.opened(case.most + 1, capped=False)


def test_how_long_a_run_is_says_the_profile_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = World(profile=small_profile(run_tokens=1)).reply()
    sent: list[opening_pb2.Challenge] = []

    def opened_in_runs(opening: opening_pb2.Opening) -> None:
        keeps = asked.opener
        drawn = draw.drawn_by(sent[0], opening.flip, keeps.token_counts, run_tokens=4)
        put("blocks", [keeps.block(block) for block in drawn.blocks])(opening)

    audit = asked.world.audit(asked)
    asking = audit.ask(tokens_per_block=4, edit_challenge=sent.append, edit_opening=opened_in_runs)
    report = run_checks(asking.case())
    assert report.failed is not None
    assert report.failed.code == "DRAW"
    monkeypatch.setattr(Profile, "run_tokens", 4)
    assert run_checks(asking.case()).failed is None


# The rule: every name of `limits`, wherever it is imported, and the profile's exposure caps.


def test_every_limit_has_a_case() -> None:
    names = {name for name, value in vars(limits).items() if isinstance(value, int)}
    assert {case.limit for case in ALL} == names


def test_every_module_with_a_limit_has_a_case_or_says_which_test_has_it() -> None:
    cases = {(case.module, case.limit) for case in ALL}
    named = {*ELSEWHERE, *UNREAD}
    assert not cases & named
    assert not ELSEWHERE.keys() & UNREAD.keys()
    found = {(module, name) for module, name in imported() if not module.startswith(KIT)}
    assert found == cases | named


def test_every_cap_has_a_case() -> None:
    fields = {field.name for field in profile_pb2.ExposureCaps.DESCRIPTOR.fields}
    assert fields == {case.cap for case in CAPS} | {"run_tokens"}


def test_a_limit_is_what_its_modules_hold() -> None:
    for case in ALL:
        held = getattr(import_module(case.module), case.limit)
        assert held == getattr(limits, case.limit), case.name
