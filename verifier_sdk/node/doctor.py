"""What is wrong with a node, and what to do (`coin doctor --verifier FILE`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from alembic.migration import MigrationContext
from cryptography.x509 import load_pem_x509_certificate
from sqlalchemy import func, select

from coin_protocol import transport
from coin_protocol.checks import Trust, rooted_keys
from coin_protocol.database.engine import shown
from coin_protocol.database.looking import database_files, looking
from coin_protocol.database.url import shown_database_url
from coin_protocol.doctor import (
    Finding,
    embedding,
    good,
    note,
    readable_secret,
    tried,
    wrong,
)
from coin_protocol.errors import CoinError
from coin_protocol.note import NoteAlgorithm, NoteSigner, NoteVerifier
from coin_protocol.profile import Policy, Profile
from verifier_sdk.client import ProviderClient
from verifier_sdk.node.assembly import client_tls, find_stream, load_keys, registered
from verifier_sdk.node.http_server import require_callers_known
from verifier_sdk.node.settings import NodeSettings, load_settings
from verifier_sdk.semantic.model_file import ModelFile
from verifier_sdk.store.all_tables import METADATA
from verifier_sdk.store.tables import AUDIT, ERROR
from verifier_sdk.web.accounts import AccountFile

_SECONDS: Final = 5.0
_DAYS: Final = 21
_FILE: Final = "file:"


def examine(file: Path) -> Iterator[Finding]:
    """Look at keys, database, judge, providers, queue, log and pages of a node.

    Raises:
        CoinError: The settings cannot be used at all.
    """
    settings = load_settings(file)
    yield good("settings", str(file))
    yield from _secrets(settings)
    yield tried(
        "verifier key",
        lambda: f"{settings.name}, {load_keys(settings)[0].public.keyid[:16]}…",
        "coin keys init FOLDER --name NAME --role verifier makes one",
    )
    yield tried("judge", lambda: _judge(settings), "name the judge's digest in the policy")
    yield embedding("audits_at_once", settings.audits_at_once, "coin verifier worker")
    yield from _database(settings)
    yield from _providers(settings)
    yield from _queue(settings)
    yield from _log(settings)
    yield from _doors(settings)


def _secrets(settings: NodeSettings) -> Iterator[Finding]:
    """Look at who may read the files of keys and accounts."""
    uris = [("verifier key file", settings.key)]
    if settings.log is not None:
        uris.append(("log key file", settings.log.key))
    for what, uri in uris:
        value = uri.get_secret_value()
        if value.startswith(_FILE):
            yield readable_secret(what, Path(value.removeprefix(_FILE)))
    if settings.web.accounts is not None:
        yield readable_secret("accounts of the pages", settings.web.accounts)
    if settings.http_key is not None:
        yield readable_secret("key of HTTPS", settings.http_key)
    if settings.tls is not None:
        yield readable_secret("key of gRPC's TLS", settings.tls.key)


def _judge(settings: NodeSettings) -> str:
    from coin_protocol.cli.common import load_policy, load_profile

    profile: Profile = load_profile(settings.profile)
    policy: Policy = load_policy(settings.policy)
    if settings.judge is None and not policy.message.semantic_model_sha256:
        return "the cosine rules of the policy, which accuse nobody"
    file = ModelFile.shipped() if settings.judge is None else ModelFile.from_file(settings.judge)
    file.require_policy(policy)
    file.require_profile(profile)
    return f"{file.digest.hex()[:16]}…, as the policy names it"


def _database(settings: NodeSettings) -> Iterator[Finding]:
    url = settings.database.get_secret_value()
    given_up = 0
    try:
        for file in database_files(url):
            yield readable_secret("database file", file)
        with looking(url) as connection:
            if connection is None:
                found = f"{shown_database_url(url)} is not there yet"
                yield note("database", found, "coin verifier migrate, or serve, makes it")
                return
            context = MigrationContext.configure(
                connection, opts={"version_table": "verifier_alembic_version"}
            )
            revision = context.get_current_revision()
            yield good("database", shown(connection.engine))
            if revision is None:
                yield note("tables", "none yet", "coin verifier migrate, or serve, makes them")
                return
            there = set(connection.dialect.get_table_names(connection))
            missing = {table.name for table in METADATA.sorted_tables} - there
            if missing:
                yield wrong(
                    "tables", f"missing: {', '.join(sorted(missing))}", "coin verifier migrate"
                )
                return
            yield good("tables", f"revision {revision}")
            given_up = connection.execute(
                select(func.count()).select_from(AUDIT).where(AUDIT.c.state == ERROR)
            ).scalar_one()
    except CoinError as error:
        yield wrong("database", str(error), "is its server running, and may this user connect?")
        return
    if given_up:
        yield note("audits", f"{given_up} given up", "see the log for why, then ask for them again")


def _providers(settings: NodeSettings) -> Iterator[Finding]:
    if not settings.providers:
        yield wrong("providers", "none", "name those to audit under [providers.NAME]")
        return
    try:
        _, verifiers = load_keys(settings)
        providers = registered(settings, verifiers)
    except CoinError as error:
        yield wrong("providers", str(error), "mend the roots or domains of that provider")
        return
    for name in providers.names:
        try:
            owner = asyncio.run(_key_set_owner(settings, name, providers[name].trust))
        except CoinError as error:
            yield wrong(
                f"provider {name}",
                str(error),
                "is its address right, does it know you, and is its root the one that you pin?",
            )
        else:
            if owner != name:
                yield wrong(
                    f"provider {name}", f"its key set is that of {owner!r}", "use its own name"
                )
            else:
                yield good(f"provider {name}", f"{settings.providers[name].endpoint} answers")


async def _key_set_owner(settings: NodeSettings, name: str, trust: Trust) -> str:
    entry = settings.providers[name]
    async with ProviderClient(entry.endpoint, tls=client_tls(entry), timeout=_SECONDS) as client:
        return rooted_keys(await client.served_key_set(), trust).owner


def _queue(settings: NodeSettings) -> Iterator[Finding]:
    nats = settings.nats
    if nats is None:
        yield good("queue", "the database")
        return

    def look() -> str:
        there = asyncio.run(find_stream(nats))
        return f"NATS JetStream answers{'' if there else '; serve makes its stream'}"

    yield tried("queue", look, "is nats-server running with JetStream (-js), and reached by TLS?")


def _log(settings: NodeSettings) -> Iterator[Finding]:
    log = settings.log
    if log is None:
        yield note("log", "none is kept", "a [log] table gives the node one that it cannot rewrite")
        return

    def look() -> str:
        signer = NoteSigner.from_uri(log.key.get_secret_value(), log.origin, NoteAlgorithm.ED25519)
        for entry in log.witnesses.values():
            NoteVerifier.from_vkey(entry.vkey)
        return signer.verifier.vkey

    yield tried("log", look, "the log's key is Ed25519, and witnesses are given by their vkey")
    if not log.witnesses:
        yield note(
            "witnesses", "none", "without them a log may show two faces: see docs/witness.md"
        )


def _doors(settings: NodeSettings) -> Iterator[Finding]:
    if settings.tls is None:
        yield tried(
            "gRPC",
            lambda: _loopback(settings.listen),
            "plaintext is for loopback: give a [tls] table",
        )
    else:
        yield _certificate("certificate of gRPC", settings.tls.certificate)
        if settings.tls.authorities is None and settings.tokens is None:
            yield wrong("gRPC", "nothing says who calls", "give tls.authorities, or tokens")
    if settings.http_listen is None:
        yield note("pages", "HTTP is off", "http_listen = HOST:PORT serves pages, log and receipts")
        return
    if settings.http_certificate is not None:
        yield _certificate("certificate of HTTPS", settings.http_certificate)
    yield tried("HTTP", lambda: _callers(settings), "give them, or listen on 127.0.0.1")
    if settings.web.accounts is None:
        yield note(
            "pages",
            "nobody can log in",
            "coin verifier account NAME --file FILE, then web.accounts = FILE",
        )
    else:
        accounts = AccountFile(settings.web.accounts)
        yield tried(
            "pages",
            lambda: f"{len(accounts.accounts())} may log in",
            "coin verifier account makes such a file",
        )


def _callers(settings: NodeSettings) -> str:
    require_callers_known(settings)
    return str(settings.http_listen)


def _loopback(address: str) -> str:
    transport.require_loopback(address)
    return f"{address}, this machine only"


def _certificate(what: str, path: Path) -> Finding:
    try:
        end = load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return wrong(what, f"{path} cannot be read", "wanted a certificate chain in PEM")
    days = (end - time.time()) / 86_400
    if days < 0:
        return wrong(
            what, f"{path} ended {-days:.0f} days ago", "renew it: it is read again by itself"
        )
    if days < _DAYS:
        return note(what, f"{path} ends in {days:.0f} days", "renew it: it is read again by itself")
    return good(what, f"{path}, good for {days:.0f} days")
