"""Reports: text, JSON and JUnit XML; and what the command says where something is wrong."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console

from coin_protocol.conformance import Case, Kind, Result, Status
from coin_protocol.conformance.judging import NotApplicable, NotMet, run_cases
from coin_protocol.conformance.report import Report
from tests.support.command import Coin

CASES = [
    Case(name, f"About {name}.", Kind.PROVIDER, "call", advice="Mend it." if name == "b" else "")
    for name in "abcd"
]
NASTY = "\x1b[31m<&\"'>\x00\ud800 ]]>\nnext"


def judge(case: Case) -> None:
    if case.name == "b":
        raise NotMet(wanted=NASTY, came=NASTY)
    if case.name == "c":
        raise NotApplicable(NASTY)
    if case.name == "d":
        raise NotMet(wanted="x", came="y", advice="Do this.", hint="or that")


@pytest.fixture
def report() -> Report:
    told: list[Result] = []
    results = run_cases(CASES, judge, told.append)
    assert told == results
    return Report("127.0.0.1:1 " + NASTY, "provider", results)


def test_results_say_what_came_of_each_case(report: Report) -> None:
    assert [one.status for one in report.results] == [
        *(Status.PASSED, Status.FAILED, Status.SKIPPED, Status.FAILED),
    ]
    assert report.counts == {"passed": 1, "failed": 2, "skipped": 1}
    assert report.failed
    assert report.decided
    assert [one.advice for one in report.results] == ["", "Mend it.", "", "Do this."]


def test_a_failure_always_says_what_to_do() -> None:
    def fail(case: Case) -> None:
        raise NotMet(wanted=case.name, came="nothing")

    for kind in Kind:
        (result,) = run_cases([Case("a", "A.", kind, "call")], fail, lambda _: None)
        assert result.advice


def test_a_report_of_skipped_cases_decides_nothing() -> None:
    skipped = [Result(CASES[0], Status.SKIPPED, came="why")]
    assert not Report("", "provider", skipped).decided
    assert not Report("", "provider", skipped).failed


def test_the_document_has_every_case(report: Report) -> None:
    document = json.loads(json.dumps(report.document()))
    assert document["summary"] == {"passed": 1, "failed": 2, "skipped": 1}
    assert [case["name"] for case in document["cases"]] == list("abcd")
    assert document["cases"][1]["wanted"] == NASTY


def test_junit_is_xml_whatever_was_said(report: Report) -> None:
    # Our own output.
    root = ET.fromstring(report.junit())  # noqa: S314
    assert root.tag == "testsuites"
    (suite,) = root
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "2", "errors": "0", "skipped": "1"}
    properties, *cases = suite
    target = properties[0].get("value")
    assert target is not None
    assert target.startswith("127.0.0.1:1 ")
    assert [case.get("name") for case in cases] == list("abcd")
    assert all(case.get("classname") == "coin.provider.call" for case in cases)
    assert all(float(case.get("time") or "") >= 0 for case in cases)
    assert [[child.tag for child in case] for case in cases] == [
        *([], ["failure"], ["skipped"], ["failure"]),
    ]
    shown = NASTY.replace("\x1b", "\ufffd").replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert cases[2][0].get("message") == shown
    assert cases[1][0].get("message") == f"wanted {shown}; came {shown}"
    assert cases[1][0].text == f"About b.\nwanted: {shown}\ncame: {shown}\nwhat to do: Mend it."


# The command

COMMAND = f'{sys.executable} -c "print(\'{{\\"holds\\": false}}\')"'


def test_the_text_is_aligned_and_says_what_to_do(coin: Coin) -> None:
    done = coin("conformance", "verifier", "--command", COMMAND, "--only", "merkle/*of-[12]")
    assert done.code == 1
    assert "\x1b" not in done.out
    lines = done.out.splitlines()
    failures = [line for line in lines if line.startswith("failed ")]
    assert failures[0] == "failed   merkle/inclusion-0-of-1"
    about = lines.index(failures[0]) + 1
    assert [line.split()[0] for line in lines[about : about + 4]] == [
        *("about:", "wanted:", "came:", "what"),
    ]
    assert len({line.index(line.split(": ")[1].strip()) for line in lines[about : about + 4]}) == 1
    assert lines[-1].endswith(f"0 passed, {len(failures)} failed, 0 skipped")


def test_json_and_junit_tell_the_same(coin: Coin, tmp_path: Path) -> None:
    file = tmp_path / "report.xml"
    done = coin(
        *("conformance", "verifier", "--command", COMMAND, "--only", "merkle/*size-zero*"),
        *("--json", "--junit", file),
    )
    document = done.document
    assert (done.code, document["exit_code"]) == (0, 0)
    assert document["summary"]["failed"] == 0
    suite = ET.fromstring(file.read_text())[0]  # noqa: S314 - our own output
    assert suite.get("tests") == str(len(document["cases"]))


def test_where_nothing_was_decided_the_code_is_3(coin: Coin) -> None:
    skips = COMMAND.replace('\\"holds\\": false', '\\"skipped\\": \\"not here\\"')
    done = coin("conformance", "verifier", "--command", skips, "--only", "merkle/root-of-1")
    assert done.code == 3
    assert "skipped  merkle/root-of-1  the program says: not here" in done.out


@pytest.mark.parametrize("kind", ["provider", "verifier"])
@pytest.mark.parametrize("more", [[], ["--command", "x"]])
def test_cases_are_listed_without_a_target(coin: Coin, kind: str, more: list[str]) -> None:
    shown = coin("conformance", kind, "--list", *more)
    listed = coin("conformance", kind, "--list", "--json", *more)
    assert (shown.code, listed.code) == (0, 0)
    names = [case["name"] for case in listed.document["cases"]]
    assert [line.split()[0] for line in shown.out.splitlines()] == names
    assert len(names) > 5


def test_cases_of_ones_own_are_put_beside_those_that_ship(coin: Coin, tmp_path: Path) -> None:
    case: dict[str, object] = {
        "name": "mine",
        "about": "Mine.",
        "kind": "verifier-program",
        "operation": "seed",
        "input": {"input": 1},
        "expect": {"holds": False},
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "case.json").write_text(json.dumps(case))
    options = ("--cases", tmp_path, "--only", "mine", "--command", COMMAND)
    done = coin("conformance", "verifier", *options)
    assert (done.code, done.out.splitlines()[0]) == (0, "passed   mine")
    live = case | {"kind": "provider", "expect": {"status": ["OK"]}}
    (tmp_path / "mine" / "case.json").write_text(json.dumps(live))
    done = coin("conformance", "provider", "--cases", tmp_path, "--list")
    assert done.code == 2
    assert "operation 'seed' is none of health" in done.said


WRONG = [
    (["provider"], "say what to drive"),
    (["verifier"], "say what to drive"),
    (["provider", "--target", "a:1", "--command", "x"], "not both"),
    (["verifier", "--lines"], "--lines goes with --command"),
    (["verifier", "--command", "'"], "No closing quotation"),
    (["verifier", "--command", "/nothing/there"], "cannot start"),
    (["provider", "--only", "nothing"], "named like nothing"),
    (["provider", "--target", "127.0.0.1:1"], "say whom to believe"),
    (["provider", "--target", "127.0.0.1:1", "--name", "me"], "--key and --name go together"),
    (["verifier", "--target", "127.0.0.1:1", "--verifier", "me"], "go together"),
    (["verifier", "--target", "acme.example:1"], "is not this machine"),
    (["verifier", "--target", "nowhere"], "wanted HOST:PORT"),
    (["verifier", "--cases", "/nothing/there"], "does not exist"),
    (["verifier", "--target", "127.0.0.1:1", "--profile", "missing"], "profile file missing"),
    (["verifier", "--target", "127.0.0.1:1", "--log-key", "missing"], "cannot read missing"),
    (["provider", "--command", "true", "--junit", "/nothing/there.xml"], "cannot write"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG, ids=[" ".join(given) for given, _ in WRONG])
def test_wrong_usage_is_code_2_and_a_sentence(coin: Coin, arguments: list[str], says: str) -> None:
    done = coin("conformance", *arguments)
    assert done.code == 2
    assert says in done.said


def test_a_target_that_is_not_there_is_code_3(coin: Coin) -> None:
    done = coin("conformance", "verifier", "--target", "127.0.0.1:1", "--timeout", "0.3")
    assert done.code == 3
    assert "could not be reached within 0.3 s" in done.said


def test_what_the_runners_own_providers_need_is_named_where_it_is_missing(
    coin: Coin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "coin_protocol.conformance.own_providers", None)
    own = ("--keys", tmp_path, "--verifier", "a=b")
    done = coin("conformance", "verifier", "--target", "127.0.0.1:1", *own)
    assert done.code == 2
    assert "install coin-audit[provider]" in done.said
    listed = coin("conformance", "verifier", "--list")
    assert listed.code == 0
    assert "lie-" not in listed.out


@pytest.mark.parametrize("kind", ["provider", "verifier"])
def test_programs_are_asked_without_the_packages_of_servers(
    coin: Coin, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in ("challenging", "provider", "verifier", "wire"):
        monkeypatch.setitem(sys.modules, f"coin_protocol.conformance.{name}", None)
    assert coin("conformance", kind, "--command", "x", "--list").code == 0
    assert coin("conformance", kind, "--target", "127.0.0.1:1").code == 2


def test_a_bar_is_shown_on_terminals_alone(coin: Coin, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("conformance", "verifier", "--command", COMMAND, "--only", "merkle/root-of-1")
    assert coin(*options).err == ""
    terminal = Console(stderr=True, force_terminal=True)
    monkeypatch.setattr("coin_protocol.conformance.showing.ERR", terminal)
    assert "1/1" in coin(*options).err
