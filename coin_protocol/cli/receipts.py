"""`coin receipt verify`: one receipt in full, or a line for each of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.table import Table

from coin_protocol.checks import CHECKS, Trust
from coin_protocol.cli.common import (
    FAILED,
    OUT,
    PASSED,
    UNDECIDED,
    WRONG_USAGE,
    CaOption,
    JsonOption,
    PolicyOption,
    ProfileOption,
    RootDomainOption,
    RootOption,
    as_document,
    exit_code,
    load_policy,
    load_profile,
    load_trust,
    outcome_name,
    print_json,
    printable,
    short_name,
    tier_name,
)
from coin_protocol.collection import Found, collected, is_collection
from coin_protocol.errors import InvalidInputError
from coin_protocol.files import read_file
from coin_protocol.keyset import pinned
from coin_protocol.offline import CheckedReceipt, verify_receipt
from coin_protocol.profile import Policy, Profile
from coin_protocol.receipt import read_receipt
from coin_protocol.v1 import receipt_pb2

_SEVERITY: Final = (PASSED, UNDECIDED, WRONG_USAGE, FAILED)
"""Exit codes from best to worst: of many receipts the worst one's is given."""
_UNREADABLE: Final = "UNREADABLE"
_NOTE: Final = "NO RECEIPT"
_CODES: Final = {
    "PASS": PASSED,
    "INCONCLUSIVE": UNDECIDED,
    "FAIL": FAILED,
    _UNREADABLE: WRONG_USAGE,
}
_COLOURS: Final = {"PASS": "green", "FAIL": "red"}

PathsArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Receipts, protobuf or JSON form; folders of them; .jsonl files with one a line.",
        metavar="PATH...",
    ),
]


def receipt_verify(
    paths: PathsArgument,
    root: RootOption = None,
    root_domain: RootDomainOption = None,
    ca: CaOption = None,
    profile: ProfileOption = "default",
    policy: PolicyOption = "default",
    *,
    as_json: JsonOption = False,
) -> None:
    """Check receipts: signatures, key windows, binding to request and answer, bill, times.

    Nothing is opened, so the count stays the provider's word until the receipt is audited. Of
    several receipts each gets a line, and the worst one gives the exit code. Needs no network.
    """
    reader = _Reader(
        load_trust(root, root_domain, ca, pinned("verifiers", ())),
        load_profile(profile),
        load_policy(policy),
    )
    if len(paths) == 1 and not is_collection(paths[0]):
        code = _one(reader, paths[0], as_json=as_json)
    else:
        code = _many(reader, paths, as_json=as_json)
    raise typer.Exit(code)


class _Reader:
    """Checks receipts with what one command was given."""

    def __init__(self, trust: Trust, profile: Profile, policy: Policy) -> None:
        self._trust, self._profile, self._policy = trust, profile, policy

    def check(self, receipt: receipt_pb2.Receipt) -> CheckedReceipt:
        return verify_receipt(
            receipt, trust=self._trust, profile=self._profile, policy=self._policy
        )


def _one(reader: _Reader, path: Path, *, as_json: bool) -> int:
    checked = reader.check(read_receipt(read_file(path)))
    report = checked.report
    if as_json:
        checks = [as_document(result) for result in report.results]
        print_json({**_document(checked), "checks": checks})
        return exit_code(checked.outcome)
    print_checks(report.results)
    _print_findings(checked)
    if report.failed is None and checked.commitment is not None:
        commitment = checked.commitment
        OUT.print(
            f"sound: {printable(commitment.provider)} committed to "
            f"{commitment.reasoning_tokens} reasoning tokens and bills as many. "
            "Tier: asserted; audit the receipt to have the count proven.",
            markup=False,
        )
    elif report.failed is not None:
        OUT.print(f"[red]{report.failed.code}[/]")
        OUT.print(f"{printable(report.detail)}. {report.advice}", markup=False)
    return exit_code(checked.outcome)


def _many(reader: _Reader, paths: Sequence[Path], *, as_json: bool) -> int:
    documents: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    reasoning = 0
    for found in collected(paths):
        checked = None if found.receipt is None else reader.check(found.receipt)
        outcome = _outcome(found, checked)
        counts[outcome] += 1
        if outcome == "PASS" and checked is not None and checked.commitment is not None:
            reasoning += checked.commitment.reasoning_tokens
        if as_json:
            documents.append(_entry(found, checked, outcome))
        else:
            _print_line(found, checked, outcome)
    code = max((_CODES.get(each, PASSED) for each in counts), key=_SEVERITY.index, default=PASSED)
    if not counts:
        msg = (
            f"{', '.join(map(str, paths))}: no receipts; wanted files whose names end in .json, "
            ".binpb, .receipt, .bundle, .jsonl or .ndjson"
        )
        raise InvalidInputError(msg)
    if code == PASSED and not counts["PASS"]:
        # Notes alone: there was nothing to check.
        code = UNDECIDED
    summary = {
        "receipts": sum(counts.values()) - counts[_NOTE],
        "sound": counts["PASS"],
        "failed": counts["FAIL"],
        "undecided": counts["INCONCLUSIVE"],
        "unreadable": counts[_UNREADABLE],
        "without_receipt": counts[_NOTE],
        "sound_reasoning_tokens": reasoning,
    }
    if as_json:
        print_json({"exit_code": code, "summary": summary, "receipts": documents})
        return code
    OUT.print(
        "{receipts} receipts: {sound} sound, {failed} failed, {undecided} undecided, "
        "{unreadable} unreadable. Replies without a receipt: {without_receipt}. The sound receipts "
        "commit to {sound_reasoning_tokens} reasoning tokens.".format_map(summary),
        soft_wrap=True,
        highlight=False,
    )
    return code


def _outcome(found: Found, checked: CheckedReceipt | None) -> str:
    if checked is not None:
        return outcome_name(checked.outcome)
    return _UNREADABLE if found.problem else _NOTE


def _document(checked: CheckedReceipt) -> dict[str, Any]:
    """Return what is said of a receipt, for programs."""
    report, commitment = checked.report, checked.commitment
    document: dict[str, Any] = {
        "outcome": outcome_name(checked.outcome),
        "tier": tier_name(receipt_pb2.TIER_ASSERTED),
        "failed_checks": [report.failed.code] if report.failed else [],
        "fault": short_name(receipt_pb2.Fault.Name(report.fault), "FAULT_"),
        "detail": report.detail,
        "findings": {
            each.name: {"holds": each.holds, "detail": each.detail} for each in checked.findings
        },
        "signed": None,
    }
    if commitment is not None:
        signed = as_document(commitment)
        wanted = (
            *("provider", "model", "reasoning_tokens", "answer_tokens", "usage"),
            *("id_source", "abort_reason", "started_at", "ended_at"),
        )
        document["signed"] = {name: signed[name] for name in wanted}
    return document


def _entry(found: Found, checked: CheckedReceipt | None, outcome: str) -> dict[str, Any]:
    named = {"name": found.name, "response_id": found.response_id}
    if checked is not None:
        return {**named, **_document(checked)}
    return {**named, "outcome": outcome, "detail": found.problem}


def _print_line(found: Found, checked: CheckedReceipt | None, outcome: str) -> None:
    said = [found.name, found.response_id]
    if checked is None:
        said.append(found.problem)
    elif checked.report.failed is not None:
        fault = short_name(receipt_pb2.Fault.Name(checked.report.fault), "FAULT_")
        said.append(f"{checked.report.failed.code} ({fault}): {checked.report.detail}")
    elif checked.commitment is not None:
        timed = next(each for each in checked.findings if each.name == "timed")
        said.append(f"{checked.commitment.provider} {checked.commitment.model}")
        said.append(f"{checked.commitment.reasoning_tokens} reasoning tokens")
        said.append("timed: " + timed.detail)
    text = "  ".join(printable(each) for each in said if each)
    colour = _COLOURS.get(outcome, "yellow")
    OUT.print(f"[{colour}]{outcome:12}[/]", end=" ")
    OUT.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_findings(checked: CheckedReceipt) -> None:
    marks = {True: "[green]yes[/]", False: "[red]no[/]", None: "-"}
    table = Table("finding", "", "", box=box.SIMPLE_HEAD)
    for each in checked.findings:
        table.add_row(each.name.replace("_", " "), marks[each.holds], _escaped(each.detail))
    OUT.print(table)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))


def print_checks(results: Sequence[receipt_pb2.CheckResult]) -> None:
    """Print the checks that ran; those without evidence are only counted."""
    claims = {check.code: check.claim for check in CHECKS}
    marks = {
        receipt_pb2.CHECK_STATUS_PASSED: "[green]passed[/]",
        receipt_pb2.CHECK_STATUS_FAILED: "[red]FAILED[/]",
    }
    table = Table("check", "", "claim", box=box.SIMPLE_HEAD)
    ran = [result for result in results if result.status in marks]
    for result in ran:
        table.add_row(result.code, marks[result.status], claims[result.code])
    OUT.print(table)
    if len(ran) < len(results):
        OUT.print(f"{len(results) - len(ran)} more checks had no evidence to look at.")
