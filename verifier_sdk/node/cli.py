"""`coin verifier`: run a node, and look after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coin_protocol.cli.common import (
    ERR,
    CaOption,
    RootDomainOption,
    RootOption,
    load_policy,
    load_profile,
    print_json,
    quiet_models,
)
from coin_protocol.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from verifier_sdk.node.process import Process
    from verifier_sdk.node.settings import NodeSettings

app = typer.Typer(help="A verifier node.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="COIN_VERIFIER_CONFIG", help="TOML file of settings."),
]
NameOption = Annotated[str | None, typer.Option(help="The verifier's name, in verdicts.")]
KeyOption = Annotated[Path | None, typer.Option("--key", help="Its private key (PEM).")]
DatabaseOption = Annotated[
    str | None, typer.Option(help="sqlite:///PATH or postgresql://HOST/NAME.")
]
ProfileOption = Annotated[str | None, typer.Option(help="A profile that ships, or a file.")]
PolicyOption = Annotated[str | None, typer.Option(help="A policy that ships, or a file.")]
JudgeOption = Annotated[
    Path | None, typer.Option(help="Model file that the policy names; by default what ships.")
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        help="NAME=HOST:PORT of a provider to audit, believed by --root or --root-domain.",
    ),
]


@app.callback()
def _group() -> None:
    pass


@app.command()
def serve(  # noqa: PLR0913, PLR0917 - the options of a command
    config: ConfigOption = None,
    name: NameOption = None,
    key: KeyOption = None,
    database: DatabaseOption = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT of gRPC; 0 picks one.")] = None,
    http_listen: Annotated[str | None, typer.Option(help="HOST:PORT of pages and HTTP.")] = None,
    provider: ProviderOption = None,
    root: RootOption = None,
    root_domain: RootDomainOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    policy: PolicyOption = None,
    judge: JudgeOption = None,
) -> None:
    """Take receipts, audit them, keep what was found, show it.

    Audits too, as many at once as `audits_at_once` says. Prints one JSON line with the ports once
    it serves.
    """
    settings = _settings(
        config,
        name=name,
        key=_key_uri(key),
        database=database,
        listen=listen,
        http_listen=http_listen,
        providers=_providers(provider, root, root_domain, ca),
        profile=profile,
        policy=policy,
        judge=judge,
    )
    asyncio.run(_serve(settings))


@app.command()
def worker(  # noqa: PLR0913, PLR0917 - the options of a command
    config: ConfigOption = None,
    name: NameOption = None,
    key: KeyOption = None,
    database: DatabaseOption = None,
    provider: ProviderOption = None,
    root: RootOption = None,
    root_domain: RootDomainOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    policy: PolicyOption = None,
    judge: JudgeOption = None,
) -> None:
    """Audit what a node has taken; run as many as there is work for, on any machine.

    Prints one JSON line once it works.
    """
    settings = _settings(
        config,
        name=name,
        key=_key_uri(key),
        database=database,
        providers=_providers(provider, root, root_domain, ca),
        profile=profile,
        policy=policy,
        judge=judge,
    )
    if not settings.audits_at_once:
        msg = "audits_at_once is 0, and a worker without audits does nothing: set it to 1 or more"
        raise ConfigurationError(msg)
    asyncio.run(_work(settings))


@app.command()
def migrate(config: ConfigOption = None, database: DatabaseOption = None) -> None:
    """Make the tables of a node's database, or bring those of an older release up to date."""
    with _database(config, database):
        print_json({"tables": "up to date"})


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to write, a zip; it must not be there.")],
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> None:
    """Write all that a node keeps into one file, while it runs. As private as the database."""
    from verifier_sdk.store.archive import back_up

    with _database(config, database) as engine, _progress() as told:
        rows = back_up(engine, file, told)
    print_json({"file": str(file), "rows": rows})


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `coin verifier backup` wrote.", exists=True)],
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> None:
    """Fill an empty database with a backup, SQLite's into PostgreSQL or the other way round too.

    A log that signed heads after the backup was made refuses to go on: see docs/verifier.md.
    """
    from verifier_sdk.store.archive import restore as fill

    with _database(config, database) as engine, _progress() as told:
        rows = fill(engine, file, told)
    print_json({"file": str(file), "rows": rows})


@app.command()
def purge(
    config: ConfigOption = None,
    database: DatabaseOption = None,
    days: Annotated[
        int | None, typer.Option(min=0, help="Instead of the settings' retention_days.")
    ] = None,
) -> None:
    """Delete receipts and bundles past their retention now; a node does so by itself each hour."""
    from verifier_sdk.store.retention import purge as delete

    settings = _database_settings(config, database)
    with _database(config, database) as engine:
        wanted = settings.retention_days if days is None else days
        print_json({"purged": delete(engine, days=wanted)})


@app.command("config")
def show_config(config: ConfigOption = None) -> None:
    """Print the settings in force, secrets masked."""
    from coin_protocol.database.url import shown_database_url
    from coin_protocol.ops.effective import shown_settings

    settings = _settings(config)
    found = shown_settings(settings)
    found["database"] = shown_database_url(settings.database.get_secret_value())
    print_json(found)


@app.command()
def token(name: Annotated[str, typer.Argument(help="The client that will show it.")]) -> None:
    """Make a bearer token for a client: the token for it, the line for your file of tokens."""
    from coin_protocol.transport.tokens import make_token

    made = make_token(name)
    print_json({"token": made.token, "line": made.line})


@app.command()
def account(
    name: Annotated[str, typer.Argument(help="Who logs in by it.")],
    file: Annotated[
        Path, typer.Option(help="File of accounts to add it to; made where it is not there.")
    ],
) -> None:
    """Add an account that may read the pages. The password is asked for, or read from a pipe."""
    import sys
    from getpass import getpass

    from verifier_sdk.web.accounts import add_account

    if sys.stdin.isatty():
        password = getpass(f"password of {name}: ")
        if getpass("again: ") != password:
            msg = "the two passwords differ"
            raise InvalidInputError(msg)
    else:
        password = sys.stdin.readline().rstrip("\n")
    add_account(file, name, password)
    print_json({"account": name, "file": str(file)})


@app.command("log-key")
def log_key(
    origin: Annotated[str, typer.Option(help="The log's name, such as example.org/coin-log.")],
    out: Annotated[
        Path | None, typer.Option(help="Make a new key in this file; it is never overwritten.")
    ] = None,
    uri: Annotated[str | None, typer.Option("--key", help="Show a key that there is.")] = None,
) -> None:
    """Make the key of a log, or show one: what readers and witnesses check its heads with.

    COIN_KEY_PASSWORD encrypts a new key, and opens one that is encrypted.
    """
    from coin_protocol.cli.note_keys import verifier_key
    from coin_protocol.note import NoteAlgorithm

    vkey = verifier_key(origin, NoteAlgorithm.ED25519, out=out, uri=uri)
    print_json({"origin": origin, "vkey": vkey})


def _database_settings(config: Path | None, database: str | None) -> NodeSettings:
    """Return settings where nothing but the database has to be named."""
    whose = {} if config else {"name": "none", "key": "file:none"}
    return _settings(config, database=database, **whose)


@contextmanager
def _database(config: Path | None, database: str | None) -> Iterator[Engine]:
    """Give the node's database, its tables up to date."""
    from verifier_sdk.node.assembly import open_database

    engine = open_database(_database_settings(config, database))
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give what shows the progress over tables."""
    from rich.progress import Progress, TaskID

    with Progress(console=ERR, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def told(table: str, done: int, rows: int) -> None:
            if table not in tasks:
                tasks[table] = progress.add_task(table, total=rows)
            progress.update(tasks[table], completed=done)

        yield told


async def _serve(settings: NodeSettings) -> None:
    from verifier_sdk.node.assembly import load_keys, registered
    from verifier_sdk.node.process import running_process
    from verifier_sdk.node.running import serving

    profile, policy = load_profile(settings.profile), load_policy(settings.policy)
    bell = asyncio.Event()
    async with (
        running_process(settings) as process,
        AsyncExitStack() as audits,
        AsyncExitStack() as servers,
    ):
        _, verifiers = load_keys(settings)
        providers = registered(settings, verifiers)
        if settings.audits_at_once:
            await _audit(settings, process, audits, bell)
        ports = await servers.enter_async_context(
            serving(settings, process.engine, providers, profile, policy, process.metrics, bell)
        )
        print_json(
            {
                "serving": "coin_protocol.v1.VerifierService",
                "port": ports.grpc,
                "http_port": ports.http,
                "metrics_port": process.metrics_port,
            }
        )
        await process.stop.wait()
        # Together, in one grace period: whoever watches an audit is told how it ends.
        await asyncio.gather(audits.aclose(), servers.aclose())


async def _work(settings: NodeSettings) -> None:
    from verifier_sdk.node.process import running_process

    async with running_process(settings) as process, AsyncExitStack() as stack:
        await _audit(settings, process, stack, asyncio.Event())
        print_json(
            {
                "working": "audits",
                "at_once": settings.audits_at_once,
                "metrics_port": process.metrics_port,
            }
        )
        await process.stop.wait()


async def _audit(
    settings: NodeSettings, process: Process, stack: AsyncExitStack, bell: asyncio.Event
) -> None:
    """Have this process audit until the stack ends."""
    quiet_models()
    from coin_protocol.models import Models
    from verifier_sdk.node.assembly import load_bench, registered
    from verifier_sdk.node.running import working

    models = Models(load_profile(settings.profile))
    # Load now, not in the first audit.
    _ = models.tokenizer, models.embedder
    bench = load_bench(settings, models, load_policy(settings.policy))
    providers = registered(settings, bench.verifiers)
    await stack.enter_async_context(
        working(settings, process.engine, providers, bench, process.metrics, bell)
    )


def _settings(config: Path | None, **given: object) -> NodeSettings:
    from verifier_sdk.node.settings import load_settings

    return load_settings(config, **given)


def _key_uri(key: Path | None) -> str | None:
    return None if key is None else f"file:{key}"


def _providers(
    named: list[str] | None,
    roots: list[Path] | None,
    domains: list[str] | None,
    authorities: Path | None,
) -> dict[str, Any] | None:
    """Return the providers of the command line; None where it names none.

    Raises:
        InvalidInputError: One is not NAME=HOST:PORT.
    """
    if named is None:
        if roots or domains or authorities:
            msg = "--root, --root-domain and --ca go with --provider; else use the settings' file"
            raise InvalidInputError(msg)
        return None
    found = {}
    for value in named:
        name, separator, target = value.partition("=")
        if not name or not separator:
            msg = f"wanted NAME=HOST:PORT; found {value!r}"
            raise InvalidInputError(msg)
        found[name] = {
            "endpoint": target,
            "roots": roots or [],
            "domains": domains or [],
            "authorities": authorities,
        }
    return found
