"""A bill's verdicts on a terminal. What others wrote is shown without what could command it."""

from __future__ import annotations

from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coin_protocol.cli.common import printable
from verifier_sdk.bill.book import ReceiptBook
from verifier_sdk.bill.check import BillCheck, Checked
from verifier_sdk.bill.codes import VERDICT_OF, Verdict, Weight
from verifier_sdk.bill.report import money_text, sentence, short, why
from verifier_sdk.bill.totals import Totals

_MOST: Final = 100
_PAGE: Final = 500
_QUIET: Final = frozenset({Verdict.EQUAL, Verdict.MISSING_RECEIPT, Verdict.NO_COUNTS})
_MOST_CHARACTERS: Final = 300
_MOST_REASONS: Final = 600
"""Characters: two findings with their numbers."""
_NAME: Final = 34
"""Characters: the id of a reply, as most vendors make them."""


class LinesShown:
    """The table of lines, in memory only as far as it is shown."""

    def __init__(self, console: Console, *, everything: bool, receipts: bool) -> None:
        """Show all lines, or those that people should look at.

        Args:
            console: Where to.
            everything: Every line; pages of the table then appear as they are full.
            receipts: Whether any were given, so that a line without one is worth showing.
        """
        self._console, self._everything = console, everything
        self._hidden = _QUIET - {Verdict.MISSING_RECEIPT} if receipts else _QUIET
        self._loud: list[Checked] = []
        self._quiet: list[Checked] = []
        self._left = 0

    def put(self, checked: Checked) -> None:
        """Take a line."""
        if self._everything:
            self._loud.append(checked)
            if len(self._loud) == _PAGE:
                self._print(self._loud)
                self._loud.clear()
            return
        if checked.verdict in self._hidden:
            return
        kept = self._quiet if checked.verdict in _QUIET else self._loud
        if len(kept) < _MOST:
            kept.append(checked)
        else:
            self._left += 1

    def finish(self) -> None:
        """Print what was taken and not yet printed; lines with findings come first."""
        room = _MOST - len(self._loud)
        rows = [*self._loud, *self._quiet[: max(room, 0)]]
        left = self._left + len(self._quiet) + len(self._loud) - len(rows)
        if rows:
            self._print(rows)
        if left:
            self._console.print(f"{left:,} more lines are like these; --all shows every line.")

    def _print(self, rows: list[Checked]) -> None:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("line", justify="right", no_wrap=True)
        table.add_column("billed", overflow="fold", max_width=_NAME)
        table.add_column("verdict", no_wrap=True)
        table.add_column("why", overflow="fold", ratio=1)
        for checked in rows:
            table.add_row(*_row(checked))
        self._console.print(table)


def print_summary(
    console: Console, checking: BillCheck, totals: Totals, book: ReceiptBook, *, rooted: bool
) -> None:
    """Print the sums, the receipts that do not count, and one plain sentence."""
    _print_findings(console, totals)
    for reason, count in totals.unpriced.most_common(5):
        console.print(_plain(f"not priced: {count:,} lines, {reason}"))
    for problem in book.problems[:5]:
        console.print(_plain(f"not a receipt that counts: {problem.origin}: {problem.reason}"))
    if book.problem_count > 5:
        console.print(f"{book.problem_count - 5:,} more receipts do not count; --json names them.")
    if checking.source.more:
        console.print("The last page of the export says that there are more: fetch them, too.")
    if checking.unused_receipts:
        console.print(f"{checking.unused_receipts:,} receipts are of no line of this bill.")
    console.print(_plain(sentence(totals, receipts=len(book), rooted=rooted)), soft_wrap=True)


def _print_findings(console: Console, totals: Totals) -> None:
    if not totals.findings:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("finding", no_wrap=True)
    table.add_column("it is a")
    for name in ("lines", "tokens too many", "money too much"):
        table.add_column(name, justify="right")
    for code, found in sorted(totals.findings.items(), key=lambda each: -each[1].lines):
        table.add_row(
            code,
            VERDICT_OF[code][1],
            f"{found.lines:,}",
            f"{found.tokens:,}" if found.tokens else "",
            money_text(found.money),
        )
    console.print(table)


def _row(checked: Checked) -> list[Text | str]:
    line, reported = checked.line, checked.reported
    said = []
    if line is not None:
        said = [line.name, line.model]
        if reported is not None:
            said.append(f"{reported.generated:,} tokens")
        if line.cost is not None:
            said.append(f"{short(line.cost)} {line.currency}")
    return [
        str(checked.number),
        Text("\n").join(_plain(each) for each in said if each),
        Text(checked.verdict, _colour(checked)),
        _plain(why(checked), _MOST_REASONS),
    ]


def _colour(checked: Checked) -> str:
    if any(finding.weight is Weight.CONTRADICTION for finding in checked.findings):
        return "red"
    if checked.findings or checked.verdict is Verdict.MALFORMED:
        return "yellow"
    return "green" if checked.verdict is Verdict.EQUAL else ""


def _plain(text: str, most: int = _MOST_CHARACTERS) -> Text:
    """Return others' text as it is, on one line, not too long, and commanding nothing."""
    flat = printable(" ".join(text.split()))
    if len(flat) > most:
        flat = f"{flat[:most]}…"
    return Text(flat)
