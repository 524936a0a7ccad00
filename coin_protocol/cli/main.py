"""The command line, put together from what the installed packages bring."""

from __future__ import annotations

import io
import sys
from importlib.metadata import entry_points
from typing import Final

import typer

from coin_protocol.cli import conformance, doctor, evidence, keys, offline, profiles, setup
from coin_protocol.cli.common import guarded

_GROUP: Final = "coin.commands"


def build() -> typer.Typer:
    """Return the command line with the commands of all installed packages."""
    app = typer.Typer(
        name="coin",
        help="Check an LLM bill that nobody can see.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        add_completion=False,
    )
    offline.add_to(app)
    evidence.add_to(app)
    keys.add_to(app)
    profiles.add_to(app)
    setup.add_to(app)
    doctor.add_to(app)
    conformance.add_to(app)
    for entry in sorted(entry_points(group=_GROUP), key=lambda found: found.name):
        try:
            command = entry.load()
        except ModuleNotFoundError as error:
            _add_missing(app, entry.name, str(error.name))
            continue
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)
    return app


def _add_missing(app: typer.Typer, name: str, module: str) -> None:
    """Add a command that says what to install, where its package lacks an extra."""
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}

    def explain() -> None:
        raise ModuleNotFoundError(name=module)

    app.command(name, help=f"Not installed: needs {module}.", context_settings=settings)(explain)


def main() -> None:
    """Run `coin`. Exit codes: 0 passed, 1 failed check, 2 wrong usage, 3 undecided."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without Unicode gets question marks instead of an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    code = guarded(build())
    sys.exit(code)
