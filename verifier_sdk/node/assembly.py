"""Put a node together from its settings: database, providers, auditors, queue."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine, insert, select

from coin_protocol.checks import Trust
from coin_protocol.database.engine import open_engine, writing
from coin_protocol.database.migrate import upgrade
from coin_protocol.errors import ConfigurationError, InvalidInputError, MissingDependencyError
from coin_protocol.files import read_file
from coin_protocol.keys import KeyRing, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned
from coin_protocol.memory import EvidenceMemory
from coin_protocol.models import Models
from coin_protocol.profile import Policy
from coin_protocol.root_certificate import RootDomain
from coin_protocol.signer import Signer, signer_from_uri
from coin_protocol.transport import BearerFiles, ClientTls, TlsFiles
from verifier_sdk.auditor import Auditor
from verifier_sdk.client import ProviderClient
from verifier_sdk.node.providers import Providers, RegisteredProvider
from verifier_sdk.node.queues import DatabaseQueue
from verifier_sdk.node.settings import NatsEntry, NodeSettings, ProviderEntry
from verifier_sdk.node.worker import Target
from verifier_sdk.semantic.choose import judge_for
from verifier_sdk.semantic.judge import Judge
from verifier_sdk.semantic.model_file import ModelFile
from verifier_sdk.semantic.sequential import SequentialJudge
from verifier_sdk.store.tables import MIGRATIONS, SECRET
from verifier_sdk.store.verdicts import Weigher

if TYPE_CHECKING:
    from verifier_sdk.node.nats_queue import NatsQueue, NatsSettings

ALPHA: Final = 0.01
"""Chance of ever failing an honest provider over all its sessions (section 9)."""

_DRAW: Final = "draw"
_SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class Bench:
    """What audits are made with, loaded once for all providers.

    Attributes:
        signer: Of challenges and verdicts.
        verifiers: Its key, and those that it had before.
        models: Of the profile.
        policy: Of this node.
        judge: Of graded evidence.
        weigher: Of evidence over sessions; None where the policy names no learned judge.
    """

    signer: Signer
    verifiers: KeyRing
    models: Models
    policy: Policy
    judge: Judge
    weigher: Weigher | None


def open_database(settings: NodeSettings) -> Engine:
    """Open the node's database and bring its tables up to date.

    Raises:
        ConfigurationError: It cannot be used.
        StoreUnavailableError: It does not answer.
    """
    engine = open_engine(settings.database.get_secret_value())
    try:
        upgrade(engine, MIGRATIONS)
    except BaseException:
        engine.dispose()
        raise
    return engine


def load_keys(settings: NodeSettings) -> tuple[Signer, KeyRing]:
    """Return what signs; all keys that this verifier ever signed with, and those of others.

    Raises:
        ConfigurationError: A key cannot be used.
    """
    signer = signer_from_uri(settings.key.get_secret_value(), settings.name)
    old = [VerificationKey.from_pem(settings.name, read_file(path)) for path in settings.old_keys]
    others = [
        VerificationKey.from_pem(name, read_file(path))
        for name, path in settings.other_verifiers.items()
    ]
    return signer, pinned("verifiers", [signer.public, *old, *others])


def load_bench(settings: NodeSettings, models: Models, policy: Policy) -> Bench:
    """Load keys and judge.

    Raises:
        ConfigurationError: One cannot be used.
    """
    signer, verifiers = load_keys(settings)
    return Bench(
        signer=signer,
        verifiers=verifiers,
        models=models,
        policy=policy,
        judge=judge_for(policy, models, settings.judge),
        weigher=_weigher(settings, policy),
    )


def registered(settings: NodeSettings, verifiers: KeyRing) -> Providers:
    """Return the providers of the settings, each with its own trust.

    Raises:
        ConfigurationError: A root or an authority cannot be read.
    """
    return Providers(
        {
            name: RegisteredProvider(
                name,
                entry.endpoint,
                _trust(name, entry, verifiers),
                settings.share if entry.share is None else entry.share,
                settings.audits_per_day if entry.audits_per_day is None else entry.audits_per_day,
            )
            for name, entry in settings.providers.items()
        }
    )


async def open_targets(
    settings: NodeSettings,
    bench: Bench,
    providers: Providers,
    memory: EvidenceMemory,
    stack: AsyncExitStack,
) -> Mapping[str, Target]:
    """Return an auditor and a client for each provider; the stack closes them.

    Raises:
        ConfigurationError: A file of TLS cannot be used, or an endpoint needs one.
    """
    targets = {}
    for name, entry in settings.providers.items():
        client = ProviderClient(
            entry.endpoint, tls=client_tls(entry), timeout=settings.call_seconds
        )
        auditor = Auditor(
            name=settings.name,
            signer=bench.signer,
            trust=providers[name].trust,
            models=bench.models,
            policy=bench.policy,
            judge=bench.judge,
            memory=memory,
        )
        targets[name] = Target(auditor, await stack.enter_async_context(client))
    return targets


async def open_queue(
    settings: NodeSettings, engine: Engine, bell: asyncio.Event
) -> DatabaseQueue | NatsQueue:
    """Return the queue that the settings name.

    Args:
        settings: Of this process.
        engine: Of the node's database.
        bell: Set where this process itself has queued an audit.

    Raises:
        MissingDependencyError: JetStream is asked for, and its client is not installed.
        ConfigurationError: JetStream's credentials or stream cannot be used.
        TryLaterError: JetStream does not answer.
    """
    nats = settings.nats
    if nats is None:
        return DatabaseQueue(engine, bell)
    stream = _stream_settings(nats)
    from verifier_sdk.node.nats_queue import NatsQueue

    return await NatsQueue.connect(stream, engine, lease_seconds=settings.lease_seconds)


async def find_stream(nats: NatsEntry) -> bool:
    """Return whether JetStream has the stream of a node's queue, and make nothing.

    Raises:
        MissingDependencyError: Its client is not installed.
        ConfigurationError: Its credentials or stream cannot be used.
        TryLaterError: It does not answer.
    """
    stream = _stream_settings(nats)
    from verifier_sdk.node.nats_queue import is_there

    return await is_there(stream)


def draw_secret(engine: Engine) -> bytes:
    """Return the secret by which the share that is audited is drawn; all processes have one.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        mine = select(SECRET.c.value).where(SECRET.c.name == _DRAW)
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as insert_ignoring

            connection.execute(
                insert_ignoring(SECRET)
                .values(name=_DRAW, value=secrets.token_bytes(_SECRET_BYTES))
                .on_conflict_do_nothing()
            )
        elif connection.execute(mine).first() is None:
            connection.execute(
                insert(SECRET).values(name=_DRAW, value=secrets.token_bytes(_SECRET_BYTES))
            )
        value: bytes = connection.execute(mine).scalar_one()
        return value


def _weigher(settings: NodeSettings, policy: Policy) -> Weigher | None:
    if settings.judge is None and not policy.message.semantic_model_sha256:
        return None
    file = ModelFile.shipped() if settings.judge is None else ModelFile.from_file(settings.judge)
    questions = file.calibration_questions
    if questions is None:
        return None
    return Weigher(judge_sha256=file.digest.hex(), judge=SequentialJudge(ALPHA, questions))


def _stream_settings(nats: NatsEntry) -> NatsSettings:
    try:
        from verifier_sdk.node.nats_queue import NatsSettings
    except ModuleNotFoundError as error:
        msg = "the table [nats] needs a package more: pip install 'coin-audit[verifier,nats]'"
        raise MissingDependencyError(msg) from error
    return NatsSettings(
        servers=[server.get_secret_value() for server in nats.servers],
        stream=nats.stream,
        credentials=nats.credentials,
        authorities=nats.authorities,
    )


def _trust(name: str, entry: ProviderEntry, verifiers: KeyRing) -> Trust:
    try:
        roots = [VerificationKey.from_pem(ROOT_KEY_NAME, read_file(path)) for path in entry.roots]
    except InvalidInputError as error:
        msg = f"a root of provider {name!r} cannot be used: {error}"
        raise ConfigurationError(msg) from error
    domains = [
        RootDomain.from_system(domain)
        if entry.authorities is None
        else RootDomain.from_file(domain, entry.authorities)
        for domain in entry.domains
    ]
    return Trust(provider_roots=roots, verifiers=verifiers, provider_domains=domains)


def client_tls(entry: ProviderEntry) -> ClientTls | None:
    """Return the files by which a provider is called; None for plaintext, on this machine."""
    if entry.server_authorities is None:
        return None
    if entry.certificate is not None and entry.key is not None:
        return TlsFiles(entry.certificate, entry.key, entry.server_authorities)
    if entry.token is not None:
        return BearerFiles(entry.server_authorities, entry.token)
    return None
