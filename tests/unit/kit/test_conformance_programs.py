"""Programs that are asked cases: right ones, wrong ones, and those that do not behave."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coin_protocol.conformance import Case, Kind, Result, Status, run_cases, selected
from coin_protocol.conformance.judging import NotApplicable, NotMet
from coin_protocol.conformance.program import MAX_ANSWER_BYTES, Program, split_command
from coin_protocol.conformance.program_cases import ProgramCases
from coin_protocol.conformance.programs import perform
from coin_protocol.conformance.vectors import VectorCases
from coin_protocol.errors import ConfigurationError
from tests.support.command import ROOT

SECONDS = 60.0
Script = Callable[..., list[str]]

LOOP = """
import json, sys

def run(answer):
    if "--lines" in sys.argv:
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), flush=True)
    else:
        print(json.dumps(answer(json.load(sys.stdin))))
"""

VERIFIER = """
from coin_protocol import merkle
from coin_protocol.checks import run_checks
from coin_protocol.errors import VerificationError
from coin_protocol.v1 import receipt_pb2
from tests.unit.test_evidence_vectors import case_of, tiers_of

def raw(found):
    return [bytes.fromhex(one) for one in found]

def holds(document):
    if document["operation"] == "root":
        leaves = [merkle.leaf_hash(data) for data in raw(document["leaves"])]
        return merkle.root(leaves).hex() == document["root"]
    inputs = {
        name: raw(found) if name == "proof" else bytes.fromhex(found) if isinstance(found, str)
        else found
        for name, found in document.items() if name not in ("name", "about", "operation")
    }
    try:
        getattr(merkle, document["operation"])(**inputs)
    except VerificationError:
        return False
    return True

def answer(document):
    folder = document["name"].split("/")[0]
    if folder == "merkle":
        return {"holds": holds(document)}
    if folder != "evidence":
        return {"skipped": "audits and trees only"}
    case = case_of(document)
    report = run_checks(case)
    return {
        "failed": report.failed.code if report.failed else None,
        "outcome": receipt_pb2.Outcome.Name(report.outcome),
        "fault": receipt_pb2.Fault.Name(report.fault),
        "tiers": tiers_of(case, report),
    }

run(answer)
"""

PROVIDER = """
from base64 import b64decode
import numpy as np
from google.protobuf import json_format
from coin_protocol import draw
from coin_protocol.commitment import CommitmentBuilder, SessionSecret
from coin_protocol.opening import Opener
from coin_protocol.table import TokenTable
from coin_protocol.tokenizer import text_of
from coin_protocol.v1 import opening_pb2

class Spelled:
    def __init__(self, raw):
        self._raw = raw

    def token_bytes(self, token):
        return bytes.fromhex(self._raw[token])

def answer(document):
    given = document["input"]
    table = TokenTable(np.stack([np.frombuffer(bytes.fromhex(r), np.uint8) for r in given["rows"]]))
    secret = SessionSecret(*(bytes.fromhex(given[n]) for n in ("session_id", "session_secret")))
    size = given["block_size"]
    builder = CommitmentBuilder(secret, block_size=size, fingerprints=table.fingerprints)
    builder.append(given["token_ids"])
    windows = [[bytes.fromhex(row) for row in block] for block in given["windows"]]
    opener = Opener(secret, builder.finish(), windows, size, table)
    payload, flip = b64decode(given["challenge"]), bytes.fromhex(given["flip"])
    head = {
        "challenge_sha256": bytes.fromhex(given["challenge_sha256"]),
        "flip_index": given["flip_index"],
        "flip": flip,
    }
    if document["operation"] == "open":
        challenge = opening_pb2.Challenge.FromString(payload)
        drawn = draw.drawn_by(challenge, flip, opener.token_counts, run_tokens=given["run_tokens"])
        opening = opening_pb2.Opening(
            **head,
            blocks=map(opener.block, drawn.blocks),
            token_blocks=map(opener.token_block, drawn.token_blocks),
            edge=opener.edge(),
        )
    else:
        challenge = opening_pb2.WholeBlockChallenge.FromString(payload)
        spelled = Spelled(given["token_bytes"])
        drawn = draw.drawn_whole_by(challenge, flip, len(opener.token_counts))
        opening = opening_pb2.WholeBlockOpening(
            **head, blocks=[opener.whole(index, spelled) for index in drawn]
        )
    return {"opening": json_format.MessageToDict(opening)}

run(answer)
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    def write(text: str, *arguments: str) -> list[str]:
        path = tmp_path / "program.py"
        path.write_text(LOOP + text)
        return [sys.executable, str(path), *arguments]

    return write


def asked(command: list[str], cases: list[Case], *, lines: bool) -> list[Result]:
    with Program(command, seconds=SECONDS, lines=lines) as program:
        return run_cases(cases, lambda case: perform(program, case), lambda _: None)


def test_a_right_verifier_passes_every_vector_of_audits_and_trees(script: Script) -> None:
    cases = selected([VectorCases()], Kind.VERIFIER_PROGRAM)
    results = asked(script(VERIFIER, "--lines"), cases, lines=True)
    assert [one for one in results if one.status is Status.FAILED] == []
    passed = {one.case.name for one in results if one.status is Status.PASSED}
    assert passed == {case.name for case in cases if case.name.startswith(("merkle/", "evidence/"))}
    skipped = {one.came for one in results if one.status is Status.SKIPPED}
    assert skipped <= {"the program says: audits and trees only"}


def test_a_right_verifier_may_be_started_for_each_case(script: Script) -> None:
    cases = selected(
        [VectorCases()], Kind.VERIFIER_PROGRAM, ["merkle/root-of-3", "evidence/no-answer"]
    )
    results = asked(script(VERIFIER), cases, lines=False)
    assert {one.status for one in results} == {Status.PASSED}


def test_a_verifier_that_believes_everything_fails_the_attacks_and_nothing_else(
    script: Script,
) -> None:
    believing = """
run(lambda document: {
    "holds": True, "failed": None, "outcome": "OUTCOME_UNSPECIFIED",
    "fault": "FAULT_UNSPECIFIED", "tiers": document.get("tiers"),
})
"""
    names = ["merkle/*"]
    cases = selected([VectorCases()], Kind.VERIFIER_PROGRAM, names)
    for result in asked(script(believing, "--lines"), cases, lines=True):
        lied = not result.case.expect["holds"]
        assert result.status is (Status.FAILED if lied else Status.PASSED)
        if lied:
            assert (result.wanted, result.came) == ("holds false", "true")


def test_a_right_provider_opens_what_is_drawn(script: Script) -> None:
    cases = selected([ProgramCases()], Kind.PROVIDER_PROGRAM)
    results = asked(script(PROVIDER, "--lines"), cases, lines=True)
    assert [one for one in results if one.status is not Status.PASSED] == []


def test_another_salt_in_an_opening_is_named_by_its_place(script: Script) -> None:
    (case,) = selected([ProgramCases()], Kind.PROVIDER_PROGRAM, ["open/one-block"])
    wrong = PROVIDER.replace('"opening": json', '"opening": spoilt(opening) or json').replace(
        "def answer",
        "def spoilt(opening):\n    opening.edge.last_token.salt = bytes(16)\n\n\ndef answer",
    )
    (result,) = asked(script(wrong), [case], lines=False)
    assert result.status is Status.FAILED
    assert result.wanted.startswith("edge.last_token.salt ")
    assert result.came == bytes(16).hex()


# Comparing

VALUE = Case("one", "About.", Kind.VERIFIER_PROGRAM, "seed", {}, {"value": {"a": [1, True]}})
MISTAKE = {"about": "the words reversed", "value": {"a": [True, 1]}}


def came_of(answer: object, case: Case = VALUE) -> NotMet:
    command = [sys.executable, "-c", f"print({json.dumps(answer)!r})"]
    with (
        Program(command, seconds=SECONDS, lines=False) as program,
        pytest.raises(NotMet) as raised,
    ):
        perform(program, case)
    return raised.value


@pytest.mark.parametrize(
    ("answer", "wanted", "came"),
    [
        ({"value": {"a": [1, 1]}}, "value.a[1] true", "1"),
        ({"value": {"a": [1]}}, "value.a [1, true]", "[1]"),
        ({"value": {"b": 1}}, 'value {"a": [1, true]}', '{"b": 1}'),
        ({"value": None}, 'value {"a": [1, true]}', "null"),
        ({}, 'value {"a": [1, true]}', "no field 'value'"),
        ({"error": "bad"}, 'value {"a": [1, true]}', 'error "bad"'),
    ],
)
def test_the_first_difference_is_named(answer: object, wanted: str, came: str) -> None:
    found = came_of(answer)
    assert (found.wanted, found.came) == (wanted, came)


def test_a_known_mistake_is_named() -> None:
    case = Case("one", "About.", VALUE.kind, "seed", {}, {**VALUE.expect, "never": [MISTAKE]})
    assert came_of({"value": {"a": [True, 1]}}, case).came.endswith(
        "which comes of: the words reversed"
    )


def test_any_error_will_do_where_one_is_wanted() -> None:
    case = Case("one", "About.", VALUE.kind, "seed", {}, {"error": "LimitError"})
    command = [sys.executable, "-c", 'print(\'{"error": "too long"}\')']
    with Program(command, seconds=SECONDS, lines=False) as program:
        perform(program, case)
    assert came_of({"value": 1}, case).came == "value 1"
    assert came_of({"error": ""}, case).came == "fields ['error']"


def test_a_program_may_say_that_it_does_not_do_something() -> None:
    command = [sys.executable, "-c", 'print(\'{"skipped": "no models"}\')']
    with (
        Program(command, seconds=SECONDS, lines=False) as program,
        pytest.raises(NotApplicable, match="no models"),
    ):
        perform(program, VALUE)


def test_an_opening_that_is_none_is_told_of() -> None:
    (case,) = selected([ProgramCases()], Kind.PROVIDER_PROGRAM, ["open/one-block"])
    for answer in ({"opening": {"more": 1}}, {"opening": 1}, {"opening": {"flip_index": "x"}}):
        assert "Opening in protobuf's JSON form" in came_of(answer, case).wanted


# Programs that do not behave

HANGS = "import time; time.sleep(100)"
NEVER_ENDS = "print('{}', flush=True); import time; time.sleep(100)"
SPAMS = "import sys\nwhile True: sys.stderr.write('x' * 1000)"
LEAVES_A_CHILD = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', "
    "'import time; time.sleep(100)']); print('{}')"
)
MISBEHAVING = [
    (HANGS, "nothing within 0.5 s"),
    (NEVER_ENDS, "nothing within 0.5 s"),
    (SPAMS, "nothing within 0.5 s"),
    (LEAVES_A_CHILD, "nothing within 0.5 s"),
    ("print('x' * 5_000_000)", f"more than {MAX_ANSWER_BYTES} bytes"),
    ("", "nothing"),
    ("print('hello')", "'hello'"),
    ("print('[1]')", "'[1]'"),
    ("print('[' * 100_000)", "'[[["),
    ("import sys; sys.stdout.buffer.write(b'\\xff\\0')", "'\ufffd"),
    ("raise SystemExit(3)", "the program ended with 3"),
    ("import os; os.kill(os.getpid(), 9)", "the program ended with -9"),
    ("1 / 0", "its last words: ZeroDivisionError"),
    ("import os; os.close(0); os.close(1); os._exit(0)", "nothing"),
]


@pytest.mark.parametrize(("code", "came"), MISBEHAVING)
def test_a_program_that_does_not_behave_fails_its_case(code: str, came: str) -> None:
    seconds = 0.5 if "within" in came else SECONDS
    with (
        Program([sys.executable, "-c", code], seconds=seconds, lines=False) as program,
        pytest.raises(NotMet) as raised,
    ):
        program.ask({"a": "b" * 1_000_000})
    assert came in raised.value.came
    assert raised.value.advice


@pytest.mark.parametrize(
    ("code", "came"),
    [
        (HANGS, "nothing within 0.5 s"),
        (SPAMS, "nothing within 0.5 s"),
        ("print('{}')", "the program ended with 0"),
        ("raise SystemExit(3)", "the program ended with 3"),
        ("import os, time; os.close(1); time.sleep(100)", "it closed its output"),
        ("input(); print('hello', flush=True); input()", "'hello'"),
        ("print('x' * 5_000_000)", f"more than {MAX_ANSWER_BYTES} bytes"),
    ],
)
def test_a_program_that_does_not_stay_fails_its_cases(code: str, came: str) -> None:
    seconds = 0.5 if "within" in came else SECONDS
    with Program([sys.executable, "-c", code], seconds=seconds, lines=True) as program:
        found = []
        for _ in range(2):
            try:
                program.ask({"a": 1})
            except NotMet as error:
                found.append(error.came)
    assert any(came in one for one in found)


def test_a_program_that_dies_is_started_again_and_not_for_ever() -> None:
    dies = "input(); raise SystemExit(3)"
    found = []
    with Program([sys.executable, "-c", dies], seconds=SECONDS, lines=True) as program:
        for _ in range(6):
            with pytest.raises(NotMet) as raised:
                program.ask({})
            found.append(raised.value.came)
    assert found[:4] == ["the program ended with 3"] * 4
    assert found[4:] == ["the program was started 4 times and did not stay"] * 2


def test_two_lines_for_one_are_not_taken_for_the_next_answer() -> None:
    twice = "while input(): print('{}\\n{\"late\": 1}', flush=True)"
    with Program([sys.executable, "-c", twice], seconds=SECONDS, lines=True) as program:
        assert program.ask({}) == {}
        with pytest.raises(NotMet) as raised:
            program.ask({})
        assert "late" in raised.value.came
        assert program.ask({}) == {}  # started again


def test_nothing_of_a_program_lives_on(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        f"open({str(noted)!r}, 'w').write(str(child.pid))\n"
        "print('x' * 5_000_000)\n"
        "time.sleep(100)"
    )
    with (
        Program([sys.executable, "-c", code], seconds=SECONDS, lines=False) as program,
        pytest.raises(NotMet),
    ):
        program.ask({})
    pid = int(noted.read_text())
    for _ in range(100):
        # Killed with its group; whoever takes orphans up has to notice.
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("a process that the program started is still there")


@pytest.mark.parametrize("command", ["/nothing/there", str(Path(__file__).parent)])
def test_a_program_that_cannot_be_started_is_an_error_of_usage(command: str) -> None:
    with (
        Program([command], seconds=SECONDS, lines=False) as program,
        pytest.raises(ConfigurationError, match="cannot start"),
    ):
        program.ask({})


def test_commands_are_read_as_a_shell_reads_them() -> None:
    assert split_command("a 'b c' d\\ e") == ["a", "b c", "d e"]
    assert split_command(shlex.join(["x y"])) == ["x y"]
    for text in ("", "   ", "a 'b"):
        with pytest.raises(ConfigurationError):
            split_command(text)
