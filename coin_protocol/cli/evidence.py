"""`coin evidence`: does a file prove that somebody signed two things that exclude each other?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coin_protocol.cli.common import (
    FAILED,
    OUT,
    CaOption,
    JsonOption,
    RootDomainOption,
    RootOption,
    load_trust,
    print_json,
    printable,
)
from coin_protocol.errors import InvalidInputError, VerificationError
from coin_protocol.evidence import Finding, read_evidence, verify_evidence
from coin_protocol.files import read_file
from coin_protocol.keyset import pinned
from coin_protocol.note import NoteVerifier


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(help="Two statements that nobody honest signs both.", no_args_is_help=True)
    group.command("verify")(verify)
    # Without a callback typer would drop the verb of a group with one command.
    group.callback()(_group)
    app.add_typer(group, name="evidence")


def _group() -> None:
    pass


def verify(
    file: Annotated[Path, typer.Argument(help="Protobuf or JSON form.")],
    root: RootOption = None,
    root_domain: RootDomainOption = None,
    ca: CaOption = None,
    log_key: Annotated[
        str | None,
        typer.Option(
            help="Verifier key of the log (NAME+HASH+BASE64), or a file that holds it; for "
            "evidence of two heads."
        ),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Check evidence, offline: two commitments to one session, or two heads of one log.

    Exit code 0: it proves what it says. 1: it proves nothing.
    """
    evidence = read_evidence(read_file(file))
    trust = None
    if root or root_domain or ca:
        trust = load_trust(root, root_domain, ca, pinned("verifiers", ()))
    key = None if log_key is None else read_log_key(log_key)
    try:
        finding = verify_evidence(evidence, trust=trust, log_key=key)
    except VerificationError as error:
        if not as_json:
            raise
        print_json({"proven": False, "reason": str(error)})
        raise typer.Exit(FAILED) from error
    _show(finding, as_json=as_json)


def read_log_key(given: str) -> NoteVerifier:
    """Return a log's key, from its text or from a file that holds it.

    Raises:
        InvalidInputError: It is neither.
    """
    if given.count("+") > 1:
        return NoteVerifier.from_vkey(given)
    try:
        return NoteVerifier.from_vkey(read_file(Path(given)).decode().strip())
    except UnicodeDecodeError as error:
        msg = f"{given} holds no verifier key; wanted one line NAME+HASH+BASE64"
        raise InvalidInputError(msg) from error


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "proven": True,
                "kind": finding.kind.value,
                "party": finding.party,
                "subject": finding.subject,
                "first": finding.first.hex(),
                "second": finding.second.hex(),
                "finding": finding.sentence,
                "caveats": list(finding.caveats),
            }
        )
        return
    OUT.print(f"proven: {printable(finding.sentence)}", markup=False, soft_wrap=True)
    for caveat in finding.caveats:
        OUT.print(printable(caveat), markup=False, soft_wrap=True)
