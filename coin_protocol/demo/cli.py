"""`coin demo`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from coin_protocol.cli.common import (
    ERR,
    FAILED,
    OUT,
    JsonOption,
    print_json,
    table_models,
    tier_name,
)
from coin_protocol.profile import Profile
from coin_protocol.receipt import write_file

if TYPE_CHECKING:
    from coin_protocol.demo.run import Played


def demo(
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep keys, logs, receipts and bundles in this folder."),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Watch an honest reply pass an audit, and nine lies get caught.

    Starts a provider and a verifier as two processes that talk gRPC over loopback. Exit
    code 0: every verdict is the expected one, by the check that should decide. Where the judge
    leaves the honest reply undecided, as it does once in two hundred draws, another is asked for.
    """
    with table_models(Profile.shipped("demo")) as models:
        _ = models.table
    with tempfile.TemporaryDirectory(prefix="coin-demo-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        good = asyncio.run(_show(folder, keep=keep is not None, as_json=as_json))
    if not good:
        raise typer.Exit(FAILED)


async def _show(folder: Path, *, keep: bool, as_json: bool) -> bool:
    from rich.live import Live

    from coin_protocol.demo.run import play

    table = _table()
    good = True
    # A quiet console where JSON is wanted: standard output is for the objects alone.
    with Live(table, console=ERR if as_json else OUT, transient=as_json) as live:
        async for played in play(folder):
            good &= played.as_expected
            table.add_row(*_row(played))
            live.refresh()
            if as_json:
                print_json(_document(played))
            if keep:
                name = played.scenario.title.replace(" ", "-").replace("'", "")
                write_file(folder / f"{name}.bundle.json", played.bundle)
                write_file(folder / f"{name}.receipt.json", played.bundle.receipt)
        table.caption = "tokens, blocks: ids and block embeddings that the verifier saw"
    if keep and not as_json:
        OUT.print(f"keys, logs, receipts and bundles: {folder}", soft_wrap=True)
    return good


def _table() -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="starting a provider and a verifier ...",
        caption_justify="left",
    )
    table.add_column("scenario", min_width=18)
    table.add_column("verdict", no_wrap=True)
    table.add_column("tier", no_wrap=True)
    table.add_column("decided by", no_wrap=True)
    for name in ("tokens", "blocks", "sec"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _document(played: Played) -> dict[str, Any]:
    exposure = played.verdict.exposure
    return {
        "scenario": played.scenario.title,
        "verdict": played.outcome,
        "expected": played.scenario.expected,
        "failed_checks": played.failed_checks,
        "tier": tier_name(played.verdict.tier),
        "tokens_exposed": exposure.tokens,
        "block_embeddings_exposed": exposure.block_embeddings,
        "seconds": round(played.seconds, 2),
        "undecided_before": played.undecided,
    }


def _row(played: Played) -> tuple[str, ...]:
    colour = {"PASS": "green", "FAIL": "red"}.get(played.outcome, "yellow")
    mark = "" if played.as_expected else " [bold yellow](unexpected)[/]"
    mark += f" (reply {played.undecided + 1})" if played.undecided else ""
    exposure = played.verdict.exposure
    return (
        played.scenario.title,
        f"[{colour}]{played.outcome}[/]{mark}",
        tier_name(played.verdict.tier),
        ", ".join(played.failed_checks) or "every check",
        str(exposure.tokens),
        str(exposure.block_embeddings),
        f"{played.seconds:.1f}",
    )
