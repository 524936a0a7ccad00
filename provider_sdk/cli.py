"""`coin provider`: run the provider's side."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from coin_protocol.cli.common import (
    UNDECIDED,
    ProfileOption,
    TlsOption,
    load_profile,
    print_json,
    read_named_files,
    table_models,
    tls_files,
)
from coin_protocol.errors import ConfigurationError

if TYPE_CHECKING:
    from coin_protocol.transport import ServerTls
    from provider_sdk.assembly import Assembly
    from provider_sdk.ops.metrics import Metrics
    from provider_sdk.ops.settings import ProviderSettings
    from provider_sdk.service import ServiceSettings

_LOG = logging.getLogger(__name__)

CLOSING_SECONDS: Final = 10.0
"""To close the store at shutdown; with the grace periods, less than the units' TimeoutStopSec."""

app = typer.Typer(help="The provider's side.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None, typer.Option(help="TOML file of settings: docs/operations.md.")
]
KeysOption = Annotated[Path | None, typer.Option(help="Folder that `coin keys init` made.")]
NameOption = Annotated[str | None, typer.Option(help="Provider's name, as in its key set.")]
DatabaseOption = Annotated[
    str | None, typer.Option(help="sqlite:///PATH or postgresql://…; without password, see docs.")
]


@app.callback()
def _group() -> None:
    pass


@app.command("sealing-key")
def sealing_key(
    path: Annotated[Path, typer.Argument(help="File to make, by default KEYS/sealing.key.")],
) -> None:
    """Make the key that seals secrets in the database. Lost with it: every opening."""
    from provider_sdk.store import write_sealing_key

    write_sealing_key(path)
    print_json({"sealing_key": str(path)})


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="The verifier that will show it.")],
) -> None:
    """Make a bearer token for a verifier: the token for it, the line for your file of tokens."""
    from coin_protocol.transport.tokens import make_token

    made = make_token(name)
    print_json({"token": made.token, "line": made.line})


@app.command()
def config(
    config: ConfigOption = None,
    keys: KeysOption = None,
    name: NameOption = None,
    database: DatabaseOption = None,
    upstream: Annotated[str | None, typer.Option(help="As `coin gateway` is told it.")] = None,
) -> None:
    """Print the settings in force, secrets masked; the gateway's too, where there are any."""
    from coin_protocol.ops.effective import shown_settings
    from provider_sdk.gateway import config as gateway
    from provider_sdk.ops.effective import effective_settings

    found = effective_settings(_settings(config, keys=keys, name=name, database=database))
    if upstream is not None or gateway.is_configured(config):
        found["gateway"] = shown_settings(gateway.load_settings(config, upstream=upstream))
    print_json(found)


@app.command()
def serve(
    config: ConfigOption = None,
    keys: KeysOption = None,
    name: NameOption = None,
    database: DatabaseOption = None,
    verifier: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PUBLIC_KEY.pem of a verifier that may challenge."),
    ] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT; port 0 picks one.")] = None,
    profile: Annotated[str | None, typer.Option(help="Profile: a name or a file.")] = None,
) -> None:
    """Answer verifiers' challenges to what the gateway, or a hook, has committed to.

    Makes fingerprints too, on as many threads as `embedding_workers` says. Prints one JSON line
    with the port once it serves.
    """
    from provider_sdk.service import serve_provider

    named = {} if verifier is None else {"verifiers": _named_paths(verifier)}
    settings = _settings(
        config,
        keys=keys,
        name=name,
        database=database,
        listen=listen,
        profile=profile,
        **named,
    )
    with running(settings) as (assembly, metrics):
        tls, service = _service(settings, metrics)
        asyncio.run(
            serve_provider(
                assembly.provider,
                settings.listen,
                tls,
                lambda port: print_json(
                    {"serving": "coin_protocol.v1.ProviderService", "port": port}
                ),
                service,
                grace=settings.grace_seconds,
                notice=settings.notice_seconds,
            )
        )


@app.command()
def worker(
    config: ConfigOption = None,
    keys: KeysOption = None,
    name: NameOption = None,
    database: DatabaseOption = None,
    profile: Annotated[str | None, typer.Option(help="Profile: a name or a file.")] = None,
) -> None:
    """Make fingerprints of committed sessions, oldest first; run as many as there is work for.

    Prints one JSON line once it works.
    """
    settings = _settings(config, keys=keys, name=name, database=database, profile=profile)
    if not settings.embedding_workers:
        msg = (
            "embedding_workers is 0, and a worker without threads does nothing: set it to 1 or more"
        )
        raise ConfigurationError(msg)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with running(settings):
        print_json({"working": "fingerprints", "threads": settings.embedding_workers})
        stop.wait()


@app.command()
def retry(
    config: ConfigOption = None,
    keys: KeysOption = None,
    name: NameOption = None,
    database: DatabaseOption = None,
) -> None:
    """Have fingerprints made that workers gave up after ten attempts: once the cause is mended."""
    from coin_protocol.database.engine import open_engine
    from coin_protocol.database.migrate import upgrade
    from provider_sdk.store.jobs import retry as retry_sessions
    from provider_sdk.store.tables import MIGRATIONS

    settings = _settings(config, keys=keys, name=name, database=database)
    engine = open_engine(settings.database.get_secret_value())
    try:
        upgrade(engine, MIGRATIONS)
        print_json({"sessions": retry_sessions(engine)})
    finally:
        engine.dispose()


@app.command()
def replay(
    keys: Annotated[Path, typer.Option(help="Folder that `coin keys init` made.", exists=True)],
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
    """Replay recorded reasoning as a model would generate it: sample traffic, no product.

    Sessions are kept in memory: they, and what was opened of them, are gone at exit. Prints
    one JSON line with the port once it serves.
    """
    from coin_protocol.keyset import pinned_verifiers
    from coin_protocol.rotation import RotatingSigner
    from provider_sdk.provider import Provider
    from provider_sdk.replay import Replay, read_traces, shipped_traces
    from provider_sdk.replay.server import serve_replays

    chosen = shipped_traces() if traces is None else read_traces(traces)
    signer = RotatingSigner(keys, name)
    with table_models(load_profile(profile)) as models:
        _ = models.table
    with Provider(
        name=name,
        signer=signer,
        key_set=signer,
        models=models,
        verifiers=pinned_verifiers(read_named_files(verifier)),
    ) as provider:
        replays = {"replay": Replay(provider, chosen)}
        asyncio.run(
            serve_replays(
                replays,
                listen,
                tls_files(tls),
                lambda port: print_json(
                    {"serving": "coin_protocol.v1.ProviderService", "port": port}
                ),
            )
        )


@contextmanager
def running(
    settings: ProviderSettings, *, embed: bool = True, secrets: Iterable[str] = ()
) -> Iterator[tuple[Assembly, Metrics]]:
    """Give a provider with all that runs beside it: logs, metrics, recovery, fingerprints.

    What is not closed in time at the end, for a database that hangs, is left as a kill would
    leave it, which loses nothing that a client holds; the process then exits with 3.

    Args:
        settings: Of this process.
        embed: Whether fingerprints are made here, as the settings say.
        secrets: Other secrets of this process that no log line may hold.
    """
    from coin_protocol.ops.exposition import serve_metrics
    from coin_protocol.ops.logs import configure_logging
    from provider_sdk.assembly import assembled, embedding
    from provider_sdk.ops.metrics import Metrics

    configure_logging(
        level=settings.log_level,
        output=settings.log_format,
        secrets=[*settings.secret_values(), *secrets],
    )
    metrics = Metrics()
    threads = settings.embedding_workers if embed else 0
    with ExitStack() as stack:
        if settings.metrics_listen is not None:
            # Before the models: where a table is built they take minutes, and health is asked for.
            stack.enter_context(serve_metrics(metrics.registry, settings.metrics_listen))
        with table_models(load_profile(settings.profile)) as models:
            _ = models.table
            if threads:
                _ = models.embedder
        seconds = CLOSING_SECONDS + (settings.grace_seconds if threads else 0)
        closing = threading.Timer(seconds, _leave, (seconds,))
        closing.daemon = True
        stack.callback(closing.cancel)
        assembly = stack.enter_context(assembled(settings, models, metrics))
        stack.enter_context(embedding(assembly, threads, metrics))
        stack.callback(closing.start)
        yield assembly, metrics


def _leave(seconds: float) -> None:
    """End the process, whatever still waits in it."""
    _LOG.error(
        "not closed within %g s: the database hangs, or a batch is long; ending all the same",
        seconds,
    )
    logging.shutdown()
    os._exit(UNDECIDED)


def _service(
    settings: ProviderSettings, metrics: Metrics
) -> tuple[ServerTls | None, ServiceSettings]:
    """Return how the challenge service meets its verifiers."""
    from coin_protocol.ops.certificates import certificate_end
    from coin_protocol.transport import RateLimit, ServerTlsFiles, TlsFiles
    from provider_sdk.ops.observers import ServerObserver
    from provider_sdk.service import ServiceSettings

    tls: ServerTls | None = None
    files = settings.tls
    if files is not None:
        certificate = files.certificate
        metrics.keys.certificate_ends.set_function(lambda: certificate_end(certificate))
    if files is not None and files.authorities is not None:
        tls = TlsFiles(files.certificate, files.key, files.authorities)
    elif files is not None and settings.tokens is not None:
        tls = ServerTlsFiles(files.certificate, files.key)
    elif files is not None:
        msg = "tls needs authorities (client certificates) or a file of tokens: who may call?"
        raise ConfigurationError(msg)
    return tls, ServiceSettings(
        tokens=settings.tokens,
        rate=RateLimit(per_second=settings.calls_per_second, burst=settings.calls_burst),
        observer=ServerObserver(metrics),
    )


def _settings(config: Path | None, **given: object) -> ProviderSettings:
    from provider_sdk.ops.settings import ProviderSettings, load_settings

    return load_settings(ProviderSettings, config, **given)


def _named_paths(values: list[str]) -> dict[str, Path]:
    found = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not name or not separator:
            msg = f"wanted NAME=PATH; found {value!r}"
            raise ConfigurationError(msg)
        found[name] = Path(path)
    return found
