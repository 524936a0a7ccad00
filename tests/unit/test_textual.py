"""Graded evidence of blocks opened whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from coin_protocol.checks import run_checks
from coin_protocol.errors import MissingDependencyError
from coin_protocol.testing.small import SmallTokenizer
from coin_protocol.testing.world import World
from verifier_sdk.semantic import textual_scores


@dataclass(frozen=True)
class Spelling(World):
    """A world whose model always reasons `abab…`, in the ids given."""

    ids: tuple[int, ...] = ()

    def token_ids(self, count: int) -> list[int]:
        return [*self.ids * count][:count]


def shares(ids: list[int]) -> list[float]:
    world = Spelling(ids=tuple(ids))
    case = world.audit(world.reply(tokens=32)).ask_whole(blocks=2).case()
    assert run_checks(case).failed is None
    return [score.value for score in textual_scores(case)]


def test_the_tokenizers_own_ids_are_all_canonical() -> None:
    assert shares(SmallTokenizer().encode("ab")) == [0.0, 0.0]


def test_a_finer_split_of_the_same_text_shows_in_every_id() -> None:
    assert shares(list(b"ab")) == [1.0, 1.0]


def test_only_some_ids_split_finer_show_as_their_share() -> None:
    pair = SmallTokenizer().encode("ab")
    assert shares([*pair, *pair, *b"ab"]) != [0.0, 0.0]
    assert all(0.0 < share < 1.0 for share in shares([*pair, *pair, *b"ab"]))


def test_without_models_it_is_an_error_and_not_a_score() -> None:
    world = World()
    case = world.audit(world.reply()).ask_whole().case()
    with pytest.raises(MissingDependencyError):
        textual_scores(replace(case, installed=None))
