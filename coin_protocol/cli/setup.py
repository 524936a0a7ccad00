"""Commands that prepare a machine: the token table."""

from __future__ import annotations

import typer

from coin_protocol.cli.common import (
    OUT,
    JsonOption,
    ProfileOption,
    load_profile,
    print_json,
    table_models,
)

# The demo makes its keys by these.
from coin_protocol.table import table_path


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    table = typer.Typer(help="The token table of a profile.", no_args_is_help=True)
    table.command("build")(table_build)
    table.callback()(_group)
    app.add_typer(table, name="table")


def _group() -> None:
    pass


def table_build(profile: ProfileOption = "default", *, as_json: JsonOption = False) -> None:
    """Build a profile's token table, or check the one that is cached."""
    loaded = load_profile(profile)
    with table_models(loaded) as models:
        table = models.table
    path = table_path(loaded.message)
    if as_json:
        print_json({"path": str(path), "rows": len(table), "root": table.root.hex()})
        return
    OUT.print(f"{len(table)} rows, root {table.root.hex()}", soft_wrap=True)
    OUT.print(str(path), soft_wrap=True, markup=False)
