"""`coin bill`: is this month's bill right?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Annotated, Final

import typer

from coin_protocol.checks import Trust
from coin_protocol.cli.common import (
    ERR,
    FAILED,
    OUT,
    PASSED,
    UNDECIDED,
    CaOption,
    JsonOption,
    OtherVerifiersOption,
    PolicyOption,
    RootDomainOption,
    RootOption,
    load_other_verifiers,
    load_policy,
    load_profile,
    load_trust,
)
from coin_protocol.errors import InvalidInputError
from coin_protocol.files import read_file
from coin_protocol.keyset import pinned
from verifier_sdk.bill.formats import AUTO, FORMATS
from verifier_sdk.bill.receipts import Examiner, State

if TYPE_CHECKING:
    from verifier_sdk.bill.book import ReceiptBook
    from verifier_sdk.bill.check import BillCheck
    from verifier_sdk.bill.totals import Totals

_IN_MEMORY: Final = 16 << 20
_EVERY: Final = 100
_LONG: Final = 4 << 20
"""Bytes from which on a bar shows how far it is."""

app = typer.Typer(help="Bills and usage exports.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Bills and usage exports."""


@app.command("check")
def check(  # noqa: PLR0913 - the options of a command
    bill: Annotated[Path, typer.Argument(help="Invoice or usage export: CSV, JSON or JSON Lines.")],
    *,
    receipts: Annotated[
        list[Path] | None,
        typer.Option("--receipts", help="Folder or JSON Lines with receipts. May be repeated."),
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(help="JSON Lines: what you kept of your requests, by reply id."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help=f"Form of the bill: {', '.join((AUTO, *FORMATS))}.")
    ] = AUTO,
    prices: Annotated[
        Path | None, typer.Option(help="Price list that you wrote, TOML or JSON.")
    ] = None,
    vendor: Annotated[
        str | None,
        typer.Option(help="Whose convention the counts follow, where the bill does not say."),
    ] = None,
    root: RootOption = None,
    root_domain: RootDomainOption = None,
    ca: CaOption = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(help="Profile that receipts are made under; by default both that ship."),
    ] = None,
    policy: PolicyOption = "default",
    verifier_key: Annotated[
        list[Path] | None,
        typer.Option(help="Public key (PEM) of a verifier whose audits you believe."),
    ] = None,
    other_verifier: OtherVerifiersOption = None,
    max_rate: Annotated[
        float | None,
        typer.Option(help="Greatest plausible tokens a second; by default the policy's.", min=1),
    ] = None,
    as_json: JsonOption = False,
    show_all: Annotated[
        bool, typer.Option("--all", help="Show every line, equal ones and those without receipt.")
    ] = False,
) -> None:
    """Check every line of a bill: alone, against your prices and requests, and its receipt.

    Exit code 0: nothing that could be checked disagrees. 1: there are findings. 3: no line, or
    not every line, could be read.
    """
    from verifier_sdk.bill.check import BillCheck
    from verifier_sdk.bill.prices import PriceList
    from verifier_sdk.bill.requests import Requests
    from verifier_sdk.bill.totals import Totals

    rules = load_policy(policy)
    trust = _trust(root, root_domain, ca)
    loaded = [load_profile(name) for name in profile or ["default", "demo"]]
    examiner = Examiner(
        trust,
        {each.digest: each for each in loaded},
        rules,
        _own_keys(verifier_key, trust, other_verifier),
        load_other_verifiers(other_verifier),
    )
    book = _read_book(receipts, examiner)
    checking = BillCheck(
        bill,
        form=form,
        vendor=vendor,
        book=book,
        requests=None if requests is None else Requests.from_file(requests),
        prices=None if prices is None else PriceList.from_file(prices),
        policy=rules,
        max_rate=max_rate,
    )
    totals = Totals()
    with _progress(checking.passes * checking.source.size) as told:
        if as_json:
            _print_json(checking, totals, book, told, rooted=trust is not None)
        else:
            _print(checking, totals, book, told, rooted=trust is not None, show_all=show_all)
    raise typer.Exit(_exit_code(totals))


def _exit_code(totals: Totals) -> int:
    if totals.findings:
        return FAILED
    return UNDECIDED if not totals.checked or totals.malformed else PASSED


def _trust(
    roots: list[Path] | None, domains: list[str] | None, authorities: Path | None
) -> Trust | None:
    if not roots and not domains and authorities is None:
        return None
    return load_trust(roots, domains, authorities, pinned("verifiers", ()))


def _own_keys(
    paths: list[Path] | None, trust: Trust | None, others: list[str] | None
) -> list[bytes]:
    """Return the keys of `--verifier-key`, once it is clear that they can do something."""
    if paths and trust is None:
        msg = "--verifier-key needs --root or --root-domain: an audit is of a receipt that verifies"
        raise InvalidInputError(msg)
    if others and not paths:
        msg = "--other-verifier needs --verifier-key: it helps to read an audit that you believe"
        raise InvalidInputError(msg)
    return [read_file(path) for path in paths or ()]


def _read_book(paths: list[Path] | None, examiner: Examiner) -> ReceiptBook:
    from verifier_sdk.bill.book import ReceiptBook

    with ERR.status("reading receipts") as status:

        def told(count: int) -> None:
            if count % _EVERY == 0:
                status.update(f"reading receipts: {count:,}")

        return ReceiptBook.read(paths or (), examiner, told)


def _receipts_document(
    book: ReceiptBook, checking: BillCheck, *, rooted: bool
) -> dict[str, object]:
    return {
        "read": len(book),
        **{state: book.states[state] for state in State},
        "rooted": rooted,
        "without_line": checking.unused_receipts,
        "problem_count": book.problem_count,
        "problems": [{"origin": each.origin, "reason": each.reason} for each in book.problems],
    }


def _print_json(
    checking: BillCheck,
    totals: Totals,
    book: ReceiptBook,
    told: Callable[[int], object],
    *,
    rooted: bool,
) -> None:
    """Print one object; nothing of it before all of it is known, nor all of it in memory."""
    from verifier_sdk.bill.report import head_document, line_document, sentence, totals_document

    with SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="ascii") as file:
        separator = ""
        for checked in checking.lines(told):
            totals.put(checked)
            file.write(separator + json.dumps(line_document(checked)))
            separator = ", "
        tail = {
            **head_document(checking),
            "receipts": _receipts_document(book, checking, rooted=rooted),
            "totals": totals_document(totals),
            "sentence": sentence(totals, receipts=len(book), rooted=rooted),
            "exit_code": _exit_code(totals),
        }
        file.seek(0)
        sys.stdout.write(json.dumps(tail).removesuffix("}") + ', "lines": [')
        _copy(file, sys.stdout)
        sys.stdout.write("]}\n")
        sys.stdout.flush()


def _copy(source: IO[str], target: IO[str]) -> None:
    while chunk := source.read(1 << 20):
        target.write(chunk)


@contextmanager
def _progress(size: int) -> Iterator[Callable[[int], object]]:
    """Give what is told of bytes read; shows a bar where that takes long and somebody looks."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    shown = ERR.is_terminal and size >= _LONG
    with Progress(*columns, console=ERR, transient=True, disable=not shown) as progress:
        task = progress.add_task("checking", total=size)
        step = max(size // 1000, 1)
        last = 0

        def told(position: int) -> None:
            nonlocal last
            if position - last >= step:
                last = position
                progress.update(task, completed=position)

        yield told


def _print(
    checking: BillCheck,
    totals: Totals,
    book: ReceiptBook,
    told: Callable[[int], object],
    *,
    rooted: bool,
    show_all: bool,
) -> None:
    from verifier_sdk.bill.screen import LinesShown, print_summary

    shown = LinesShown(OUT, everything=show_all, receipts=len(book) > 0)
    for checked in checking.lines(told):
        totals.put(checked)
        shown.put(checked)
    shown.finish()
    print_summary(OUT, checking, totals, book, rooted=rooted)
