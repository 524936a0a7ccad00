"""What both commands of `coin conformance` share: choosing cases, a bar, and the report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import typer

from coin_protocol.cli.common import (
    ERR,
    FAILED,
    OUT,
    PASSED,
    UNDECIDED,
    print_json,
    printable,
)
from coin_protocol.conformance.case import SHIPPED, Case, CaseSource, FolderCases, Kind, selected
from coin_protocol.conformance.judging import Result, Status, Told, run_cases
from coin_protocol.conformance.report import Report
from coin_protocol.errors import InvalidInputError
from coin_protocol.files import replace_file

Drive = Callable[[Told], Coroutine[Any, Any, list[Result]]]

_COLOURS: Final = {Status.PASSED: "green", Status.FAILED: "bold red", Status.SKIPPED: "yellow"}
_WIDTH: Final = max(map(len, Status))


class Showing:
    """Chooses cases and shows what came of them, as one command was told."""

    def __init__(
        self,
        folders: Sequence[Path] | None,
        only: Sequence[str] | None,
        junit: Path | None,
        *,
        as_list: bool,
        as_json: bool,
    ) -> None:
        """Keep what the command was told.

        Args:
            folders: Of further cases.
            only: Patterns of names; all where there are none.
            junit: File to write.
            as_list: Whether the cases are shown and none is run.
            as_json: Whether one JSON object is printed.
        """
        self._sources: list[CaseSource] = [FolderCases(path) for path in folders or ()]
        self._only = tuple(only or ())
        self._junit = junit
        self._as_list = as_list
        self._as_json = as_json

    def live(
        self, kind: Kind, operations: Mapping[str, object], more: Sequence[CaseSource] = ()
    ) -> list[Case] | None:
        """Return the cases for a target in the order in which they run; None after `--list`.

        Raises:
            InvalidInputError: One is malformed, or asks for what is not known.
        """
        sources = [FolderCases(SHIPPED), *more, *self._sources]
        order = {name: place for place, name in enumerate(operations)}
        chosen = selected(sources, kind, self._only)
        for case in chosen:
            if case.operation not in order:
                msg = (
                    f"case {case.name}: operation {case.operation!r} is none of "
                    f"{', '.join(operations)}"
                )
                raise InvalidInputError(msg)
        chosen.sort(key=lambda case: order[case.operation])
        if self._as_list:
            self._list(chosen)
            return None
        return chosen

    def put_to_program(
        self, kind: Kind, command: str | None, seconds: float, *, lines: bool
    ) -> None:
        """Put the cases of a kind to a program."""
        from coin_protocol.conformance.program import Program, split_command
        from coin_protocol.conformance.program_cases import ProgramCases
        from coin_protocol.conformance.programs import perform
        from coin_protocol.conformance.vectors import VectorCases

        chosen = selected([VectorCases(), ProgramCases(), *self._sources], kind, self._only)
        if self._as_list:
            self._list(chosen)
            return
        words = split_command(command or "")
        with (
            Program(words, seconds=seconds, lines=lines) as program,
            _progress(len(chosen)) as told,
        ):
            results = run_cases(chosen, lambda case: perform(program, case), told)
        self._show(Report(command or "", kind, results))

    def run_live(self, target: str, kind: Kind, chosen: Sequence[Case], drive: Drive) -> None:
        """Drive a target and show what came of it."""
        with _progress(len(chosen)) as told:
            results = asyncio.run(drive(told))
        self._show(Report(target, kind, results))

    def _list(self, chosen: Sequence[Case]) -> None:
        if self._as_json:
            print_json(
                {
                    "cases": [
                        {"name": case.name, "about": case.about, "operation": case.operation}
                        for case in chosen
                    ]
                }
            )
            return
        width = max(len(case.name) for case in chosen)
        for case in chosen:
            _line(f"{case.name:{width}}  {printable(case.about)}")

    def _show(self, report: Report) -> None:
        """Show a report, and end the command.

        Raises:
            Exit: Always.
        """
        code = FAILED if report.failed else PASSED if report.decided else UNDECIDED
        if self._as_json:
            print_json({"exit_code": code, **report.document()})
        else:
            _print(report)
        if self._junit is not None:
            replace_file(self._junit, report.junit().encode())
        raise typer.Exit(code)


def _print(report: Report) -> None:
    for result in report.results:
        status = f"[{_COLOURS[result.status]}]{result.status:{_WIDTH}}[/]"
        OUT.print(status, end="  ")
        why = f"  {printable(result.came)}" if result.status is Status.SKIPPED else ""
        _line(f"{result.case.name}{why}")
        if result.status is not Status.FAILED:
            continue
        for what, text in (
            ("about", result.case.about),
            ("wanted", result.wanted),
            ("came", result.came),
            ("what to do", result.advice),
        ):
            if text:
                _line(f"{'':{_WIDTH}}  {what + ':':11} {printable(text)}")
    counts = report.counts
    _line(
        f"{printable(report.target)}: {counts['passed']} passed, {counts['failed']} failed, "
        f"{counts['skipped']} skipped"
    )


def _line(text: str) -> None:
    OUT.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress(total: int) -> Iterator[Told]:
    """Give what is told of each result, and shows a bar on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=ERR, transient=True, disable=not ERR.is_terminal) as progress:
        task = progress.add_task("cases", total=total)

        def told(result: Result) -> None:
            progress.update(task, advance=1, description=result.case.name[:40])

        yield told
