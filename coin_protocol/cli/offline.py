"""Commands that need files and keys only: receipts, bundles, policies."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from coin_protocol import envelope
from coin_protocol.checks import Trust
from coin_protocol.cli.common import (
    FAILED,
    OUT,
    PASSED,
    UNDECIDED,
    CaOption,
    JsonOption,
    OtherVerifiersOption,
    PolicyOption,
    ProfileOption,
    RootDomainOption,
    RootOption,
    as_document,
    load_policy,
    load_profile,
    load_trust,
    load_verifiers,
    outcome_name,
    print_json,
    printable,
    quiet_models,
    short_name,
    show_named,
    tier_name,
)
from coin_protocol.cli.receipts import print_checks, receipt_verify
from coin_protocol.errors import InvalidInputError, MissingDependencyError
from coin_protocol.files import read_file
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import pinned
from coin_protocol.models import Models
from coin_protocol.offline import verify_bundle
from coin_protocol.profile import Policy
from coin_protocol.receipt import read_bundle
from coin_protocol.replaying import Replayed, cannot_replay, judge_replayer
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


def bundle_verify(  # noqa: PLR0913, PLR0917 - the options of a command
    file: FileArgument,
    verifier_key: Annotated[
        Path,
        typer.Option(help="Verifier's public key (PEM) that you pin."),
    ],
    other_verifier: OtherVerifiersOption = None,
    root: RootOption = None,
    root_domain: RootDomainOption = None,
    ca: CaOption = None,
    profile: ProfileOption = "default",
    policy: PolicyOption = "default",
    judge: Annotated[
        str,
        typer.Option(
            help="As the audit had it. policy: what the policy names; rules: its cosine rules; "
            "or a model file it names."
        ),
    ] = "policy",
    reference_model: Annotated[
        str | None,
        typer.Option(help="The one that the audit had; else its scores are taken as given."),
    ] = None,
    *,
    checks_only: Annotated[
        bool,
        typer.Option("--checks-only", help="Do not judge again: needs no packages of a verifier."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Decide an audit again, offline: does its evidence give this verdict, bit for bit?

    Exit code 0: it does, whatever the verdict. 1: it does not, and the first difference is named.
    With --checks-only, 3: blocks opened whole could not be embedded again here.
    """
    bundle = read_bundle(read_file(file))
    name = parse(receipt_pb2.Verdict, bundle.verdict.payload).verifier or "verifier"
    own = VerificationKey.from_pem(name, read_file(verifier_key))
    # The other keys are for challenges in the evidence: their word is not what was asked about.
    envelope.verify(bundle.verdict, envelope.VERDICT, pinned("verifiers", [own]))
    trust = load_trust(root, root_domain, ca, load_verifiers(own, other_verifier))
    rules = load_policy(policy)
    loaded = load_profile(profile)
    quiet_models()
    models = Models(loaded)
    if checks_only:
        if judge != "policy" or reference_model is not None:
            msg = "--judge and --reference-model judge again: leave out --checks-only"
            raise InvalidInputError(msg)
        raise typer.Exit(_recheck(bundle, trust, models, rules, as_json=as_json))
    try:
        found = judge_replayer()(
            bundle,
            trust=trust,
            models=models,
            policy=rules,
            judge=judge,
            reference=reference_model,
        )
    except (MissingDependencyError, ModuleNotFoundError) as error:
        raise cannot_replay(error) from error
    same = found.difference is None
    if as_json:
        print_json(
            {
                "same": same,
                "difference": None if found.difference is None else asdict(found.difference),
                "replayed": {"checks": True, "judge": found.judge, "reference": found.reference},
                "borne_out": same,
                "unchecked": [],
                "matches": found.matches,
                "verdict": as_document(found.verdict),
            }
        )
    else:
        print_checks(found.report.results)
        print_verdict(found.verdict)
        _print_replay(found)
    raise typer.Exit(PASSED if same else FAILED)


def _recheck(
    bundle: receipt_pb2.Bundle, trust: Trust, models: Models, policy: Policy, *, as_json: bool
) -> int:
    """Check what follows from the evidence alone; return the exit code."""
    try:
        installed = (models.tokenizer, models.embedder) if bundle.whole_rounds else None
    except MissingDependencyError:
        installed = None
    found = verify_bundle(
        bundle, trust=trust, profile=models.profile, policy=policy, installed=installed
    )
    if as_json:
        print_json(
            {
                "same": None,
                "difference": None,
                "replayed": {"checks": not found.unchecked, "judge": False, "reference": False},
                "borne_out": not found.unchecked,
                "unchecked": list(found.unchecked),
                "verdict": as_document(found.verdict),
            }
        )
    else:
        print_checks(found.report.results)
        print_verdict(found.verdict)
        if found.unchecked:
            OUT.print(
                f"[yellow]not checked here[/]: {', '.join(found.unchecked)} need the "
                "profile's models: install coin-audit\\[embedding]"
            )
        else:
            OUT.print("[green]borne out[/]: the evidence gives this verdict.")
        OUT.print("[yellow]not replayed[/]: the judge's part, which is the verifier's word.")
    return UNDECIDED if found.unchecked else PASSED


def _print_replay(found: Replayed) -> None:
    if found.difference is None:
        how = "checks and judge" if found.judge else "checks; no judge was asked"
        OUT.print(f"[green]the same verdict[/], bit for bit: {how}.")
    else:
        OUT.print(f"[bold red]another verdict[/]: first difference at {found.difference.path}")
        for who, said in (
            ("the bundle", found.difference.found),
            ("the replay", found.difference.replayed),
        ):
            OUT.print(f"  {who}: {printable(said)}", markup=False, highlight=False)
    if found.matches:
        OUT.print(
            f"Blocks of other sessions: {found.matches} noted, by the verifier's own word.",
            highlight=False,
        )
    if found.reference is False:
        OUT.print(
            "[yellow]not replayed[/]: the scores of a reference model; give it by "
            "--reference-model."
        )


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
