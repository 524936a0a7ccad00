"""`coin gateway`: put CoIn in front of a serving stack."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from coin_protocol.cli.common import print_json


def gateway(  # noqa: PLR0913 - the options of a command
    upstream: Annotated[
        str | None, typer.Option(help="Where the serving stack listens, without /v1.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks one.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file: the provider's settings, the gateway's in [gateway]."),
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="Folder that `coin keys init` made.")] = None,
    name: Annotated[str | None, typer.Option(help="Provider's name, as in its key set.")] = None,
    database: Annotated[
        str | None,
        typer.Option(help="sqlite:///PATH or postgresql://…; without password, see docs."),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Profile: a name or a file.")] = None,
    *,
    require_receipt: Annotated[
        bool | None,
        typer.Option("--require-receipt", help="A reply without a receipt is an error."),
    ] = None,
    sign: Annotated[
        bool | None, typer.Option(help="Off: pass every byte on, and commit to nothing.")
    ] = None,
) -> None:
    """Pass OpenAI-style requests on to an upstream, and commit to the reasoning that it samples.

    Prints one JSON line with the port once it serves. Settings: docs/gateway.md.
    """
    from coin_protocol.ops.tracing import configure_tracing
    from provider_sdk.cli import running
    from provider_sdk.gateway.app import Gateway
    from provider_sdk.gateway.config import load_settings
    from provider_sdk.gateway.server import serve
    from provider_sdk.ops import settings as shared

    own = load_settings(
        config, upstream=upstream, port=port, host=host, require_receipt=require_receipt, sign=sign
    )
    common = shared.load_settings(
        shared.ProviderSettings, config, keys=keys, name=name, profile=profile, database=database
    )
    flush_spans = configure_tracing()
    try:
        with running(common, embed=False, secrets=own.secret_values()) as (assembly, metrics):
            served = Gateway(own, assembly.provider, metrics=metrics)
            asyncio.run(serve(served, started=_ready))
    finally:
        flush_spans()


def _ready(port: int) -> None:
    print_json({"serving": "gateway", "port": port})
