"""`coin witness`: cosign the heads of logs, so that none of them rewrites its past."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coin_protocol.cli.common import print_json
from coin_protocol.errors import ConfigurationError

if TYPE_CHECKING:
    from coin_protocol.note import NoteSigner
    from verifier_sdk.witness.config import WitnessSettings

app = typer.Typer(
    help="Cosign the heads of logs, so that none rewrites its past.", no_args_is_help=True
)

ConfigOption = Annotated[Path | None, typer.Option(help="TOML file of settings: docs/witness.md.")]
NameOption = Annotated[str | None, typer.Option(help="The witness's name, such as example.org/w1.")]
KeyOption = Annotated[str | None, typer.Option(help="URI of its key: file:PATH or pkcs11:…")]
DatabaseOption = Annotated[
    str | None, typer.Option(help="sqlite:///PATH or postgresql://…; without password, see docs.")
]


@app.callback()
def _group() -> None:
    pass


@app.command()
def key(
    name: Annotated[str, typer.Option(help="The witness's name, such as example.org/w1.")],
    out: Annotated[
        Path | None, typer.Option(help="Make a new key in this file; it is never overwritten.")
    ] = None,
    uri: Annotated[str | None, typer.Option("--key", help="Show a key that there is.")] = None,
) -> None:
    """Make a witness's key, or show one: the verifier key that logs and their clients configure.

    COIN_KEY_PASSWORD encrypts a new key, and opens one that is encrypted.
    """
    from coin_protocol.cli.note_keys import verifier_key
    from coin_protocol.note import NoteAlgorithm

    vkey = verifier_key(name, NoteAlgorithm.COSIGNATURE, out=out, uri=uri)
    print_json({"name": name, "vkey": vkey})


@app.command()
def init(
    config: ConfigOption = None,
    name: NameOption = None,
    key: KeyOption = None,
    database: DatabaseOption = None,
) -> None:
    """Make the database of a key that has never cosigned anything. Once for each key, by hand."""
    from coin_protocol.database.engine import open_engine, shown
    from verifier_sdk.witness.store import WitnessStore

    settings = _settings(config, name=name, key=key, database=database)
    vkey = _signer(settings).verifier.vkey
    engine = open_engine(settings.database.get_secret_value())
    try:
        WitnessStore.initialise(engine, vkey)
        print_json({"vkey": vkey, "database": shown(engine)})
    finally:
        engine.dispose()


@app.command()
def serve(
    config: ConfigOption = None,
    name: NameOption = None,
    key: KeyOption = None,
    log: Annotated[
        list[str] | None,
        typer.Option(help="Verifier key of a log to follow, whose name is its origin."),
    ] = None,
    database: DatabaseOption = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT; port 0 picks one.")] = None,
) -> None:
    """Cosign what follows from what was cosigned before, and refuse all else.

    Prints one JSON line with the port once it serves.
    """
    from contextlib import ExitStack

    from coin_protocol.database.engine import open_engine
    from coin_protocol.ops.exposition import serve_metrics
    from coin_protocol.ops.logs import configure_logging
    from coin_protocol.transport.rate import RateLimit, RateLimiter
    from verifier_sdk.witness.app import WitnessApp
    from verifier_sdk.witness.metrics import Metrics
    from verifier_sdk.witness.server import serve as serve_http
    from verifier_sdk.witness.store import WitnessStore
    from verifier_sdk.witness.witness import Witness, parse_logs

    settings = _settings(
        config, name=name, key=key, logs=_by_origin(log), database=database, listen=listen
    )
    configure_logging(
        level=settings.log_level,
        output=settings.log_format,
        secrets=settings.secret_values(),
    )
    signer = _signer(settings)
    logs = parse_logs(settings.logs)
    if not logs:
        msg = "this witness follows no log: give --log, or a table [logs] in the file"
        raise ConfigurationError(msg)
    engine = open_engine(settings.database.get_secret_value())
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        store = WitnessStore(engine, signer.verifier.vkey, logs)
        witness = Witness(signer, logs, store)
        metrics = Metrics(logs)
        metrics.show(store)
        if settings.tls_certificate is not None:
            metrics.watch(settings.tls_certificate)
        ports = {}
        if settings.metrics_listen is not None:
            watched = stack.enter_context(serve_metrics(metrics.registry, settings.metrics_listen))
            ports["metrics_port"] = watched.port
        limit = RateLimit(per_second=settings.requests_per_second, burst=settings.requests_burst)
        served = WitnessApp(witness, metrics, RateLimiter(limit))
        vkey = signer.verifier.vkey

        def ready(port: int) -> None:
            print_json({"serving": "witness", "port": port, "vkey": vkey, **ports})

        asyncio.run(serve_http(served.app, settings, ready, metrics))


def _settings(config: Path | None, **given: object) -> WitnessSettings:
    from verifier_sdk.witness.config import load_settings

    return load_settings(config, **given)


def _signer(settings: WitnessSettings) -> NoteSigner:
    from coin_protocol.note import NoteAlgorithm, NoteSigner

    return NoteSigner.from_uri(
        settings.key.get_secret_value(), settings.name, NoteAlgorithm.COSIGNATURE
    )


def _by_origin(vkeys: list[str] | None) -> dict[str, list[str]] | None:
    if not vkeys:
        return None
    found: dict[str, list[str]] = {}
    for vkey in vkeys:
        found.setdefault(vkey.partition("+")[0], []).append(vkey)
    return found
