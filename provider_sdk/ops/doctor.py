"""What is wrong with a provider's side, and what to do (`coin doctor --provider FILE`)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from alembic.migration import MigrationContext
from sqlalchemy import func, select

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
from coin_protocol.files import read_file
from coin_protocol.keyset import pinned_verifiers, read_signed_key_set
from coin_protocol.rotation import RotatingSigner
from coin_protocol.signer import signer_from_uri
from coin_protocol.statements import read_key_set
from provider_sdk.ops.settings import ProviderSettings, load_settings
from provider_sdk.store import sealer_from_uri
from provider_sdk.store.jobs import MOST_ATTEMPTS
from provider_sdk.store.tables import COMMITTED, SESSION

_SOON: Final = timedelta(days=21)
_FILE: Final = "file:"


def examine(file: Path) -> Iterator[Finding]:
    """Look at keys, verifiers and database of a provider.

    Raises:
        CoinError: The settings cannot be used at all.
    """
    settings = load_settings(ProviderSettings, file)
    yield good("settings", str(file))
    yield from _keys(settings)
    yield tried(
        "sealing key",
        lambda: _sealing(settings),
        "coin provider sealing-key FILE makes one; a lost one loses every opening",
    )
    if settings.sealing_uri.startswith(_FILE):
        yield readable_secret("sealing key file", Path(settings.sealing_uri.removeprefix(_FILE)))
    yield from _verifiers(settings)
    yield embedding("embedding_workers", settings.embedding_workers, "coin provider worker")
    yield from _database(settings)


def _sealing(settings: ProviderSettings) -> str:
    sealer_from_uri(settings.sealing_uri)
    return "can be used"


def _keys(settings: ProviderSettings) -> Iterator[Finding]:
    advice = "coin keys init FOLDER --name NAME makes them; coin keys rotate renews them"
    try:
        if settings.signer is None:
            rotating = RotatingSigner(settings.keys, settings.name)
            signer, ring = rotating.public, read_key_set(rotating.served.signed.payload)
        else:
            signer = signer_from_uri(settings.signer_uri, settings.name).public
            ring = read_key_set(read_signed_key_set(settings.keys / "keyset.binpb").signed.payload)
    except CoinError as error:
        yield wrong("signing key", str(error), advice)
        return
    listed = ring.find(signer.keyid)
    if ring.owner != settings.name:
        yield wrong("key set", f"that of {ring.owner!r}", f"this provider is {settings.name!r}")
    elif listed is None:
        yield wrong("signing key", "not in the key set", advice)
    elif listed.end - datetime.now(UTC) < _SOON:
        yield note("signing key", f"its window ends at {listed.end.isoformat()}", "rotate it")
    else:
        yield good("signing key", f"{signer.keyid[:16]}…, until {listed.end.date()}")


def _verifiers(settings: ProviderSettings) -> Iterator[Finding]:
    if not settings.verifiers:
        yield wrong("verifiers", "none", "nobody can audit: name them under [verifiers]")
        return
    yield tried(
        "verifiers",
        lambda: ", ".join(
            sorted(
                listed.key.name
                for listed in pinned_verifiers(
                    {name: read_file(path) for name, path in settings.verifiers.items()}
                ).keys
            )
        ),
        "each is a public key in PEM",
    )


def _database(settings: ProviderSettings) -> Iterator[Finding]:
    url = settings.database.get_secret_value()
    given_up = 0
    try:
        for file in database_files(url):
            yield readable_secret("database file", file)
        with looking(url) as connection:
            if connection is None:
                found = f"{shown_database_url(url)} is not there yet"
                yield note("database", found, "the gateway or the service makes it")
                return
            revision = MigrationContext.configure(connection).get_current_revision()
            yield good("database", shown(connection.engine))
            if revision is None:
                yield note("tables", "none yet", "the gateway or the service makes them")
                return
            yield good("tables", f"revision {revision}")
            given_up = connection.execute(
                select(func.count())
                .select_from(SESSION)
                .where(SESSION.c.state == COMMITTED, SESSION.c.attempts >= MOST_ATTEMPTS)
            ).scalar_one()
    except CoinError as error:
        yield wrong("database", str(error), "is its server running, and may this user connect?")
        return
    if given_up:
        yield wrong(
            "fingerprints", f"{given_up} sessions given up", "mend the cause, coin provider retry"
        )
