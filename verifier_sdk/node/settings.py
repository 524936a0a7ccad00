"""The settings of a node, each with its limits. docs/verifier.md lists them.

A value comes from the command line, else from `COIN_VERIFIER_<NAME>` in the environment, else from
a file of systemd's credentials, else from the TOML file, else it is the default.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from coin_protocol.database.url import database_passwords
from coin_protocol.files import cache_folder, data_folder
from coin_protocol.limits import MAX_NAME_BYTES
from coin_protocol.ops.fields import Address, DatabaseUrl, TlsSettings
from coin_protocol.ops.loading import TableSettings, load, read_tables
from coin_protocol.ops.logs import LogFormat, LogLevel
from verifier_sdk.node.hosts import HostName
from verifier_sdk.store.quota import DEFAULT_QUOTA, Quota
from verifier_sdk.web.settings import WebSettings

PREFIX: Final = "COIN_VERIFIER_"
_DAY_SECONDS: Final = 86_400
_LONGEST_PAUSE_SECONDS: Final = 7 * _DAY_SECONDS
_MEGABYTE: Final = 1_000_000


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ProviderEntry(_Table):
    """A provider: where it is called, and by whose keys it is believed."""

    endpoint: Address = Field(description="HOST:PORT of its challenge service.")
    roots: list[Path] = Field(
        default_factory=list, max_length=16, description="Root public keys (PEM) that you pin."
    )
    domains: list[str] = Field(
        default_factory=list,
        max_length=16,
        description="Its domains, a certificate of which may sign its keys.",
    )
    authorities: Path | None = Field(
        default=None, description="PEM authorities for `domains`; by default the system's."
    )
    certificate: Path | None = Field(default=None, description="Your client certificate (PEM).")
    key: Path | None = Field(default=None, description="Its private key.")
    token: Path | None = Field(default=None, description="File of your bearer token there.")
    server_authorities: Path | None = Field(
        default=None, description="What its server's certificate must end in (PEM)."
    )
    share: float | None = Field(
        default=None, ge=0, le=1, description="Share of its commitments that is audited."
    )
    audits_per_day: int | None = Field(
        default=None, ge=0, description="Audits of it begun in a day (UTC), at most."
    )

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if not self.roots and not self.domains:
            msg = "say whom to believe: roots or domains"
            raise ValueError(msg)
        if (self.certificate is None) != (self.key is None):
            msg = "certificate and key go together"
            raise ValueError(msg)
        if self.certificate is not None and self.token is not None:
            msg = "give a certificate or a token, not both"
            raise ValueError(msg)
        named = self.certificate is not None or self.token is not None
        if named and self.server_authorities is None:
            msg = "TLS needs server_authorities: what its server's certificate must end in"
            raise ValueError(msg)
        return self


class WitnessEntry(_Table):
    """A witness."""

    url: str = Field(description="Where it is reached; https, or http on this machine.")
    vkey: str = Field(description="Its verifier key, as C2SP signed notes write it.")


class LogEntry(_Table):
    """The log of commitments and verdicts. Without this table a node keeps none."""

    origin: str = Field(
        min_length=1, max_length=255, description="The log's name, as in its checkpoints."
    )
    key: SecretStr = Field(description="URI of the Ed25519 key that signs its heads.")
    head_file: Path | None = Field(
        default=None,
        description="Where the last head is kept outside the database, and in none of its backups; "
        "by default in the user's data folder, named by the origin.",
    )
    older_keys: list[str] = Field(
        default_factory=list,
        max_length=16,
        description="Verifier keys (vkey) that signed heads of this log before.",
    )
    interval_seconds: float = Field(
        default=0.9, ge=0.05, le=3600, description="Heads are signed no more often than that."
    )
    witnesses: dict[str, WitnessEntry] = Field(
        default_factory=dict, max_length=32, description="Who cosigns its heads, by name."
    )
    quorum: int = Field(default=0, ge=0, le=32, description="Cosignatures that a head must have.")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.quorum > len(self.witnesses):
            msg = f"a quorum of {self.quorum} with {len(self.witnesses)} witnesses"
            raise ValueError(msg)
        return self


class NatsEntry(_Table):
    """NATS JetStream. Without this table audits are handed out by the database."""

    servers: list[SecretStr] = Field(min_length=1, max_length=16, description="URLs of servers.")
    stream: str = Field(
        default="COIN_AUDITS", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The stream's name."
    )
    credentials: Path | None = Field(default=None, description="File of NATS credentials.")
    authorities: Path | None = Field(default=None, description="PEM authorities, for TLS.")


class NodeSettings(TableSettings):
    """Everything that a node, or one of its workers, goes by."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, validate_default=True)

    name: str = Field(
        min_length=1, max_length=MAX_NAME_BYTES, description="The verifier's name, in verdicts."
    )
    key: SecretStr = Field(description="URI of the key that signs challenges and verdicts.")
    old_keys: list[Path] = Field(
        default_factory=list,
        max_length=64,
        description="Public keys (PEM) that this verifier signed with before.",
    )
    other_verifiers: dict[str, Path] = Field(
        default_factory=dict,
        max_length=256,
        description="Public keys (PEM), by name, of verifiers that audit the same providers.",
    )
    profile: str = Field(default="default", description="A profile that ships, or a file.")
    policy: str = Field(default="default", description="A policy that ships, or a file.")
    judge: Path | None = Field(
        default=None, description="Model file that the policy names; by default what ships."
    )
    providers: dict[str, ProviderEntry] = Field(
        default_factory=dict, max_length=1000, description="Whom this node audits, by name."
    )
    share: float = Field(
        default=1.0, ge=0, le=1, description="Share of commitments audited, where none is given."
    )
    audits_per_day: int | None = Field(
        default=None, ge=0, description="Audits a day of each provider, where none is given."
    )
    chosen_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Part of `audits_per_day`, rounded up, for audits that were asked for or "
        "looked odd; the rest is kept for those drawn at random.",
    )

    database: DatabaseUrl = Field(
        default_factory=lambda: SecretStr(f"sqlite:///{data_folder() / 'verifier.db'}"),
        description="sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME.",
    )
    memory_folder: Path = Field(
        default_factory=lambda: cache_folder() / "memory",
        description="Folder of the index over remembered blocks; it can be made again.",
    )
    retention_days: int = Field(
        default=365,
        ge=1,
        le=36_500,
        description="Days from verdict to purge: receipts, bundles and remembered blocks are "
        "deleted, figures and log entries kept.",
    )
    nats: NatsEntry | None = Field(default=None, description="NATS JetStream, at scale.")
    log: LogEntry | None = Field(default=None, description="The log of commitments and verdicts.")

    audits_at_once: int = Field(
        default=4, ge=0, le=256, description="Audits under way in this process; 0 for none."
    )
    lease_seconds: float = Field(
        default=30.0,
        ge=2,
        le=3600,
        description="A worker that shows no sign of life for so long loses its audits to others.",
    )
    call_seconds: float = Field(
        default=30.0, ge=1, le=300, description="How long a provider is asked for one answer."
    )

    retry_seconds: list[Annotated[float, Field(ge=0, le=_LONGEST_PAUSE_SECONDS)]] = Field(
        default=[30.0, 120.0, 600.0, 1800.0, 7200.0, 21_600.0],
        max_length=20,
        description="Pauses before further attempts where a provider cannot be reached; after "
        "the last one the audit ends INCONCLUSIVE.",
    )

    listen: Address = Field(default="127.0.0.1:8444", description="HOST:PORT of gRPC.")
    tls: TlsSettings | None = Field(
        default=None, description="Without, gRPC listens on loopback only."
    )
    tokens: Path | None = Field(
        default=None, description="File of bearer-token digests, one a client."
    )
    calls_per_second: float = Field(
        default=1000.0, gt=0, le=100_000, description="Calls of one client, on the long run."
    )
    calls_burst: int = Field(default=2000, ge=1, le=1_000_000, description="Calls at once.")
    receipts_per_day: int = Field(
        default=DEFAULT_QUOTA.receipts_per_day,
        ge=1,
        description="Receipts of one client that are kept in a day (UTC).",
    )
    megabytes_per_day: int = Field(
        default=DEFAULT_QUOTA.bytes_per_day // _MEGABYTE,
        ge=100,
        description="The same in megabytes; the largest receipt has 67.",
    )
    receipts_per_commitment: int = Field(
        default=DEFAULT_QUOTA.receipts_per_commitment,
        ge=1,
        le=1000,
        description="Different receipts of one commitment that are kept of one client.",
    )
    http_listen: Address | None = Field(
        default=None, description="HOST:PORT of pages, log and HTTP interface; none without."
    )
    http_certificate: Path | None = Field(default=None, description="Certificate chain (PEM).")
    http_key: Path | None = Field(default=None, description="Its private key.")
    http_hosts: list[HostName] = Field(
        default_factory=list,
        max_length=64,
        description="Host names under which HTTP interface and log answer, besides addresses, "
        "localhost and those of web.origins; by default any where tokens say who calls.",
    )
    web: WebSettings = Field(
        default_factory=WebSettings, description="Who may read the pages, and where."
    )
    grace_seconds: int = Field(
        default=60, ge=0, le=_DAY_SECONDS, description="At shutdown, audits may finish for so long."
    )
    notice_seconds: int = Field(
        default=0, ge=0, le=3600, description="Before that, health says that the node leaves."
    )
    metrics_listen: Address | None = Field(default=None, description="HOST:PORT of /metrics.")
    log_level: LogLevel = Field(default="info", description="Least grave level that is written.")
    log_format: LogFormat = Field(default="auto", description="json, console or auto.")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if (self.http_certificate is None) != (self.http_key is None):
            msg = "http_certificate and http_key go together"
            raise ValueError(msg)
        return self

    @property
    def quota(self) -> Quota:
        """What one client may hand in."""
        return Quota(
            receipts_per_day=self.receipts_per_day,
            bytes_per_day=self.megabytes_per_day * _MEGABYTE,
            receipts_per_commitment=self.receipts_per_commitment,
        )

    def secret_values(self) -> Iterator[str]:
        """Give every secret in these settings, for `configure_logging(secrets=…)`."""
        yield from database_passwords(self.database.get_secret_value())
        yield self.key.get_secret_value()
        if self.log is not None:
            yield self.log.key.get_secret_value()
        if self.nats is not None:
            for server in self.nats.servers:
                url = server.get_secret_value()
                yield url
                # A password, or a token in its place; a library may write it without the URL.
                found = urlsplit(url)
                yield from filter(None, (unquote(found.password or found.username or ""),))


def load_settings(file: Path | None = None, **given: object) -> NodeSettings:
    """Return settings out of all their sources.

    Args:
        file: TOML file, where there is one.
        **given: What the command line says; None counts as not given.

    Raises:
        ConfigurationError: The file cannot be read, or a setting is missing, unknown or out of
            its limits. Values are never quoted.
    """
    return load(NodeSettings, read_tables(file), file=file, given=given, owner="the verifier")
