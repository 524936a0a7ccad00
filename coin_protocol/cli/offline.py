"""Commands that need files and keys only: receipts, bundles, policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from coin_protocol.checks import CHECKS, Case, run_checks
from coin_protocol.cli.common import (
    OUT,
    PASSED,
    UNDECIDED,
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
    quiet_models,
    short_name,
    show_named,
    tier_name,
)
from coin_protocol.errors import MissingDependencyError
from coin_protocol.files import read_file
from coin_protocol.keyset import pinned, pinned_verifiers
from coin_protocol.models import Models
from coin_protocol.offline import verify_bundle
from coin_protocol.receipt import read_bundle, read_receipt
from coin_protocol.statements import parse
from coin_protocol.v1 import receipt_pb2

FileArgument = Annotated[Path, typer.Argument(help="Protobuf or JSON form.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for name, help_text, command, verb in (
        ("receipt", "Receipts of single replies.", receipt_verify, "verify"),
        ("bundle", "Audits with all their evidence.", bundle_verify, "verify"),
        ("policy", "A verifier's own rules.", policy_show, "show"),
    ):
        group = typer.Typer(help=help_text, no_args_is_help=True)
        group.command(verb)(command)
        # Without a callback typer would drop the verb of a group with one command.
        group.callback()(_group)
        app.add_typer(group, name=name)


def _group() -> None:
    pass


def receipt_verify(
    file: FileArgument,
    root: RootOption = None,
    root_domain: RootDomainOption = None,
    ca: CaOption = None,
    profile: ProfileOption = "default",
    policy: PolicyOption = "default",
    *,
    as_json: JsonOption = False,
) -> None:
    """Check a receipt: signatures, key windows, binding to request and answer, bill, times.

    Nothing is opened, so the count stays the provider's word until the receipt is audited.
    """
    receipt = read_receipt(read_file(file))
    case = Case(
        receipt=receipt,
        trust=load_trust(root, root_domain, ca, pinned("verifiers", ())),
        profile=load_profile(profile),
        policy=load_policy(policy),
    )
    report = run_checks(case)
    code = PASSED if report.failed is None else exit_code(report.outcome)
    if as_json:
        print_json(
            {
                "outcome": "PASS" if report.failed is None else outcome_name(report.outcome),
                "tier": tier_name(receipt_pb2.TIER_ASSERTED),
                "failed_checks": [report.failed.code] if report.failed else [],
                "fault": short_name(receipt_pb2.Fault.Name(report.fault), "FAULT_"),
                "detail": report.detail,
                "checks": [as_document(result) for result in report.results],
            }
        )
    else:
        _print_checks(report.results)
        if report.failed is None:
            commitment = case.commitment
            OUT.print(
                f"sound: {printable(commitment.provider)} committed to "
                f"{commitment.reasoning_tokens} reasoning tokens and bills as many. "
                "Tier: asserted; audit the receipt to have the count proven.",
                markup=False,
            )
        else:
            OUT.print(f"[red]{report.failed.code}[/]")
            OUT.print(f"{printable(report.detail)}. {report.failed.advice}", markup=False)
    raise typer.Exit(code)


def bundle_verify(
    file: FileArgument,
    verifier_key: Annotated[
        Path,
        typer.Option(help="Verifier's public key (PEM) that you pin."),
    ],
    root: RootOption = None,
    root_domain: RootDomainOption = None,
    ca: CaOption = None,
    profile: ProfileOption = "default",
    policy: PolicyOption = "default",
    *,
    as_json: JsonOption = False,
) -> None:
    """Check an audit again, offline: does the evidence bear out the verdict?

    Exit code 0: it does, whatever the verdict. 1: it does not. 3: blocks opened whole could
    not be embedded again here.
    """
    bundle = read_bundle(read_file(file))
    name = parse(receipt_pb2.Verdict, bundle.verdict.payload).verifier or "verifier"
    loaded = load_profile(profile)
    quiet_models()
    models = Models(loaded)
    try:
        installed = (models.tokenizer, models.embedder) if bundle.whole_rounds else None
    except MissingDependencyError:
        installed = None
    verifiers = pinned_verifiers({name: read_file(verifier_key)})
    found = verify_bundle(
        bundle,
        trust=load_trust(root, root_domain, ca, verifiers),
        profile=loaded,
        policy=load_policy(policy),
        installed=installed,
    )
    verdict = found.verdict
    if as_json:
        print_json(
            {
                "borne_out": not found.unchecked,
                "unchecked": list(found.unchecked),
                "verdict": as_document(verdict),
            }
        )
    else:
        _print_checks(found.report.results)
        print_verdict(verdict)
        if found.unchecked:
            OUT.print(
                f"[yellow]not checked here[/]: {', '.join(found.unchecked)} need the "
                "profile's models: install coin-audit\\[embedding]"
            )
        else:
            OUT.print("[green]borne out[/]: the evidence gives this verdict.")
    raise typer.Exit(UNDECIDED if found.unchecked else PASSED)


def policy_show(
    name: Annotated[str, typer.Argument(help="File, or the one that ships: default.")] = (
        "default"
    ),
    *,
    as_json: JsonOption = False,
) -> None:
    """Show a policy and the digest that names it."""
    loaded = load_policy(name)
    show_named(loaded.digest, as_document(loaded.message), as_json=as_json)


def print_verdict(verdict: receipt_pb2.Verdict) -> None:
    """Print a verdict for people."""
    outcome = outcome_name(verdict.outcome)
    colour = {"PASS": "green", "FAIL": "red"}.get(outcome, "yellow")
    tiers = ", ".join(map(tier_name, verdict.tiers))
    OUT.print(f"[bold {colour}]{outcome}[/]  tier [bold]{tier_name(verdict.tier)}[/] ({tiers})")
    if verdict.fault:
        fault = short_name(receipt_pb2.Fault.Name(verdict.fault), "FAULT_")
        OUT.print(f"contradicts: {fault}")
    exposure = verdict.exposure
    OUT.print(
        f"exposed: {exposure.tokens} tokens, {exposure.block_embeddings} block embeddings, "
        f"{exposure.whole_blocks} whole blocks"
    )
    for reason in verdict.reasons:
        OUT.print(f"- {printable(reason)}", markup=False)


def _print_checks(results: Sequence[receipt_pb2.CheckResult]) -> None:
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
