"""An audit is decided again from its bundle, to the same bits; what differs is named."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from coin_protocol.errors import MissingDependencyError
from coin_protocol.receipt import read_bundle, to_json
from coin_protocol.replaying import (
    Difference,
    cannot_replay,
    first_difference,
    judge_file,
    judge_replayer,
)
from coin_protocol.statements import read_verdict
from coin_protocol.testing.forgeries import put
from coin_protocol.testing.small import SmallModels
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import receipt_pb2 as pb
from tests.support.audit_cases import (
    AUDITS,
    FAIL,
    Expected,
    plain,
    remembering,
    replayed,
    resigned,
    told,
    where,
)
from verifier_sdk.replaying import replay, replay_bundle

# Honest audits


@pytest.mark.parametrize("expected", AUDITS.values(), ids=AUDITS.keys())
def test_an_honest_audit_is_decided_again_to_the_same_verdict(expected: Expected) -> None:
    audit = expected.audit()
    bundle = audit.bundle()
    verdict = read_verdict(bundle.verdict.payload)
    assert verdict.outcome in expected.outcomes
    assert any(expected.said in reason for reason in verdict.reasons), verdict.reasons
    found = replayed(audit, bundle)
    assert found.difference is None
    assert found.verdict == verdict
    assert replayed(audit, read_bundle(to_json(bundle).encode())).difference is None


def test_the_tiers_and_rounds_that_audits_can_come_to_are_among_them() -> None:
    bundles = [expected.audit().bundle() for expected in AUDITS.values()]
    verdicts = [read_verdict(bundle.verdict.payload) for bundle in bundles]
    assert {verdict.tier for verdict in verdicts} == {
        *(pb.TIER_ASSERTED, pb.TIER_COMMITTED, pb.TIER_TIMED, pb.TIER_OPENED),
    }
    assert {len(bundle.rounds) for bundle in bundles} == {0, 1, 2, 3}
    assert {verdict.fault for verdict in verdicts} == {*pb.Fault.values()[:2]}


def test_what_was_replayed_is_said() -> None:
    judged, checked = plain(), plain(edit_commitment=put("usage.reasoning_tokens", 500))
    assert replayed(judged, judged.bundle()).judge
    assert replayed(checked, checked.bundle()).judge is None
    assert replayed(judged, judged.bundle()).reference is None
    remembered = remembering(0)
    assert replayed(remembered, remembered.bundle()).matches == 1


def test_a_failed_check_takes_neither_models_nor_judge() -> None:
    class NoModels(SmallModels):
        @property
        def tokenizer(self) -> Tokenizer:
            msg = "not installed"
            raise MissingDependencyError(msg)

    audit = plain(edit_commitment=put("usage.reasoning_tokens", 500))
    of = audit.world
    found = replay_bundle(
        audit.bundle(), trust=of.trust, models=NoModels(of.profile), policy=of.policy
    )
    assert found.difference is None
    with pytest.raises(MissingDependencyError):
        replay_bundle(
            plain().bundle(), trust=of.trust, models=NoModels(of.profile), policy=of.policy
        )


# Verdicts that say something else


def other(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value + 2.0**-40
    if isinstance(value, int):
        return value + 1 if value < 2 else value - 1
    if isinstance(value, bytes):
        return bytes((value[0] ^ 1, *value[1:]))
    return f"{value}."


def leaves(message: Message, path: str = "") -> list[tuple[str, Callable[[Message], None]]]:
    """Return the values that are set in a message: path, and an edit. Of lists, the ends."""
    found: list[tuple[str, Callable[[Message], None]]] = []

    for field, value in message.ListFields():
        name = f"{path}.{field.name}" if path else field.name
        if field.is_repeated:
            for at in {0, len(value) - 1}:
                entry = value[at]
                if isinstance(entry, Message):
                    found += [
                        (inner, partial(_within, field.name, at, edit))
                        for inner, edit in leaves(entry, f"{name}[{at}]")
                    ]
                else:
                    found.append((f"{name}[{at}]", _set_entry(field.name, at)))
            found += [(f"{name}[{len(value)}]", _repeat(field.name))]
            found += [(f"{name}[{len(value) - 1}]", _drop(field.name))]
        elif isinstance(value, Message):
            found += [
                (inner, partial(_within, field.name, None, edit))
                for inner, edit in leaves(value, name)
            ]
        else:
            found.append((name, _set(field.name)))
    return found


def _within(name: str, at: int | None, edit: Callable[[Any], None], message: Any) -> None:
    inner = getattr(message, name)
    edit(inner if at is None else inner[at])


def _set(name: str) -> Callable[[Any], None]:
    return lambda message: setattr(message, name, other(getattr(message, name)))


def _set_entry(name: str, at: int) -> Callable[[Any], None]:
    def edit(message: Any) -> None:
        getattr(message, name)[at] = other(getattr(message, name)[at])

    return edit


def _repeat(name: str) -> Callable[[Any], None]:
    return lambda message: getattr(message, name).append(getattr(message, name)[-1])


def _drop(name: str) -> Callable[[Any], None]:
    return lambda message: getattr(message, name).pop()


GIVEN = ("commitment_sha256", "profile_sha256", "policy_sha256", "verifier", "decided_at")
"""Fields that no replay gives: who decided what, when, under which rules."""


@pytest.mark.parametrize(
    ("name", "but"),
    [("over-billed", "-"), ("accused", "checks"), ("remembered", "checks")],
    ids=["checks", "judge", "matches"],
)
def test_every_value_of_a_verdict_that_is_altered_is_named(name: str, but: str) -> None:
    audit = AUDITS[name].audit()
    bundle = audit.bundle()
    honest = read_verdict(bundle.verdict.payload)
    edits = [(path, edit) for path, edit in leaves(honest) if not path.startswith((*GIVEN, but))]
    assert len(edits) > 15
    for path, edit in edits:
        verdict = pb.Verdict()
        verdict.CopyFrom(honest)
        edit(verdict)
        if not verdict.outcome:
            continue
        found = where(audit, resigned(bundle, verdict))
        assert (found.path, found.found == found.replayed) == (path, False)


@pytest.mark.parametrize(
    ("edit", "path", "found", "given"),
    [
        (put("outcome", FAIL), "outcome", "OUTCOME_FAIL", "OUTCOME_PASS"),
        (put("fault", 7), "fault", "7", "FAULT_UNSPECIFIED"),
        (put("abort_reason", 1), "abort_reason", "ABORT_REASON_CLIENT_DISCONNECTED",
         "ABORT_REASON_UNSPECIFIED"),
        (put("inflation_probability", 0.0), "inflation_probability", "0.0", "absent"),
        (put("inflated_share.low", 0.25), "inflated_share", "low: 0.25", "absent"),
        (put("exposure.whole_blocks", 9), "exposure.whole_blocks", "9", "1"),
        (put("reasons", []), "reasons[0]", "absent", "The cosine rule is satisfied on 4 opened"),
    ],
    ids=["outcome", "fault", "abort", "probability", "share", "exposure", "reasons"],
)  # fmt: skip
def test_a_difference_has_both_values(
    edit: Callable[[Any], object], path: str, found: str, given: str
) -> None:
    audit = told()
    bundle = audit.bundle()
    verdict = read_verdict(bundle.verdict.payload)
    edit(verdict)
    difference = where(audit, resigned(bundle, verdict))
    assert (difference.path, difference.found) == (path, found)
    assert difference.replayed.startswith(given)


def test_a_double_is_compared_to_its_last_bit() -> None:
    audit = told()
    bundle = audit.bundle()
    verdict = read_verdict(bundle.verdict.payload)
    (number,) = [at for at, one in enumerate(verdict.scores) if one.name == "block_to_answer"][:1]
    for value in (-0.0, float("nan"), float("inf")):
        verdict.scores[number].value = value
        assert where(audit, resigned(bundle, verdict)).path == f"scores[{number}].value"


def test_a_verdict_on_another_commitment_is_named() -> None:
    audit = told()
    bundle = audit.bundle()
    verdict = read_verdict(bundle.verdict.payload)
    verdict.commitment_sha256 = bytes(32)
    assert where(audit, resigned(bundle, verdict)).path == "commitment_sha256"


# Two messages of one type


def test_a_long_value_is_shown_by_its_beginning() -> None:
    for length, shown in ((400, "x" * 400), (401, "x" * 400 + "…")):
        found = first_difference(pb.Verdict(reasons=["x" * length]), pb.Verdict())
        assert found == Difference("reasons[0]", shown, "absent")


def test_an_empty_message_is_told_from_none() -> None:
    empty = pb.Verdict(inflated_share=pb.ShareInterval())
    path = "inflated_share"
    assert first_difference(empty, pb.Verdict()) == Difference(path, "empty", "absent")
    assert first_difference(pb.Verdict(), empty) == Difference(path, "absent", "empty")
    assert first_difference(empty, empty) is None


def test_numbers_are_compared_by_their_bits() -> None:
    nothing, less, no_number = (
        pb.Verdict(inflation_probability=value) for value in (0.0, -0.0, float("nan"))
    )
    assert first_difference(nothing, less) == Difference("inflation_probability", "0.0", "-0.0")
    assert first_difference(no_number, no_number) is None


# Who replays


def test_the_replayer_is_the_one_that_a_package_brings_as_the_judge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = EntryPoint("judge", "verifier_sdk.replaying:replay", "coin.replayers")
    brought = EntryPoints(
        (
            EntryPoint("judge", "json:loads", "another.group"),
            EntryPoint("another", "json:dumps", "coin.replayers"),
            ours,
        )
    )
    monkeypatch.setattr("importlib.metadata.entry_points", brought.select)
    assert judge_replayer() is replay


def test_an_installed_verifier_brings_the_judge() -> None:
    assert judge_replayer() is replay


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MissingDependencyError("no judge is here"), "no judge is here"),
        (ModuleNotFoundError("No module", name="torch"), "torch is not installed"),
    ],
    ids=["told", "module"],
)
def test_who_cannot_replay_is_told_why_and_the_ways_out(
    error: MissingDependencyError | ModuleNotFoundError, why: str
) -> None:
    assert str(cannot_replay(error)) == (
        f"the judge's part cannot be replayed: {why}; install coin-audit[embedding,verifier], "
        "or check the deterministic part alone with --checks-only"
    )


def test_a_judge_is_a_file_unless_it_is_one_of_two_words() -> None:
    given = ("policy", "rules", "judge.safetensors", "POLICY")
    files = (None, None, Path("judge.safetensors"), Path("POLICY"))
    assert tuple(map(judge_file, given)) == files
