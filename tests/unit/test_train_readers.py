"""Training of the readers: filler made for it, and the same result from the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.support import laboratory
from verifier_sdk.semantic.reader import BLOCK_FAMILIES, RUN_FAMILIES, Readers
from verifier_sdk.training.blocks import BLOCK, INJECTED, JOINT, BlockMaker
from verifier_sdk.training.corpus import Corpus
from verifier_sdk.training.filler import filler_runs, finer, ngram_chain, real_runs
from verifier_sdk.training.readers import train_readers


@cache
def corpus() -> Corpus:
    traces = laboratory.traces()
    library = laboratory.library()
    return Corpus(traces, [library.ids(trace) for trace in traces], laboratory.tokenizer())


def numbers() -> np.random.Generator:
    return np.random.default_rng(4)


def test_real_runs_stand_in_their_traces() -> None:
    rng = numbers()
    drawn = corpus().draw_traces(50, rng)
    for trace, run in zip(drawn, real_runs(corpus(), drawn, rng), strict=True):
        text = corpus().ids[corpus().starts[trace] : corpus().starts[trace + 1]]
        windows = np.lib.stride_tricks.sliding_window_view(text, 4)
        assert (windows == run).all(axis=1).any()


@pytest.mark.parametrize("family", RUN_FAMILIES)
def test_runs_of_each_family_are_made(family: str) -> None:
    drawn = corpus().draw_traces(50, numbers())
    runs = filler_runs(family, corpus(), drawn, numbers())
    assert runs.shape == (50, 4)
    assert runs.dtype == np.uint32
    assert runs.max() < laboratory.tokenizer().vocabulary_size
    assert np.array_equal(runs, filler_runs(family, corpus(), drawn, numbers()))


def test_each_token_of_a_chain_follows_what_is_before_it_or_jumps() -> None:
    ids, jumps = ngram_chain(corpus(), np.array([0, 3]), 60, numbers())
    assert ids.shape == jumps.shape == (2, 60)
    assert 0 < jumps.mean() < 1
    for trace, chain, jumped in zip([0, 3], ids, jumps, strict=True):
        text = corpus().ids[corpus().starts[trace] : corpus().starts[trace + 1]].tolist()
        pairs = set(pairwise(text))
        assert set(chain.tolist()) <= set(text)
        for at in np.flatnonzero(~jumped).tolist():
            assert (chain[at - 1], chain[at]) in pairs


def test_a_finer_spelling_spells_the_same() -> None:
    ids = corpus().ids[:200]
    spelled, origin = finer(corpus(), ids, np.ones(len(ids)), numbers())
    assert len(spelled) > len(ids)
    assert laboratory.spelled(spelled) == laboratory.spelled(ids)
    assert origin.tolist() == sorted(origin.tolist())
    assert set(origin.tolist()) == set(range(len(ids)))


@pytest.mark.parametrize("family", BLOCK_FAMILIES)
def test_blocks_of_each_family_are_marked(family: str) -> None:
    maker = BlockMaker(corpus())
    blocks = maker.filler(family, 12, numbers())
    again = maker.filler(family, 12, numbers())
    assert blocks.ids.shape == blocks.marks.shape == (12, BLOCK)
    assert np.array_equal(blocks.ids, again.ids)
    assert np.array_equal(blocks.marks, again.marks)
    assert (blocks.lengths > 0).all()
    for length, marks in zip(blocks.lengths, blocks.marks, strict=True):
        assert (marks[:length] & (INJECTED | JOINT)).any()
        assert not marks[length:].any()


def test_real_blocks_are_not_marked() -> None:
    blocks = BlockMaker(corpus()).real(12, numbers())
    assert not blocks.marks.any()


def test_questions_weigh_alike_and_domains_have_a_share() -> None:
    weights = corpus().weights
    of_question: dict[str, float] = {}
    for trace, weight in zip(corpus().traces, weights, strict=True):
        of_question[trace.domain + trace.qid] = (
            of_question.get(trace.domain + trace.qid, 0.0) + weight
        )
    domains = {trace.domain for trace in corpus().traces}
    for domain in domains:
        shares = [share for name, share in of_question.items() if name.startswith(domain)]
        assert np.allclose(shares, shares[0])
        assert sum(shares) >= 0.06 - 1e-9


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of several threads may differ in their last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_one_seed_trains_one_pair_of_readers() -> None:
    told: list[tuple[str, int, int]] = []

    def train(seed: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
        return train_readers(
            laboratory.traces(),
            laboratory.tokenizer(),
            laboratory.library(),
            seed=seed,
            run_steps=2,
            block_steps=2,
            progress=lambda *step: told.append(step),
        )

    first, again, other = train(1), train(1), train(2)
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["runs.first.weight"], other["runs.first.weight"])
    assert told[:4] == [("runs", 1, 2), ("runs", 2, 2), ("blocks", 1, 2), ("blocks", 2, 2)]
    readers = Readers.from_tensors(first)
    assert np.isfinite(readers.blocks.read([corpus().ids[:100]])).all()


def test_without_a_trace_of_some_length_there_is_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="8 tokens"):
        Corpus([], [], laboratory.tokenizer())
