"""`coin train` and `coin eval` over the models of the laboratory, and what they say to mistakes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from coin_protocol.embedding import TextEmbedder
from coin_protocol.testing.profiles import default_policy, rules_policy
from coin_protocol.testing.small import SmallEmbedder
from tests.support.command import Coin, Done
from tests.support.judges import policy_naming, write_model
from tests.support.laboratory import LabModels, profile, written
from verifier_sdk.lab import Trace
from verifier_sdk.semantic.choose import judge_for
from verifier_sdk.semantic.learned import LearnedJudge
from verifier_sdk.semantic.model_file import ModelFile
from verifier_sdk.training.pipeline import Size

Command = Callable[..., Done]

TRACES = [*written(12), *written(10, domain="code")]


class Passed(SmallEmbedder):
    """Stands in for the fast model."""

    precision = "exact"

    def __init__(self, exact: TextEmbedder) -> None:
        del exact


@pytest.fixture
def command(coin: Coin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """`coin` over the laboratory, training for a step or a few."""
    entries = [
        EntryPoint(name, f"verifier_sdk.training.cli:{attribute}", "coin.commands")
        for name, attribute in (("train", "train"), ("eval", "evaluate"))
    ]
    # The package's `main` is the function, not the module of that name.
    main = import_module("coin_protocol.cli.main")
    monkeypatch.setattr(main, "entry_points", lambda **_: entries)
    monkeypatch.setattr("coin_protocol.models.Models", LabModels)
    monkeypatch.setattr("verifier_sdk.training.workshop.FastEmbedder", Passed)
    # A process of its own would look for the tokenizer that the profile names.
    monkeypatch.setattr(
        "verifier_sdk.training.background.readers_in_background", lambda *_, **__: nullcontext()
    )
    tiny = replace(Size.small(), steps=1e-3)
    monkeypatch.setattr(Size, "small", classmethod(lambda _: tiny))
    # Attackers who ask the judge again and again take seconds for each session.
    monkeypatch.setattr("verifier_sdk.training.evaluate._COSTLY", ((0.5, "interleaved", 256),))
    monkeypatch.setenv("COIN_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "laboratory.profile.binpb"
    path.write_bytes(profile().raw)

    def run(name: str, *arguments: str | Path) -> Done:
        return coin(name, "--profile", path, *arguments)

    return run


def write(path: Path, found: list[Trace]) -> Path:
    raw = "".join(json.dumps(asdict(one)) + "\n" for one in found).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Traces of questions of two domains, in a file."""
    return write(tmp_path / "traces.jsonl.gz", TRACES)


@pytest.fixture
def judge(command: Command, data: Path, tmp_path: Path) -> Path:
    """A judge trained on them."""
    done = command("train", "--data", data, "--out", tmp_path / "judge", "--small", "--json")
    assert done.code == 0, done.err
    path = tmp_path / "judge" / "judge.safetensors"
    assert done.document == {
        "judge": str(tmp_path / "judge"),
        "sha256": ModelFile.from_file(path).digest.hex(),
        "bytes": path.stat().st_size,
    }
    return path


def test_a_judge_is_trained_named_and_evaluated(
    command: Command, judge: Path, data: Path, tmp_path: Path
) -> None:
    digest = ModelFile.from_file(judge).digest
    assert "# Model card" in judge.with_name("judge.md").read_text()
    policy = policy_naming(digest)
    assert isinstance(judge_for(policy, LabModels(profile()), judge), LearnedJudge)
    # Trained again it is the same file, and readers and embeddings are not made again.
    done = command("train", "--data", data, "--out", tmp_path / "again", "--small")
    assert done.code == 0, done.err
    assert f"SHA-256 {digest.hex()}" in done.said
    assert "semantic_model_sha256" in done.said
    assert (tmp_path / "again" / "judge.safetensors").read_bytes() == judge.read_bytes()
    # Evaluated on the questions that were left out.
    report = tmp_path / "report"
    done = command(
        "eval", "--data", data, "--report", report, "--model", judge, "--sampled", "0.03", "--json"
    )
    assert done.code == 0, done.err
    document = json.loads((report / "report.json").read_text())
    assert done.document == {name: document[name] for name in ("targets", "false_alarms")}
    assert document["extra"]["judge_sha256"] == digest.hex()
    assert document["extra"]["data"][0]["name"] == "traces.jsonl.gz"
    assert document["extra"]["settings"]["traces"] == "4"
    assert document["sessions"] > 10
    assert "deepsets" in document["extra"]["judges"]
    assert (report / "report.md").read_text().startswith("# ")
    assert list(report.glob("*.png"))


# Mistakes


def mistaken(done: Done, said: str) -> None:
    assert done.code == 2
    assert said in done.said
    assert "internal error" not in done.err


@pytest.fixture(params=["train", "eval"])
def either(
    command: Command, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[[Path], Done]:
    """Both commands on one file of data."""
    if request.param == "train":
        return lambda path: command("train", "--data", path, "--out", tmp_path / "out", "--small")
    model = tmp_path / "model"
    write_model(model)
    return lambda path: command(
        "eval", "--data", path, "--report", tmp_path / "out", "--model", model
    )


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (None, "cannot read traces from"),
        (b"", "no traces with reasoning in the files given"),
        (b"\n\n", "no traces with reasoning in the files given"),
        (b"\x00\xff\xfe garbage", "traces.jsonl, line 1:"),
        (b"[]\n", "traces.jsonl, line 1: wanted a JSON object, found list"),
        (b"{}\n", "traces.jsonl, line 1: 'id' must be a string; found NoneType"),
        (json.dumps({**asdict(TRACES[0]), "reasoning": " "}).encode(), "no traces with reasoning"),
    ],
)
def test_data_that_holds_no_traces_is_a_sentence(
    either: Callable[[Path], Done], tmp_path: Path, raw: bytes | None, said: str
) -> None:
    path = tmp_path / "traces.jsonl"
    if raw is not None:
        path.write_bytes(raw)
    mistaken(either(path), said)


def test_gzip_that_is_none_is_a_sentence(either: Callable[[Path], Done], tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}")[:-4])
    mistaken(either(path), "cannot read traces from")
    path.write_bytes(b"{}")
    mistaken(either(path), "cannot read traces from")


def test_too_few_questions_to_train_on_are_a_sentence(command: Command, tmp_path: Path) -> None:
    data = write(tmp_path / "few.jsonl", TRACES[:5])
    done = command("train", "--data", data, "--out", tmp_path / "out", "--small")
    mistaken(done, "are needed in each: give traces of more questions")


def test_too_few_questions_to_test_on_are_a_sentence(
    command: Command, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verifier_sdk.training.evaluate._COSTLY", ())
    data = write(tmp_path / "few.jsonl", TRACES[:2])
    done = command("eval", "--data", data, "--report", tmp_path / "out", "--model", judge)
    mistaken(done, "use --split all")
    done = command(
        "eval", "--data", data, "--report", tmp_path / "out", "--model", judge,
        "--split", "all", "--sampled", "0",
    )  # fmt: skip
    assert done.code == 0, done.err


@pytest.mark.parametrize("name", ["out", "out/below"])
def test_a_file_where_a_folder_is_wanted_is_said_at_once(
    command: Command, data: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> object:
        raise AssertionError

    monkeypatch.setattr("verifier_sdk.training.pipeline.train_readers", started)
    monkeypatch.setattr("verifier_sdk.lab.read_traces", started)
    (tmp_path / "out").write_text("")
    done = command("train", "--data", data, "--out", tmp_path / name, "--small")
    mistaken(done, "cannot make the folder")
    done = command("eval", "--data", data, "--report", tmp_path / name)
    mistaken(done, "cannot make the folder")


def test_a_cache_that_is_a_file_is_said(command: Command, data: Path, tmp_path: Path) -> None:
    (tmp_path / "cache-file").write_text("")
    done = command(
        "train", "--data", data, "--out", tmp_path / "out", "--cache", tmp_path / "cache-file"
    )
    mistaken(done, "cannot make the folder")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "cannot read the model file"),
        (lambda path: path.write_bytes(b"PK\x03\x04" * 100), "not a safetensors file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "not a safetensors file"),
    ],
)
def test_a_model_file_that_is_none_is_a_sentence(
    command: Command, data: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    model = tmp_path / "model"
    write_model(model)
    spoil(model)
    done = command("eval", "--data", data, "--report", tmp_path / "out", "--model", model)
    mistaken(done, said)


def test_a_judge_of_other_rounds_is_a_sentence(
    command: Command, data: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "model")
    message = default_policy()
    message.rounds.max_rounds = 9
    (tmp_path / "policy").write_bytes(message.SerializeToString())
    done = command(
        "eval", "--data", data, "--report", tmp_path / "out", "--model", tmp_path / "model",
        "--policy", tmp_path / "policy",
    )  # fmt: skip
    mistaken(done, "the judge was calibrated for rounds max_rounds=3")


def test_a_policy_without_rules_for_a_judge_is_a_sentence(
    command: Command, data: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "policy").write_bytes(rules_policy().SerializeToString())
    done = command(
        "eval", "--data", data, "--report", tmp_path / "out", "--model", tmp_path / "model",
        "--policy", tmp_path / "policy",
    )  # fmt: skip
    mistaken(done, "the policy has no learned_rules: a learned judge decides by them")
    assert not list((tmp_path / "out").iterdir())


def test_a_judge_of_another_profile_is_a_sentence(
    command: Command, data: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "model", profile(projection=8))
    done = command(
        "eval", "--data", data, "--report", tmp_path / "out", "--model", tmp_path / "model"
    )
    mistaken(done, "was trained for dimension 8, the profile has 12")
