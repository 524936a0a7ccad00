"""`coin attack`: text for people, JSON for machines, sentences for mistakes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.support.command import Coin, Done
from tests.support.laboratory import GERMAN, LabModels, library, spelled, tokenizer, trace, traces
from verifier_sdk.lab import ATTACKS, Attacked, Material, Trace, apply_attack
from verifier_sdk.lab import cli as command
from verifier_sdk.lab.cli import _runs

Attack = Callable[..., Done]


@pytest.fixture
def attack(coin: Coin, monkeypatch: pytest.MonkeyPatch) -> Attack:
    """`coin attack` over the models of the laboratory."""
    entry = EntryPoint("attack", "verifier_sdk.lab.cli:attack", "coin.commands")
    # The package's `main` is the function, not the module of that name.
    main = import_module("coin_protocol.cli.main")
    monkeypatch.setattr(main, "entry_points", lambda **_: [entry])
    monkeypatch.setattr("coin_protocol.models.Models", LabModels)

    def run(*arguments: str | Path) -> Done:
        return coin("attack", *arguments)

    return run


def write(path: Path, found: list[Trace]) -> Path:
    raw = "".join(json.dumps(asdict(one)) + "\n" for one in found).encode()
    path.write_bytes(gzip.compress(raw))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The traces that ship, in a file."""
    return write(tmp_path / "traces.jsonl.gz", traces())


# The list


def test_the_list_says_what_each_attack_does(attack: Attack) -> None:
    done = attack("--list")
    assert done.code == 0
    for found in ATTACKS.values():
        assert f" {found.name} {found.family} " in done.said
        assert found.summary[:20] in done.said


def test_the_list_for_machines_is_a_line_for_each_attack(attack: Attack) -> None:
    done = attack("--list", "--json")
    assert done.code == 0
    documents = [json.loads(line) for line in done.out.splitlines()]
    assert {document["attack"] for document in documents} == set(ATTACKS)
    for document in documents:
        found = ATTACKS[document["attack"]]
        assert document == {
            "attack": found.name,
            "family": found.family,
            "placements": list(found.placements),
            "summary": found.summary,
        }


# An attack


@pytest.mark.parametrize("name", [name for name, found in ATTACKS.items() if not found.costly])
def test_every_attack_can_be_shown(attack: Attack, data: Path, name: str) -> None:
    document = attack(name, "--data", data, "--json", "--rate", "0.5").document
    assert document["attack"] == name
    assert document["family"] == ATTACKS[name].family
    assert document["trace"] == traces()[0].id
    assert len(document["ids"]) == document["tokens"]
    assert sum(end - start for start, end in document["spans"]) == document["injected"]
    assert document["share"] == pytest.approx(document["injected"] / document["tokens"])
    # Ids at random need not spell UTF-8.
    text = spelled(np.array(document["ids"], np.uint32)).decode(errors="replace")
    assert document["text"] == text


def test_json_is_what_the_library_gives(attack: Attack, data: Path) -> None:
    done = attack(
        *("bag_of_own_tokens", "--data", data, "--trace", "logic-01", "--rate", "0.25"),
        *("--placement", "scattered", "--seed", "7", "--block-size", "64", "--json"),
    )
    assert done.code == 0
    among = library()
    target = next(one for one in traces() if one.id == "logic-01")
    attacked = apply_attack(
        "bag_of_own_tokens",
        Material(target, among.ids(target), among.tokenizer, among, 7),
        rate=0.25,
        placement="scattered",
        block_size=64,
    )
    document = done.document
    assert document["ids"] == attacked.ids.tolist()
    assert document["family"] == "scattered"
    assert document["rate"] == 0.25
    assert document["placement"] == "scattered"
    marks = np.zeros(len(attacked.ids), np.bool_)
    for start, end in document["spans"]:
        marks[start:end] = True
    assert marks.tolist() == attacked.injected.tolist()


def test_piped_the_text_stands_alone(attack: Attack, data: Path) -> None:
    done = attack("answer_repeated", "--data", data, "--rate", "0.1")
    assert done.code == 0
    found = traces()[0]
    assert done.out.startswith(found.reasoning + "\n\n" + found.answer[:20])
    assert "\x1b" not in done.out
    assert done.err == (
        "answer_repeated (family echoed), appended at rate 0.1: 222 of 2440 tokens were injected "
        "into math-01 (9.1%)\n"
    )


@pytest.mark.parametrize(
    ("no_color", "mark"), [(False, "\x1b[7;33m"), (True, "\x1b[7m")], ids=["colour", "none"]
)
def test_on_a_terminal_what_was_injected_is_marked(
    attack: Attack,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    no_color: bool,
    mark: str,
) -> None:
    terminal = Console(force_terminal=True, color_system="standard", no_color=no_color)
    monkeypatch.setattr(command, "OUT", terminal)
    del capsys
    done = attack("prompt_repeated", "--data", data, "--rate", "0.1")
    kept, _, injected = done.out.partition(mark)
    assert kept.strip() == traces()[0].reasoning
    assert injected.strip().startswith(traces()[0].question[:20])


def test_text_commands_no_terminal(attack: Attack, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl.gz", [trace("red \x1b[31m [bold]text[/]", id="a\x1bb")])
    done = attack("blocks_repeated", "--data", path)
    assert done.code == 0
    assert "\x1b" not in done.out + done.err
    assert "red \ufffd[31m [bold]text[/]" in done.out
    assert "a\ufffdb" in done.err


def test_characters_that_two_runs_share_are_whole() -> None:
    raw = "ü🙂".encode()
    # Ids of bytes begin behind four control ids.
    ids = np.frombuffer(raw, np.uint8).astype(np.uint32) + 4
    marks = np.array([False, True, True, False, False, False])
    runs = list(_runs(tokenizer(), Attacked(ids, marks)))
    assert [run.text for run in runs] == ["", "ü", "🙂"]
    assert [(run.start, run.end) for run in runs] == [(0, 1), (1, 3), (3, 6)]


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "wanted an attack and --data FILE; `coin attack --list` names the attacks"),
        (["random_vocabulary"], "wanted an attack and --data FILE"),
        (["--data", "DATA"], "wanted an attack and --data FILE"),
        (["magic", "--data", "DATA"], "no attack 'magic'; there are adaptive_best_of_64"),
        (["random_vocabulary", "--data", "none.jsonl"], "cannot read traces from none.jsonl"),
        (
            ["random_vocabulary", "--data", "DATA", "--trace", "x"],
            "no trace 'x' in the file; its first is 'math-01'",
        ),
        (["random_vocabulary", "--data", "DATA", "--rate", "0"], "the rate must lie in (0, 16]"),
        (
            ["forged_vectors", "--data", "DATA", "--placement", "scattered"],
            "forged_vectors is placed appended, interleaved; found 'scattered'",
        ),
        (["random_vocabulary", "--data", "DATA", "--seed", "-1"], "--seed"),
        (["random_vocabulary", "--data", "DATA", "--block-size", "0"], "--block-size"),
        (["random_vocabulary", "--data", "DATA", "--profile", "none"], "none"),
        (
            ["other_model_same_question", "--data", "DATA", "--trace", "math-02"],
            "no other model's reasoning on question 'math-02': give more traces",
        ),
    ],
)
def test_a_mistake_is_a_sentence(
    attack: Attack, data: Path, arguments: list[str], said: str
) -> None:
    done = attack(*(data if argument == "DATA" else argument for argument in arguments))
    assert done.code == 2
    assert said in done.said
    assert done.out == ""


def test_an_answer_that_is_empty_is_not_repeated(attack: Attack, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl.gz", [trace(GERMAN, answer="")])
    done = attack("answer_repeated", "--data", path)
    assert done.code == 2
    assert "this trace has no answer: take another one" in done.said
