"""`coin provider`: run the provider's side."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from coin_protocol.cli.common import (
    ProfileOption,
    TlsOption,
    load_profile,
    print_json,
    read_named_files,
    table_models,
    tls_files,
)

app = typer.Typer(help="The provider's side.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def serve(
    keys: Annotated[Path, typer.Option(help="Folder that `coin keygen` made.", exists=True)],
    name: Annotated[str, typer.Option(help="Provider's name, as in its key set.")],
    verifier: Annotated[
        list[str], typer.Option(help="NAME=PUBLIC_KEY.pem of a verifier that may challenge.")
    ],
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 picks one.")] = "127.0.0.1:0",
    traces: Annotated[
        Path | None,
        typer.Option(help="JSONL of traces to replay; by default those that ship."),
    ] = None,
    profile: ProfileOption = "default",
    tls: TlsOption = None,
) -> None:
    """Replay recorded reasoning as a model would generate it, commit to it, and answer challenges.

    Sessions are kept in memory: they, and what was opened of them, are gone at exit. Prints
    one JSON line with the port once it serves.
    """
    from coin_protocol.keyset import pinned_verifiers, read_key_set_file
    from coin_protocol.signer import signer_from_uri
    from provider_sdk.provider import Provider
    from provider_sdk.replay import Replay, read_traces, shipped_traces
    from provider_sdk.replay.server import serve_replays

    chosen = shipped_traces() if traces is None else read_traces(traces)
    key_set = read_key_set_file(keys / "keyset.binpb")
    with table_models(load_profile(profile)) as models:
        _ = models.table
    with Provider(
        name=name,
        signer=signer_from_uri(f"file:{keys / 'key.pem'}", name),
        key_set=key_set,
        models=models,
        verifiers=pinned_verifiers(read_named_files(verifier)),
    ) as provider:
        replays = {"replay": Replay(provider, chosen)}
        asyncio.run(serve_replays(replays, listen, tls_files(tls), _ready))


def _ready(port: int) -> None:
    print_json({"serving": "coin_protocol.v1.ProviderService", "port": port})
