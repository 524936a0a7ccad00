"""From traces to a judge and to results, over the models of the laboratory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from coin_protocol.errors import InvalidInputError
from tests.support.judges import evidence as opened_of
from tests.support.judges import heads as small_heads
from tests.support.judges import learned_rules
from tests.support.laboratory import profile, tokenizer, trace, written
from tests.support.workshops import quiet, workshop
from verifier_sdk.lab import ATTACKS, RATES, SPLITS, Trace, split
from verifier_sdk.semantic.calibration import TIERS
from verifier_sdk.semantic.heads import UNKNOWN_SUBJECT
from verifier_sdk.semantic.judge import OpenedEvidence
from verifier_sdk.semantic.learned import LearnedJudge, answer_reading, decide
from verifier_sdk.semantic.measure import measure
from verifier_sdk.semantic.model_file import SHIPPED, ModelFile, space_of
from verifier_sdk.semantic.reader import Readers
from verifier_sdk.training import pipeline
from verifier_sdk.training.card import CARD, write_judge
from verifier_sdk.training.evaluate import Scope, evaluate, plans_of
from verifier_sdk.training.fit import fit
from verifier_sdk.training.heads import SUBJECTS, _prompts
from verifier_sdk.training.pipeline import (
    Size,
    Trained,
    judge_audits,
    make_answer_limit,
    train,
)
from verifier_sdk.training.plans import honest_plans
from verifier_sdk.training.results import SessionResult
from verifier_sdk.training.workshop import MAX_TOKENS, Plan, Workshop

TRACES = [*written(12), *written(10, domain="code")]
TINY = replace(Size.small(), steps=1e-3)


@pytest.fixture(scope="module")
def shop() -> Workshop:
    """A workshop of questions of two domains."""
    return workshop(TRACES)


@pytest.fixture(scope="module")
def trained(shop: Workshop) -> Trained:
    """A judge that saw every part of the training for a step or a few."""
    return train(shop, TRACES, size=TINY, seed=1, progress=quiet)


@pytest.fixture(scope="module")
def judge(trained: Trained) -> LearnedJudge:
    """The judge that it makes."""
    return LearnedJudge(
        trained.heads, trained.readers, trained.detectors, dict(trained.calibrations), tokenizer(),
        learned_rules(), trained.answer_limit,
    )  # fmt: skip


# Training


def test_prompts_are_told_apart_by_domain() -> None:
    asked = [replace(one, question=f"{one.domain} puzzle, number {one.qid}") for one in TRACES]
    shop = workshop(asked)
    rows, labels, weights = _prompts(shop, [*asked, *asked])
    assert rows.shape == (len(TRACES), shop.models.profile.message.embedding.projection.dimension)
    assert weights.min() == 1.0
    network = fit(rows, labels, weights, recipe=SUBJECTS.scaled(0.2), seed=1)
    heads = replace(small_heads(), subjects=network)
    domains = sorted({one.domain for one in TRACES})
    for one in asked:
        prompt = shop.visible(one).prompt
        assert prompt is not None
        assert domains[heads.subject_of(prompt.embedding)] == one.domain
    assert heads.subject_of(None) == UNKNOWN_SUBJECT


def test_the_domains_with_most_questions_are_subjects_and_no_more() -> None:
    many = [replace(one, domain=f"domain {at % 17:02}") for at, one in enumerate(TRACES)]
    _, labels, _ = _prompts(workshop(many), many)
    assert labels.shape == (len(TRACES), 16)
    # The last of the 17 has one question, as others have, and is left out.
    assert sorted(labels.sum(axis=1).tolist()) == [0.0] + [1.0] * (len(TRACES) - 1)


def test_without_prompts_there_are_no_subjects() -> None:
    silent = [replace(one, question="") for one in TRACES]
    with pytest.raises(InvalidInputError, match="give traces with questions"):
        _prompts(workshop(silent), silent)


def test_most_answers_read_below_the_limit(trained: Trained) -> None:
    long = [replace(one, answer=" ".join(one.reasoning.split()[:300])) for one in TRACES]
    limit = make_answer_limit(trained.readers, long, tokenizer())
    below = [
        reading <= limit
        for one in long
        for ids in [np.array(tokenizer().encode(one.answer), np.uint32)]
        if (reading := answer_reading(trained.readers, ids)) is not None
    ]
    assert len(below) == len(long)
    assert 0.5 < sum(below) / len(below) < 1.0
    # Answers too short to tell are never of an unknown style.
    short = [replace(one, answer="42") for one in TRACES]
    assert make_answer_limit(trained.readers, short, tokenizer()) == 12.0


def test_what_is_trained_is_a_whole_judge(
    shop: Workshop, trained: Trained, judge: LearnedJudge, tmp_path: Path
) -> None:
    data = tmp_path / "traces.jsonl"
    data.write_text("{}\n")
    file = write_judge(tmp_path / "out", trained, shop, TRACES, data=[data], seed=1)
    assert (tmp_path / "out" / SHIPPED).read_bytes() == file.raw
    again = LearnedJudge.load(
        ModelFile.from_file(tmp_path / "out" / SHIPPED), profile(), tokenizer(), learned_rules()
    )
    file.require_rounds(shop.rounds)
    made = shop.sessions(
        list(honest_plans([TRACES[0]], draws=3)),
        rounds=2, whole=(2,), what="a", progress=quiet,
    )  # fmt: skip
    for plan, session in made:
        seen = session.evidence(shop.visible(plan.trace))
        assert again.judge(seen) == judge.judge(seen)


def test_the_same_traces_and_seed_give_the_same_tensors(trained: Trained) -> None:
    other = workshop(TRACES)
    again = train(other, TRACES, size=TINY, seed=1, progress=quiet).tensors()
    found = trained.tensors()
    assert set(found) == set(again)
    for name, tensor in found.items():
        assert np.array_equal(again[name], tensor), name


def test_readers_of_an_interrupted_run_are_taken_again(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = split(TRACES)

    def made(part: str = "train", *, steps: float = TINY.steps) -> Readers:
        size = replace(TINY, steps=steps)
        return pipeline.make_readers(
            shop.library, parts[part], size=size, kept=tmp_path, progress=quiet
        )

    first = made()
    (kept,) = tmp_path.iterdir()

    def again(*_: object, **__: object) -> object:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "train_readers", again)
        found = made()
        for name, tensor in first.tensors().items():
            assert np.array_equal(found.tensors()[name], tensor)
        with pytest.raises(AssertionError):
            made(steps=0.01)
        with pytest.raises(AssertionError):
            made("test")
        # Readers of an older recipe are not taken for those of this one.
        patch.setattr(pipeline, "_READERS_RECIPE", pipeline._READERS_RECIPE + 1)
        with pytest.raises(AssertionError):
            made()
    kept.write_bytes(kept.read_bytes()[:-5])
    assert made().tensors().keys() == first.tensors().keys()


@pytest.mark.parametrize("stage", ["make_heads", "measure"])
def test_nothing_trained_depends_on_how_many_threads_there_are(
    stage: str, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def numpy_threads() -> set[int]:
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    class SeenError(Exception):
        pass

    def seen(*_: object, **__: object) -> object:
        raise SeenError(numpy_threads(), torch.get_num_threads())

    monkeypatch.setattr(pipeline, stage, seen)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(limits=2, user_api="blas"):
            assert numpy_threads() == {2}
            with pytest.raises(SeenError) as caught:
                train(shop, TRACES, size=TINY, seed=1, progress=quiet)
            # Heads embed first, with all that torch has.
            assert caught.value.args == ({1}, 2 if stage == "make_heads" else 1)
            assert (numpy_threads(), torch.get_num_threads()) == ({2}, 2)
    finally:
        torch.set_num_threads(before)


def test_a_part_of_the_split_is_used_for_one_thing(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: dict[str, set[str]] = {}

    def noting(name: str) -> None:
        real = getattr(pipeline, name)

        def note(among: object, traces: Sequence[Trace], *rest: object, **named: object) -> object:
            used.setdefault(name, set()).update(one.qid for one in traces)
            return real(among, traces, *rest, **named)

        monkeypatch.setattr(pipeline, name, note)

    for name in ("make_readers", "make_heads", "example_sessions", "audit_sessions"):
        noting(name)
    train(shop, TRACES, size=TINY, seed=1, progress=quiet)
    parts = {name: {one.qid for one in found} for name, found in split(TRACES).items()}
    assert used["make_readers"] == used["make_heads"] == parts["train"]
    assert used["example_sessions"] == parts["detectors"]
    assert used["audit_sessions"] == parts["calibration"]
    assert all(not parts["test"] & found for found in used.values())


def test_readers_may_be_trained_beside_all_that_needs_none(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    class ReadersWantedError(Exception):
        pass

    def noting(name: str) -> None:
        monkeypatch.setattr(pipeline, name, lambda *_, **__: order.append(name))

    def wanted(*_: object, **__: object) -> object:
        order.append("make_readers")
        raise ReadersWantedError

    @contextmanager
    def beside() -> Iterator[None]:
        order.append("entered")
        yield
        order.append("left")

    for name in ("make_heads", "example_sessions", "audit_sessions"):
        noting(name)
    monkeypatch.setattr(pipeline, "make_readers", wanted)
    with pytest.raises(ReadersWantedError):
        train(shop, TRACES, size=TINY, seed=1, progress=quiet, beside=beside())
    sessions = ["make_heads", "example_sessions", *["audit_sessions"] * len(TIERS)]
    assert order == ["entered", *sessions, "left", "make_readers"]


def test_nothing_is_begun_beside_a_training_that_cannot_be() -> None:
    begun = []

    @contextmanager
    def beside() -> Iterator[None]:
        begun.append(True)
        yield

    few = written(5)
    with pytest.raises(InvalidInputError, match="questions with"):
        train(workshop(few), few, size=TINY, seed=1, progress=quiet, beside=beside())
    assert not begun


def test_an_audit_is_known_by_its_plan_and_by_its_last_round(trained: Trained) -> None:
    stages = [
        measure(opened_of(TRACES[0], opened=opened, whole=1), trained.heads, trained.readers,
                tokenizer())
        for opened in (1, 2)
    ]  # fmt: skip
    code = [replace(one, code=True) for one in stages]
    plain, inflated = judge_audits(
        [
            (Plan(TRACES[0]), stages),
            (Plan(TRACES[-1], "bag_of_own_tokens", 1.0, "appended", 1024), code),
        ],
        trained.detectors,
    )
    assert (plain.domain, plain.qid, plain.block_size) == (TRACES[0].domain, TRACES[0].qid, 256)
    assert (plain.code, plain.inflated) == (False, False)
    assert (inflated.domain, inflated.qid) == (TRACES[-1].domain, TRACES[-1].qid)
    assert (inflated.block_size, inflated.code, inflated.inflated) == (1024, True, True)
    for one in (plain, inflated):
        assert len(one.rounds) == 2
        for (found, blocks), measured in zip(one.rounds, stages, strict=True):
            ratios = trained.detectors.ratios(measured)
            assert blocks == len(ratios)
            assert np.array_equal(found, trained.detectors.session_evidence(ratios))
        assert len(one.scores) == len(stages[-1].block)


@pytest.mark.parametrize(
    "traces",
    [
        written(1),
        written(5),
        # Enough questions, of too few tokens.
        [trace("so the sky is blue.", qid=f"{at}", id=f"{at}") for at in range(40)],
        # Enough of one part, none of another.
        [*written(4), *written(3, domain="code")],
    ],
    ids=["one", "five", "short", "no calibration"],
)
def test_too_few_questions_are_said_before_anything_is_trained(
    traces: list[Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> object:
        raise AssertionError

    monkeypatch.setattr(pipeline, "train_readers", started)
    with pytest.raises(InvalidInputError, match=r"questions with \d+ reasoning tokens or more"):
        train(workshop(traces), traces, size=TINY, seed=1, progress=quiet)


# The card


def test_the_card_says_what_the_judge_is_and_what_it_was_trained_on(
    shop: Workshop, trained: Trained, tmp_path: Path
) -> None:
    data = tmp_path / "traces.jsonl"
    data.write_text("so the sky is blue\n")
    file = write_judge(tmp_path, trained, shop, TRACES, data=[data], seed=7)
    card = (tmp_path / CARD).read_text()
    assert file.digest.hex() in card
    assert f"{len(file.raw):,} bytes" in card
    assert "`traces.jsonl`, SHA-256 `" in card
    assert "22 reasoning traces of 1 models on 22 questions" in card
    assert "seed 7" in card
    assert "Domains: code, math." in card
    for name, found in split(TRACES).items():
        assert f"| {name} | {len(found)} | {len({one.qid for one in found})} | code " in card
    assert all(f"| {name} |" in card for name in SPLITS)
    for name, value in space_of(profile().message).items():
        assert f"| {name} | `{value}` |" in card
    assert "## Limits" in card


def test_the_card_is_not_written_into_a_file(
    shop: Workshop, trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InvalidInputError, match="is a file: give a folder"):
        write_judge(tmp_path / "out", trained, shop, TRACES, data=[], seed=1)


# Evaluation


@pytest.fixture(scope="module")
def results(shop: Workshop, judge: LearnedJudge) -> list[tuple[SessionResult, OpenedEvidence]]:
    """What came of sessions of two questions."""
    observed: list[tuple[SessionResult, OpenedEvidence]] = []
    scope = Scope(
        rates=(1.0,),
        placements=("appended",),
        block_sizes=(256,),
        attacks=("bag_of_own_tokens", "forged_vectors", "other_model_same_question"),
    )
    found = list(
        evaluate(
            shop, judge, split(TRACES)["test"][:2], scope, quiet,
            observe=lambda result, evidence: observed.append((result, evidence)),
        )
    )  # fmt: skip
    assert [result for result, _ in observed] == found
    return observed


def test_every_session_comes_to_a_result_at_each_tier(
    results: list[tuple[SessionResult, OpenedEvidence]],
) -> None:
    # Two traces, honest and two attacks that apply; and honest ids that are not canonical.
    assert len(results) == 2 * len(TIERS) * (3 + 1)
    assert {result.tier for result, _ in results} == set(TIERS)
    for result, evidence in results:
        assert (result.whole_blocks > 0) == (result.tier == "opened")
        assert result.rounds == evidence.rounds
        assert result.blocks == evidence.total_blocks
        assert len(evidence.blocks) == result.block_embeddings_exposed
        assert result.original_blocks <= result.blocks


def test_inflation_is_told_as_it_was_made(
    results: list[tuple[SessionResult, OpenedEvidence]],
) -> None:
    for result, _ in results:
        if result.honest:
            assert (result.rate, result.share, result.overcharge) == (0.0, 0.0, 0.0)
        else:
            assert (result.rate, result.placement) == (1.0, "appended")
            assert result.share == pytest.approx(0.5)
            assert result.overcharge == 1.0
    families = {result.family for result, _ in results if not result.honest}
    assert families == {"bag", "forged"}


def test_ids_that_are_not_canonical_are_an_honest_kind(
    results: list[tuple[SessionResult, OpenedEvidence]],
) -> None:
    found = [result for result, _ in results if result.kinds == ("noncanonical_ids",)]
    assert len(found) == 4
    assert all(result.honest for result in found)


def test_forged_vectors_are_proven_where_they_are_opened_whole(
    results: list[tuple[SessionResult, OpenedEvidence]],
) -> None:
    forged = [result for result, _ in results if result.family == "forged"]
    proven = [result for result in forged if result.p_value == 1e-6]
    assert proven
    assert all(result.tier == "opened" and result.detected for result in proven)


def test_outcomes_are_what_the_judge_decides(
    judge: LearnedJudge, results: list[tuple[SessionResult, OpenedEvidence]]
) -> None:
    for result, evidence in results:
        if result.p_value == 1e-6:
            continue
        found = judge.assess(evidence)
        assert result.p_value == found.p_value
        assert result.probability == found.probability
        assert result.interval == found.estimate.interval
        judgement = judge.judge(evidence)
        assert decide(found, evidence, judge.rules) == (judgement.outcome, judgement.reason)
        if result.outcome == "INCONCLUSIVE":
            assert evidence.last


def test_long_traces_are_measured_by_what_is_audited(judge: LearnedJudge) -> None:
    long = trace("so the sky is blue and the sea. " * 2000, qid="long")
    scope = Scope(rates=(), block_sizes=(1024,), tiers=("committed",), sampled=0.0)
    found = list(evaluate(workshop([long]), judge, [long], scope, quiet))
    assert {result.original_blocks for result in found if result.block_size == 1024} == {
        MAX_TOKENS // 1024
    }


# Scopes


def scoped(**scope: Any) -> list[Plan]:
    return list(plans_of(TRACES[0], Scope(**scope)))


def test_a_share_of_the_sessions_is_a_part_of_all() -> None:
    everything, some, less = scoped(), scoped(sampled=0.3), scoped(sampled=0.1)
    assert set(less) < set(some) < set(everything)
    assert len(set(everything)) == len(everything)
    assert 0.15 < len(some) / len(everything) < 0.45
    assert some == scoped(sampled=0.3, seed=1)
    assert some != scoped(sampled=0.3, seed=2)


def test_every_attack_is_played_at_every_rate_and_in_every_placement() -> None:
    played = {(plan.attack, plan.rate, plan.placement) for plan in scoped(block_sizes=(256,))}
    for name, found in ATTACKS.items():
        cells = {(name, rate, place) for rate in RATES for place in found.placements}
        assert cells <= played or found.costly


def test_nothing_is_sampled_but_honest_sessions() -> None:
    found = scoped(sampled=0.0)
    assert [plan.attack for plan in found] == ["none"] * 3 + ["finer_tokenization"]
    assert not scoped(sampled=0.0, draws=0)
