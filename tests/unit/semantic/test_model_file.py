"""Model files: what is refused, and what names them."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from coin_protocol.errors import ConfigurationError, ModelMismatchError
from coin_protocol.models import Models
from coin_protocol.profile import Policy, Profile
from coin_protocol.testing.profiles import default_profile, rules_policy
from coin_protocol.v1 import profile_pb2
from tests.support.judges import (
    SUBJECTS,
    judge,
    learned_rules,
    policy_naming,
    rounds,
    tensors_of,
    write_model,
)
from tests.support.laboratory import profile
from verifier_sdk.semantic import model_file
from verifier_sdk.semantic.baseline import DeepSetsJudge
from verifier_sdk.semantic.calibration import TIERS
from verifier_sdk.semantic.learned import LearnedJudge
from verifier_sdk.semantic.model_file import (
    FORMAT,
    MAX_MODEL_BYTES,
    ModelFile,
    rounds_of,
    space_of,
)

HEADER = {"format": FORMAT}


def raw_of(header: object = HEADER, **tensors: Any) -> bytes:
    """Return a safetensors file with this header."""
    return save(tensors or {"a": np.zeros(2, np.float32)}, {"coin": json.dumps(header)})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """A whole model file."""
    return write_model(tmp_path_factory.mktemp("models") / "judge.safetensors")


def test_a_file_reads_as_it_was_written(written: ModelFile, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(written.raw)
    found = ModelFile.from_file(path)
    assert found.digest == hashlib.sha256(path.read_bytes()).digest() == written.digest
    own = {"format": FORMAT, "rounds": rounds_of(rounds())}
    assert found.header == {**own, **space_of(profile().message)}
    assert found.dimension == 12
    expected = tensors_of(judge())
    assert set(found.tensors) == set(expected)
    for name, value in expected.items():
        assert found.tensors[name].dtype == value.dtype
        assert np.array_equal(found.tensors[name], value)


def test_a_judge_reads_as_it_was_written(written: ModelFile) -> None:
    found = LearnedJudge.load(written, profile(), judge().tokenizer, learned_rules())
    expected = tensors_of(judge())
    again = tensors_of(found)
    assert set(again) == set(expected)
    assert all(np.array_equal(again[name], value) for name, value in expected.items())


def test_what_is_written_does_not_depend_on_order_or_layout(tmp_path: Path) -> None:
    one = np.arange(6, dtype=np.float32).reshape(2, 3)
    two = np.arange(4, dtype=np.int64)
    first = ModelFile.write(tmp_path / "1", {"a": one, "b": two}, {"x": "1", "y": "2"})
    turned: dict[str, Any] = {"b": two.copy(), "a": np.asfortranarray(one)}
    second = ModelFile.write(tmp_path / "2", turned, {"y": "2", "x": "1"})
    assert first.raw == second.raw
    assert (tmp_path / "1").read_bytes() == first.raw


_WRITE = """
import sys
from pathlib import Path
from tests.support.judges import write_model
print(write_model(Path(sys.argv[1])).digest.hex())
"""


def test_another_process_writes_the_same_bytes(written: ModelFile, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WRITE, str(tmp_path / "judge")],
        check=True, capture_output=True, text=True,
        env={"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert done.stdout.strip() == written.digest.hex()


# What is refused


def pickled() -> bytes:
    return pickle.dumps({"a": [0.0] * 100})


def zipped() -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("data.pkl", pickled())
    return raw.getvalue()


def with_length(length: int) -> bytes:
    return struct.pack("<Q", length) + raw_of()[8:]


GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "few bytes": b"\x00" * 7,
    "text": b"not a model\n" * 40,
    "pickle": pickled(),
    "zip": zipped(),
    "header longer than the file": with_length(1 << 40),
    "header shorter than it is": with_length(5),
    "no end": raw_of()[:-1],
    "more behind the end": raw_of() + b"\x00",
    "no metadata": save({"a": np.zeros(1, np.float32)}),
    "metadata of others": save({"a": np.zeros(1, np.float32)}, {"format": "pt"}),
    "no JSON": save({"a": np.zeros(1, np.float32)}, {"coin": "{"}),
    "deep JSON": save({"a": np.zeros(1, np.float32)}, {"coin": "[" * 100_000}),
    "a list": raw_of([1, 2]),
    "a number in the header": raw_of({**HEADER, "dimension": 12}),
    "no format": raw_of({}),
    "an older format": raw_of({"format": "coin.judge.v0"}),
    "not a number": raw_of(a=np.array([0.0, np.nan], np.float32)),
    "infinite": raw_of(a=np.array([np.inf], np.float16)),
    "infinite, double": raw_of(a=np.array([-np.inf], np.float64)),
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_model_file_is_a_sentence(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    path.write_bytes(raw)
    with pytest.raises(ConfigurationError) as refused:
        ModelFile.from_file(path)
    assert "\n" not in str(refused.value)
    assert not isinstance(refused.value, ModelMismatchError)


def test_the_error_names_both_formats() -> None:
    with pytest.raises(ConfigurationError, match=r"is 'coin\.judge\.v0', wanted 'coin\.judge\.v1'"):
        ModelFile.from_bytes(raw_of({"format": "coin.judge.v0"}))


@pytest.mark.parametrize("length", [1, 100, 5000])
def test_a_truncated_file_is_refused(written: ModelFile, length: int) -> None:
    with pytest.raises(ConfigurationError, match="not a safetensors file"):
        ModelFile.from_bytes(written.raw[:-length])


def test_too_large_a_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(40 * MAX_MODEL_BYTES)
    with pytest.raises(ConfigurationError, match=f"at most {MAX_MODEL_BYTES} bytes"):
        ModelFile.from_file(path)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the model file"):
        ModelFile.from_file(tmp_path / name)


def test_where_no_judge_ships_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "SHIPPED", "none.safetensors")
    with pytest.raises(ConfigurationError, match=r"cannot read .*none\.safetensors"):
        ModelFile.shipped()


@pytest.mark.parametrize(
    "name",
    [
        "tokens_to_block.mean",
        "detector.tokens.0.bias",
        "opened.0.combined",
        "committed.domains",
        "opened.code",
        "copies.mean",
    ],
)
def test_a_file_without_a_part_makes_no_judge(written: ModelFile, name: str) -> None:
    kept = {key: value for key, value in written.tensors.items() if key != name}
    raw = save(kept, {"coin": json.dumps(dict(written.header))})
    with pytest.raises(ConfigurationError, match=f"no tensor '{name}'"):
        LearnedJudge.load(ModelFile.from_bytes(raw), profile(), judge().tokenizer, learned_rules())


def test_a_file_without_readers_makes_no_judge(written: ModelFile) -> None:
    kept = {key: value for key, value in written.tensors.items() if not key.startswith("runs.")}
    raw = save(kept, {"coin": json.dumps(dict(written.header))})
    with pytest.raises(ConfigurationError, match=r"runs\."):
        LearnedJudge.load(ModelFile.from_bytes(raw), profile(), judge().tokenizer, learned_rules())


def test_a_judge_needs_the_rules_that_it_decides_by(written: ModelFile) -> None:
    for rules in (profile_pb2.LearnedRules(), rules_policy().learned_rules):
        with pytest.raises(ConfigurationError, match="the policy has no learned_rules"):
            LearnedJudge.load(written, profile(), judge().tokenizer, rules)


# What names it


def test_the_policy_names_the_file_by_its_exact_bytes(written: ModelFile) -> None:
    written.require_policy(policy_naming(written.digest))
    written.require_policy(policy_naming(b"\x01" * 32, written.digest))


def with_rounds(**changes: int) -> profile_pb2.RoundPlan:
    plan = profile_pb2.RoundPlan()
    plan.CopyFrom(rounds())
    for name, value in changes.items():
        setattr(plan, name, value)
    return plan


def test_a_judge_is_taken_with_the_rounds_that_it_was_calibrated_for(written: ModelFile) -> None:
    written.require_rounds(rounds())
    # Whole blocks have a tier of their own.
    written.require_rounds(with_rounds(whole_blocks=9))


@pytest.mark.parametrize(
    "name",
    [
        "max_rounds", "blocks_first_round", "blocks_per_round", "tokens_per_block",
        "token_blocks_first_round",
    ],
)  # fmt: skip
def test_a_judge_of_other_rounds_is_refused_with_both_plans(written: ModelFile, name: str) -> None:
    value = getattr(rounds(), name)
    with pytest.raises(ConfigurationError) as refused:
        written.require_rounds(with_rounds(**{name: value + 1}))
    message = str(refused.value)
    assert not isinstance(refused.value, ModelMismatchError)
    assert f"{name}={value}" in message.partition("the policy has")[0]
    assert f"{name}={value + 1}" in message.partition("the policy has")[2]


def test_a_judge_that_names_no_rounds_is_refused(written: ModelFile) -> None:
    header = {name: value for name, value in written.header.items() if name != "rounds"}
    file = ModelFile.from_bytes(raw_of(header))
    with pytest.raises(ConfigurationError, match="calibrated for rounds None"):
        file.require_policy(policy_naming(file.digest))


@pytest.mark.parametrize("at", [0.3, 0.6, 0.99])
def test_an_altered_byte_is_another_file(written: ModelFile, at: float) -> None:
    raw = bytearray(written.raw)
    # Within the tensors: what they hold after it is a number still.
    place = int(len(raw) * at)
    raw[place] ^= 1
    altered = ModelFile.from_bytes(bytes(raw))
    with pytest.raises(ModelMismatchError) as refused:
        altered.require_policy(policy_naming(written.digest))
    assert altered.digest.hex() in str(refused.value)
    assert written.digest.hex() in str(refused.value)


def test_a_policy_that_names_none_takes_no_file(written: ModelFile) -> None:
    with pytest.raises(ModelMismatchError, match="the policy names none"):
        written.require_policy(policy_naming())


# What it was trained for


def edited(change: Callable[[Any], object]) -> Profile:
    return profile(change)


@pytest.mark.parametrize(
    ("name", "change", "wanted"),
    [
        ("tokenizer_sha256", lambda m: setattr(m.tokenizer, "sha256", b"\x01" * 32), "01" * 32),
        (
            "embedding_weights_sha256",
            lambda m: setattr(m.embedding, "weights_sha256", b"\x02" * 32),
            "02" * 32,
        ),
        ("window_tokens", lambda m: setattr(m.embedding, "window_tokens", 32), "32"),
        (
            "projection_seed",
            lambda m: setattr(m.embedding.projection, "seed", b"\x03" * 32),
            "03" * 32,
        ),
        ("projection_seed", lambda m: m.embedding.ClearField("projection"), "none"),
        ("dimension", lambda m: setattr(m.embedding.projection, "dimension", 8), "8"),
        ("run_tokens", lambda m: setattr(m.caps, "run_tokens", 1), "1"),
    ],
)
def test_a_judge_of_another_space_is_refused_with_both_values(
    written: ModelFile, name: str, change: Callable[[Any], object], wanted: str
) -> None:
    other = edited(change)
    with pytest.raises(ConfigurationError) as refused:
        written.require_profile(other)
    message = str(refused.value)
    assert f"trained for {name} {space_of(profile().message)[name]}" in message
    assert f"the profile has {wanted}:" in message
    assert "--judge rules" in message
    with pytest.raises(ConfigurationError, match=name):
        LearnedJudge.load(written, other, judge().tokenizer, learned_rules())


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "name", "another"),
        lambda m: setattr(m, "block_size", 512),
        lambda m: setattr(m.caps, "tokens_ppm", 10),
    ],
)
def test_what_does_not_change_the_numbers_may_differ(
    written: ModelFile, change: Callable[[Any], object]
) -> None:
    written.require_profile(edited(change))


@pytest.mark.parametrize("tier", TIERS)
def test_a_judge_that_is_calibrated_for_other_subjects_is_refused(tier: str) -> None:
    tensors = tensors_of(judge())
    del tensors[f"{tier}.subject.{SUBJECTS - 1}"]
    tensors[f"{tier}.questions"] = tensors[f"{tier}.questions"][:-1]
    header = space_of(profile().message) | {"format": FORMAT, "rounds": rounds_of(rounds())}
    file = ModelFile.from_bytes(raw_of(header, **tensors))
    with pytest.raises(ConfigurationError, match="other subjects"):
        LearnedJudge.load(file, profile(), judge().tokenizer, learned_rules())


def test_the_space_of_the_default_profile_is_read_from_it() -> None:
    found = space_of(default_profile())
    assert found["dimension"] == "96"
    assert found["window_tokens"] == "64"
    assert found["run_tokens"] == "4"
    assert all(isinstance(value, str) for value in found.values())


@pytest.mark.parametrize(
    ("said", "found"), [({}, None), ({"calibration_questions": "41"}, 41),
                        ({"calibration_questions": "many"}, None)],
)  # fmt: skip
def test_the_questions_behind_the_calibration_are_read(
    said: dict[str, str], found: int | None
) -> None:
    assert ModelFile.from_bytes(raw_of({**HEADER, **said})).calibration_questions == found


# What ships


@pytest.mark.models
def test_the_judge_that_ships_is_of_the_default_profile() -> None:
    file, models = ModelFile.shipped(), Models(Profile.shipped("default"))
    assert len(file.raw) < MAX_MODEL_BYTES / 8
    found = LearnedJudge.load(file, models.profile, models.tokenizer, learned_rules())
    assert found.heads.dimension == 96
    DeepSetsJudge.read(file.tensors, found.heads)
    assert file.calibration_questions is not None


def test_a_policy_that_ships_names_no_judge_but_the_one_that_ships() -> None:
    named = Policy.shipped().message.semantic_model_sha256
    assert not named or ModelFile.shipped().digest in named
