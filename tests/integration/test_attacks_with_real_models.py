"""The attacks over the models of the profile that ships."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from coin_protocol.embedding import embed_texts
from coin_protocol.models import Models
from coin_protocol.profile import Profile
from coin_protocol.tokenizer import Tokenizer, noncanonical_tokens, text_of
from tests.support.laboratory import traces
from verifier_sdk.lab import ATTACKS, Attacked, Library, Material, apply_attack
from verifier_sdk.lab.attacks.text import cut_sentences, ordinary_ids
from verifier_sdk.lab.attacks.vocabulary import random_vocabulary

pytestmark = pytest.mark.models

CHEAP = {name: found for name, found in ATTACKS.items() if not found.costly}
CASES = [(name, placement) for name, found in CHEAP.items() for placement in found.placements]
CANONICAL = set(CHEAP) - {
    *("random_vocabulary", "bag_of_own_tokens", "ngram_text", "forged_vectors"),
    "finer_tokenization",
}
"""Attacks whose filler is text as a tokenizer writes it."""


@pytest.fixture(scope="module")
def shared() -> Library:
    models = Models(Profile.shipped("default"))

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return embed_texts(models.embedder, texts).astype(np.float32)

    # The first question was answered by two models.
    found = [traces()[number] for number in (0, 10, 3, 6)]
    return Library(found, models.tokenizer, embed)


def target(shared: Library, number: int = 0) -> Material:
    trace = shared.traces[number]
    return Material(trace, shared.ids(trace), shared.tokenizer, shared, seed=1)


def applied(shared: Library, name: str, placement: str) -> Attacked:
    return apply_attack(name, target(shared), rate=0.5, placement=placement, block_size=256)


def spelled(tokenizer: Tokenizer, attacked: Attacked) -> bytes:
    return b"".join(map(tokenizer.token_bytes, attacked.ids.tolist()))


@pytest.mark.parametrize("name", sorted(CANONICAL))
def test_filler_is_tokenized_as_honest_text_is(shared: Library, name: str) -> None:
    attacked = applied(shared, name, "appended")
    filler = attacked.ids[attacked.injected].tolist()
    assert noncanonical_tokens(shared.tokenizer, filler) < 0.05 * len(filler)


@pytest.mark.parametrize("placement", ATTACKS["finer_tokenization"].placements)
def test_a_finer_tokenization_is_the_same_text(shared: Library, placement: str) -> None:
    attacked = applied(shared, "finer_tokenization", placement)
    assert spelled(shared.tokenizer, attacked) == shared.traces[0].reasoning.encode()
    assert noncanonical_tokens(shared.tokenizer, attacked.ids.tolist()) > 0.3 * len(attacked.ids)


def test_random_ids_are_no_control_ids(shared: Library) -> None:
    ids = ordinary_ids(shared.tokenizer)
    assert ids.min() == 1_000
    assert len(ids) > 130_000
    stream = random_vocabulary(target(shared), np.random.default_rng(0))
    assert all(int(next(stream)[0]) >= 1_000 for _ in range(1_000))


@pytest.mark.parametrize("number", range(4))
def test_real_ids_are_cut_behind_sentences(shared: Library, number: int) -> None:
    ids = target(shared, number).ids
    pieces = cut_sentences(shared.tokenizer, ids)
    assert np.concatenate(pieces).tolist() == ids.tolist()
    ends = [text_of(shared.tokenizer, piece.tolist()).rstrip(" \"'*`)")[-1:] for piece in pieces]
    assert sum(end in ".!?\n" for end in ends) > 0.9 * len(pieces)
    assert max(map(len, pieces)) <= 128


@pytest.mark.parametrize(("name", "placement"), CASES)
def test_one_attack_is_the_same_twice(shared: Library, name: str, placement: str) -> None:
    first, again = applied(shared, name, placement), applied(shared, name, placement)
    assert first.ids.tolist() == again.ids.tolist()
    assert first.injected.tolist() == again.injected.tolist()
