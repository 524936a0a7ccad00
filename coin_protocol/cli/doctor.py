"""`coin doctor`: what is wrong with an installation, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Final

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from coin_protocol.cli.common import (
    ERR,
    FAILED,
    OUT,
    JsonOption,
    print_json,
    printable,
    quiet_models,
)
from coin_protocol.doctor import Finding, State, examine_installation, wrong
from coin_protocol.errors import CoinError

_GROUP: Final = "coin.doctors"
_COLOURS: Final = {State.GOOD: "green", State.NOTE: "yellow", State.WRONG: "bold red"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    provider: Annotated[
        Path | None, typer.Option(help="Settings of a provider to look at as well.", exists=True)
    ] = None,
    verifier: Annotated[
        Path | None, typer.Option(help="Settings of a verifier to look at as well.", exists=True)
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Look at this installation and say what is wrong with it and what to do; change nothing.

    Exit code 1 where something has to be mended.
    """
    quiet_models()
    given = {"provider": provider, "verifier": verifier}
    with ERR.status("looking"):
        found = [("installation", one) for one in examine_installation()]
        for component, file in given.items():
            if file is not None:
                found += [(component, one) for one in _examined(component, file)]
    if as_json:
        print_json(
            {
                "findings": [
                    {
                        "component": component,
                        "what": one.what,
                        "state": str(one.state),
                        "found": one.found,
                        "advice": one.advice,
                    }
                    for component, one in found
                ]
            }
        )
    else:
        _show(found)
    if any(one.state is State.WRONG for _, one in found):
        raise typer.Exit(FAILED)


def _examined(component: str, file: Path) -> Iterator[Finding]:
    """Give what a component's own examination finds."""
    try:
        for entry in entry_points(group=_GROUP, name=component):
            yield from entry.load()(file)
    except ModuleNotFoundError as error:
        advice = f"pip install 'coin-audit[{component}]'"
        yield wrong("packages", f"{error.name} is not installed", advice)
    except CoinError as error:
        yield wrong("settings", str(error), f"mend {file}")


def _show(found: list[tuple[str, Finding]]) -> None:
    table = Table("", "what", box=box.SIMPLE_HEAD)
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for _, one in found:
        state = f"[{_COLOURS[one.state]}]{one.state}[/]"
        texts = (one.what, one.found, one.advice)
        table.add_row(state, *(escape(printable(text)) for text in texts))
    OUT.print(table)
    counts = Counter(one.state for _, one in found)
    OUT.print(f"{counts[State.WRONG]} to mend, {counts[State.NOTE]} to know of")
