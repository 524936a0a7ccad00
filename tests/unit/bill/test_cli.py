"""`coin bill check`: what people and machines are shown, and the exit code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import verifier_sdk
from coin_protocol.receipt import write_file
from tests.support.command import ROOT, Coin
from tests.unit.bill.making import DATA, Provider, chat, line, wrapped, write_lines
from verifier_sdk.bill import Code, Verdict, cli

PRICES = 'currency = "USD"\n[models.acme-large]\ninput = "30"\noutput = "180"\n'


def made(folder: Path, *rows: dict[str, Any]) -> Path:
    return write_lines(folder / "bill.jsonl", rows)


def kept(folder: Path, acme: Provider, *ids: str) -> Path:
    rows = [wrapped(acme.receipt(seed=each), each) for each in ids]
    return write_lines(folder / "receipts.jsonl", rows)


def sound(reply: str, **instead: Any) -> dict[str, Any]:
    return line(chat(20, 350, 300), id=reply, **instead)


# Exit codes


def test_all_lines_borne_out_is_code_0(
    bill: Coin, acme: Provider, root: list[str | Path], tmp_path: Path
) -> None:
    path = made(tmp_path, sound("a"), sound("b"))
    done = bill("check", path, "--receipts", kept(tmp_path, acme, "a", "b"), *root)
    assert done.code == 0
    assert "2 lines bill 700 generated tokens" in done.said
    assert "Nothing that could be checked disagrees" in done.said
    assert "Receipts bear out 700 generated tokens" in done.said
    assert "provider's word" not in done.said
    assert "equal" not in done.said


def test_nothing_found_and_no_receipt_is_code_0_and_says_on_whose_word(
    bill: Coin, tmp_path: Path
) -> None:
    done = bill("check", made(tmp_path, sound("a")))
    assert done.code == 0
    assert "rest on the provider's word: no receipts were given" in done.said


def test_a_finding_is_code_1(bill: Coin, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(PRICES)
    path = made(tmp_path, line(chat(14_746, 1_944, 1_360), cost="1.04", currency="USD"), sound("b"))
    done = bill("check", path, "--prices", tmp_path / "prices.toml")
    assert done.code == 1
    for wanted in ("counted_twice", "REASONING_PRICED_TWICE", "0.7923", "0.2477 USD"):
        assert wanted in done.out
    assert "1 line with 1,944 generated tokens and 1.04 USD raises findings" in done.said
    # What nobody can check is not listed line by line.
    assert "missing_receipt" not in done.out


@pytest.mark.parametrize("text", ["", "generation_id,created_at\n", '{"a": 1\n{"b": 2\n'])
def test_without_a_readable_line_nothing_is_decided_code_3(
    bill: Coin, tmp_path: Path, text: str
) -> None:
    (tmp_path / "bill.jsonl").write_text(text)
    done = bill("check", tmp_path / "bill.jsonl")
    assert done.code == 3
    assert "nothing was decided" in done.said


def test_money_alone_decides_nothing_code_3(bill: Coin) -> None:
    done = bill("check", DATA / "anthropic_costs.csv")
    assert done.code == 3
    assert "state money alone, 2.00 USD" in done.said


def test_one_line_that_cannot_be_read_is_code_3_and_named(bill: Coin, tmp_path: Path) -> None:
    done = bill("check", made(tmp_path, sound("a"), line({"prompt_tokens": -1})))
    assert done.code == 3
    assert "malformed" in done.out
    assert "1 line could not be read" in done.said


def test_a_finding_beside_a_line_that_cannot_be_read_is_code_1(bill: Coin, tmp_path: Path) -> None:
    twice = line(chat(20, 350, 300, total=670))
    assert bill("check", made(tmp_path, twice, {"time": 1})).code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["none.csv"],
        [DATA / "coin.jsonl", "--format", "word"],
        [DATA / "coin.jsonl", "--format", "litellm"],
        [DATA / "coin.jsonl", "--vendor", "acme"],
        [DATA / "coin.jsonl", "--receipts", "none"],
        [DATA / "coin.jsonl", "--requests", "none.jsonl"],
        [DATA / "coin.jsonl", "--requests", DATA / "openai_costs.csv"],
        [DATA / "coin.jsonl", "--prices", "none.toml"],
        [DATA / "coin.jsonl", "--prices", DATA / "coin.jsonl"],
        [DATA / "coin.jsonl", "--max-rate", "0"],
        [DATA / "coin.jsonl", "--ca", DATA / "coin.jsonl"],
        [DATA / "coin.jsonl", "--verifier-key", DATA / "coin.jsonl"],
        [DATA / "coin.jsonl", "--other-verifier", f"other={DATA / 'coin.jsonl'}"],
        [DATA / "coin.jsonl", "--root", DATA / "coin.jsonl"],
        [],
    ],
    ids=lambda arguments: " ".join(str(each).rpartition("/")[2] for each in arguments),
)
def test_wrong_usage_is_code_2_and_a_sentence(bill: Coin, arguments: list[str | Path]) -> None:
    done = bill("check", *arguments)
    assert done.code == 2
    assert done.err
    assert done.out == ""


def test_it_explains_itself(bill: Coin) -> None:
    done = bill("check", "--help")
    assert done.code == 0
    for option in ("--receipts", "--requests", "--format", "--prices", "--vendor", "--json"):
        assert option in done.out
    assert "check" in bill("--help").out


# Receipts


def test_without_a_root_receipts_prove_nothing_and_it_is_said(
    bill: Coin, acme: Provider, tmp_path: Path
) -> None:
    done = bill("check", made(tmp_path, sound("a")), "--receipts", kept(tmp_path, acme, "a"))
    assert done.code == 0
    assert "whose signatures to believe was not said (--root)" in done.said
    assert "bear out" not in done.said


def test_a_folder_of_receipts(
    bill: Coin, acme: Provider, root: list[str | Path], tmp_path: Path
) -> None:
    folder = tmp_path / "receipts"
    folder.mkdir()
    write_file(folder / "one.binpb", acme.receipt())
    write_file(folder / "two.json", acme.receipt(seed="two", prompt=21))
    document = bill("check", made(tmp_path, line(chat(20, 350, 300))), "--receipts", folder, *root)
    assert document.code == 0
    assert "1 receipts are of no line of this bill" in document.said


def test_receipts_may_lie_in_several_places(
    bill: Coin, acme: Provider, root: list[str | Path], tmp_path: Path
) -> None:
    one = write_lines(tmp_path / "1.jsonl", [wrapped(acme.receipt(seed="a"), "a")])
    other = write_lines(tmp_path / "2.jsonl", [wrapped(acme.receipt(seed="b"), "b")])
    path = made(tmp_path, sound("a"), sound("b"))
    done = bill("check", path, "--receipts", one, "--receipts", other, *root, "--json")
    assert done.document["totals"]["verdicts"]["equal"] == 2


def test_a_receipt_that_does_not_verify_is_named(
    bill: Coin,
    acme: Provider,
    root: list[str | Path],
    tmp_path: Path,
) -> None:
    forged = write_lines(tmp_path / "r.jsonl", [wrapped(Provider().receipt(), "a"), {}])
    done = bill("check", made(tmp_path, sound("a")), "--receipts", forged, *root)
    assert done.code == 1
    assert "invalid_receipt" in done.out
    said = "".join(done.said.split())  # long names of files are folded
    assert "r.jsonl:1" in said
    assert "r.jsonl:2" in said
    assert acme.name


def test_a_line_without_receipt_is_shown_where_receipts_were_given(
    bill: Coin, acme: Provider, root: list[str | Path], tmp_path: Path
) -> None:
    path = made(tmp_path, sound("a"), sound("b"))
    done = bill("check", path, "--receipts", kept(tmp_path, acme, "a"), *root)
    assert done.code == 0
    assert done.out.count("missing_receipt") == 1
    assert "350 generated tokens rest on the provider's word" in done.said


# What people see


def test_all_shows_every_line(bill: Coin, tmp_path: Path) -> None:
    path = made(tmp_path, *(sound(f"reply-{number}") for number in range(3)))
    assert "missing_receipt" not in bill("check", path).out
    assert bill("check", path, "--all").out.count("missing_receipt") == 3


def test_all_shows_more_lines_than_a_page(bill: Coin, tmp_path: Path) -> None:
    path = made(tmp_path, *(sound(f"reply-{number}") for number in range(501)))
    assert bill("check", path, "--all").out.count("missing_receipt") == 501


def test_only_so_many_lines_are_shown_those_with_findings_first(
    bill: Coin, acme: Provider, tmp_path: Path
) -> None:
    twice = [line(chat(20, 350, 300, total=670)) for _ in range(101)]
    path = made(tmp_path, sound("first"), *twice)
    done = bill("check", path, "--receipts", kept(tmp_path, acme, "other"))
    assert done.out.count("counted_twice") == 100
    assert "first" not in done.out
    assert "2 more lines are like these; --all shows every line" in done.said


def test_what_others_wrote_cannot_command_the_terminal(bill: Coin, tmp_path: Path) -> None:
    evil = "\x1b[2J\x9b2J\u202e=HYPERLINK(1)[red]\n"
    row = line(chat(20, 350, 300, total=670), id=f"a{evil}", model=f"m{evil}")
    for arguments in ((), ("--all",), ("--json",)):
        done = bill("check", made(tmp_path, row), *arguments)
        assert done.code == 1
        for harmful in ("\x1b", "\x9b", "\u202e"):
            assert harmful not in done.out
    assert "[red]" in bill("check", made(tmp_path, row)).out


def test_errors_cannot_command_it_either(bill: Coin, tmp_path: Path) -> None:
    (tmp_path / "bill.csv").write_text("a\x1b[2J,a\x1b[2J\n1,2\n")
    done = bill("check", tmp_path / "bill.csv")
    assert done.code == 2
    assert "\x1b" not in done.err


def test_long_texts_are_cut(bill: Coin, tmp_path: Path) -> None:
    row = line(chat(20, 350, 300, total=670), model="m" * 400)
    done = bill("check", made(tmp_path, row))
    assert "mmmmm" in done.out
    assert "…" in done.out
    assert done.out.count("m") < 340


def test_two_findings_of_a_line_are_shown_with_all_their_numbers(
    bill: Coin, tmp_path: Path
) -> None:
    listed = tmp_path / "prices.toml"
    listed.write_text('currency = "USD"\n[models.acme-large]\ninput = "30"\noutput = "180"\n')
    row = line(chat(20, 120, 100, total=240), cost="0.0402", currency="USD")
    done = bill("check", made(tmp_path, row), "--prices", listed)
    assert "with the 100 reasoning tokens once more 0.0402" in " ".join(done.out.split())
    assert "…" not in done.out


def test_a_long_bill_shows_how_far_it_is_to_whoever_looks(
    bill: Coin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path, *(sound(str(number)) for number in range(200)))
    assert bill("check", path).err == ""
    seen = io.StringIO()
    monkeypatch.setattr(cli, "ERR", Console(file=seen, force_terminal=True, width=100))
    assert "checking" not in seen.getvalue()
    monkeypatch.setattr(cli, "_LONG", 0)
    done = bill("check", path)
    assert "checking" in seen.getvalue()
    assert "checking" not in done.out


# What machines see


def test_json_is_one_object_with_stable_names(
    bill: Coin, acme: Provider, root: list[str | Path], tmp_path: Path
) -> None:
    (tmp_path / "prices.toml").write_text(PRICES)
    rows = [
        sound("a", cost="0.0636", currency="USD"),
        line(chat(20, 350, 300, total=670), id="b", cost="0.1", currency="USD"),
        {"time": 1},
    ]
    options = ["--receipts", kept(tmp_path, acme, "a"), "--prices", tmp_path / "prices.toml"]
    done = bill("check", made(tmp_path, *rows), *options, *root, "--json")
    assert done.code == 1
    document = done.document
    assert set(document) == {
        *("schema", "bill", "assumptions", "receipts", "totals", "sentence", "exit_code", "lines"),
    }
    assert document["schema"] == "coin.bill-check.v1"
    assert document["exit_code"] == 1
    assert document["bill"]["form"] == "coin"
    assert document["receipts"]["verified"] == 1
    assert document["receipts"]["rooted"] is True
    assert document["assumptions"]["max_tokens_per_second"] == 5000
    equal, twice, malformed = document["lines"]
    assert set(equal) == set(twice) == set(malformed)
    assert (equal["verdict"], equal["receipt"], equal["tier"]) == ("equal", "verified", "asserted")
    assert equal["matched_by"] == "id"
    assert equal["committed"]["reasoning_tokens"] == 300
    assert equal["billed"]["cost"] == "0.0636"
    assert equal["expected_cost"] == "0.063600"
    assert twice["verdict"] == "counted_twice"
    assert [each["code"] for each in twice["findings"]] == [
        "REASONING_COUNTED_TWICE",
        "PRICE_ABOVE_LIST",
    ]
    assert set(twice["findings"][0]) == {
        *("code", "verdict", "weight", "sentence", "tokens", "money"),
    }
    assert twice["findings"][0]["tokens"] == 300
    assert malformed["verdict"] == "malformed"
    assert malformed["billed"] is None
    assert "lacks" in malformed["reason"]
    totals = document["totals"]
    assert totals["lines"] == 3
    assert totals["verdicts"]["equal"] == totals["verdicts"]["malformed"] == 1
    assert set(totals["verdicts"]) == {verdict.value for verdict in Verdict}
    assert totals["billed"]["money"] == {"USD": "0.1636"}
    assert totals["borne_out"]["generated_tokens"] == 350
    assert totals["disputed"]["money"] == {"USD": "0.1"}
    assert totals["unverifiable"]["lines"] == 0
    assert totals["findings"]["REASONING_COUNTED_TWICE"]["tokens"] == 300
    assert totals["findings"]["REASONING_COUNTED_TWICE"]["money"] == {"USD": "0.054000"}


def test_json_has_every_line(bill: Coin, tmp_path: Path) -> None:
    path = made(tmp_path, *(sound(f"reply-{number}") for number in range(250)))
    document = bill("check", path, "--json").document
    assert [each["line"] for each in document["lines"]] == list(range(1, 251))


def test_no_half_object_is_printed_where_a_bill_breaks_off(
    bill: Coin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verifier_sdk.bill.source.MAX_LINES", 2)
    done = bill("check", made(tmp_path, *(sound(str(each)) for each in range(3))), "--json")
    assert done.code == 2
    assert done.out == ""


def test_long_reports_go_by_way_of_a_file(
    bill: Coin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_IN_MEMORY", 10)
    assert len(bill("check", made(tmp_path, sound("a")), "--json").document["lines"]) == 1


def test_currencies_are_never_added_up(bill: Coin, tmp_path: Path) -> None:
    rows = [sound("a", cost="0.1", currency="USD"), sound("b", cost="0.2", currency="EUR")]
    done = bill("check", made(tmp_path, *rows), "--json")
    assert done.document["totals"]["billed"]["money"] == {"EUR": "0.2", "USD": "0.1"}
    assert "0.20 EUR + 0.10 USD" in bill("check", made(tmp_path, *rows)).said


def test_money_is_exact(bill: Coin, tmp_path: Path) -> None:
    rows = [sound(str(each), cost=0.1, currency="USD") for each in range(10)]
    document = bill("check", made(tmp_path, *rows), "--json").document
    assert document["totals"]["billed"]["money"] == {"USD": "1.0"}


def test_requests_and_rates_are_taken(bill: Coin, tmp_path: Path) -> None:
    requests = write_lines(
        tmp_path / "requests.jsonl",
        [{"id": "a", "max_tokens": 100, "sent_at": 1790856000, "ended_at": 1790856001}],
    )
    path = made(tmp_path, sound("a"))
    done = bill("check", path, "--requests", requests, "--max-rate", "100", "--json")
    found = {each["code"] for each in done.document["lines"][0]["findings"]}
    assert found == {Code.COMPLETION_ABOVE_CAP, Code.FASTER_THAN_DECODING}
    assert done.document["assumptions"]["max_tokens_per_second_from"] == "as given"


# With the core alone


BLOCK = """
import sys
from importlib.abc import MetaPathFinder
HEAVY = {heavy}
class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY or name in HEAVY:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Refuse())
"""
EXTRAS = [
    *("torch", "safetensors", "sentence_transformers", "mistral_common", "tokenizers"),
    *("grpc_status", "grpc_health", "grpc_reflection", "google.rpc", "aiohttp", "sqlalchemy"),
    *("orjson", "structlog", "prometheus_client", "alembic", "openai", "hypothesis"),
]


def python(code: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-c", BLOCK.format(heavy=EXTRAS) + code]
    env = os.environ | {"COLUMNS": "200"}
    return subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_it_runs_with_the_core_install_alone() -> None:
    code = f"sys.argv = ['coin', 'check', {str(DATA / 'coin.jsonl')!r}, '--json']\n"
    code += "from verifier_sdk.bill.cli import app\napp()"
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["totals"]["lines"] == 2


def test_importing_the_package_needs_no_server_and_no_model() -> None:
    code = "import verifier_sdk.bill, verifier_sdk; print(*sys.modules)"
    done = python(code)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert not {"grpc", "torch", "verifier_sdk.auditor", "verifier_sdk.client"} & loaded


def test_the_packages_public_names_are_still_there() -> None:
    found = [getattr(verifier_sdk, name).__name__ for name in verifier_sdk.__all__]
    assert found == ["Auditor", "ProviderClient", "Recorder"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = verifier_sdk.nothing
