"""What gateway, challenge service and worker share: one set of settings, each with its limits.

A value comes from the command line, else from `COIN_<NAME>` in the environment, else from a
file of systemd's credentials, else from the TOML file, else it is the default. A name that is
none is an error, in the environment and among the credentials too. docs/operations.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import quote

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from coin_protocol.database.url import database_passwords
from coin_protocol.files import data_folder
from coin_protocol.limits import MAX_NAME_BYTES
from coin_protocol.ops.fields import Address, DatabaseUrl, TlsSettings
from coin_protocol.ops.loading import TableSettings, load, read_tables
from coin_protocol.ops.logs import LogFormat, LogLevel

PREFIX: Final = "COIN_"

OTHER_TABLES: Final = ("gateway",)
"""Tables of the file, and prefixes of the environment, that belong to one component alone."""

_OTHER_VARIABLES: Final = (
    "COIN_CACHE_DIR",
    "COIN_DATA_DIR",
    "COIN_DEBUG",
    "COIN_CONFIG",
    "COIN_KEY_*",
    "COIN_PKCS11_*",
    "COIN_TEST_*",
    "COIN_VERIFIER_*",
    "COIN_WITNESS_*",
    *(f"{PREFIX}{table.upper()}_*" for table in OTHER_TABLES),
)
_DAY_SECONDS: Final = 86_400


def _default_database() -> SecretStr:
    return SecretStr(f"sqlite:///{data_folder() / 'coin.db'}")


class ProviderSettings(TableSettings):
    """The shared settings. Add a component's own in a subclass, or beside them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, validate_default=True)

    name: str = Field(
        min_length=1,
        max_length=MAX_NAME_BYTES,
        description="The provider's name, as in its key set and on the bill.",
    )
    keys: Path = Field(description="Folder that `coin keys init` made: key set and signing keys.")
    signer: SecretStr | None = Field(
        default=None,
        description="URI of the signing key (file:, keys:, pkcs11:); by default the folder's.",
    )
    sealing_key: SecretStr | None = Field(
        default=None,
        description="URI of the key that seals secrets in the database; by default "
        "file:KEYS/sealing.key. Lost with it: every opening.",
    )
    profile: str = Field(default="default", description="A profile that ships, or a file.")
    verifiers: dict[str, Path] = Field(
        default_factory=dict,
        max_length=1000,
        description="Public key (PEM) of each verifier that may challenge, by name.",
    )

    database: DatabaseUrl = Field(
        default_factory=_default_database,
        description="sqlite:///PATH (sqlite:////PATH absolute) or postgresql://USER:PASSWORD@HOST/"
        "NAME; by default a file in the user's data folder.",
    )
    store_deadline_seconds: float = Field(
        default=2.0,
        ge=0.05,
        le=60,
        description="A finished reply waits so long for the disk; then its receipt is missing.",
    )
    lease_seconds: float = Field(
        default=15.0,
        ge=5,
        le=3600,
        description="A process that shows no sign of life for so long is taken for dead, and its "
        "sessions are closed as crashed.",
    )
    retention_days: int = Field(
        default=90,
        ge=1,
        le=3650,
        description="Days from commitment to purge: secrets are deleted, commitments kept.",
    )
    embedding_workers: int = Field(
        default=1, ge=0, le=64, description="Threads that embed in this process; 0 for none."
    )

    listen: Address = Field(
        default="127.0.0.1:8443", description="HOST:PORT of the challenge service."
    )
    tls: TlsSettings | None = Field(
        default=None, description="Without, the service listens on loopback only."
    )
    tokens: Path | None = Field(
        default=None, description="File of bearer-token digests, one a verifier."
    )
    calls_per_second: float = Field(
        default=10.0,
        gt=0,
        le=10_000,
        description="Calls that one verifier may make of one process, on the long run.",
    )
    calls_burst: int = Field(
        default=50, ge=1, le=100_000, description="Calls of one verifier at once, after a pause."
    )
    grace_seconds: int = Field(
        default=30,
        ge=0,
        le=_DAY_SECONDS,
        description="At shutdown, calls and embedding under way may finish for so long.",
    )
    notice_seconds: int = Field(
        default=0,
        ge=0,
        le=3600,
        description="Before that grace, if any, health says for so long that the server leaves.",
    )

    metrics_listen: Address | None = Field(
        default=None, description="HOST:PORT that serves /metrics; another for every process."
    )
    log_level: LogLevel = Field(default="info", description="Least grave level that is written.")
    log_format: LogFormat = Field(
        default="auto", description="json, console, or auto: console on a terminal."
    )

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.store_deadline_seconds >= self.lease_seconds:
            msg = "store_deadline_seconds must be below lease_seconds"
            raise ValueError(msg)
        return self

    @property
    def signer_uri(self) -> str:
        """The URI of the signing key. It may hold a PIN."""
        given = self.signer
        return f"keys:{quote(str(self.keys))}" if given is None else given.get_secret_value()

    @property
    def sealing_uri(self) -> str:
        """The URI of the sealing key. It may hold a secret."""
        if self.sealing_key is None:
            return f"file:{quote(str(self.keys / 'sealing.key'))}"
        return self.sealing_key.get_secret_value()

    def secret_values(self) -> Iterator[str]:
        """Give every secret in these settings, for `configure_logging(secrets=…)`."""
        # Of the database the passwords alone: a log that cannot name it helps nobody.
        yield from database_passwords(self.database.get_secret_value())
        for name, value in self:
            if isinstance(value, SecretStr) and name != "database":
                yield value.get_secret_value()


S = TypeVar("S", bound=ProviderSettings)


def load_settings(kind: type[S], file: Path | None = None, **given: object) -> S:
    """Return settings out of all their sources.

    Args:
        kind: `ProviderSettings`, or a component's subclass of it.
        file: TOML file, where there is one.
        **given: What the command line says; None counts as not given.

    Raises:
        ConfigurationError: The file cannot be read, or a setting is missing, unknown or out of
            its limits. Values are never quoted.
    """
    shared = {
        name: value
        for name, value in read_tables(file).items()
        # The tables of other components are theirs to check.
        if name in kind.model_fields or name not in OTHER_TABLES
    }
    return load(
        kind,
        shared,
        file=file,
        given=given,
        others=_OTHER_VARIABLES,
        other_secrets=OTHER_TABLES,
    )
