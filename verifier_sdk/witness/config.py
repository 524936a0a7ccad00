"""What a witness can be told: options, environment, credentials, a TOML file, defaults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from coin_protocol.database.url import database_passwords
from coin_protocol.errors import InvalidInputError
from coin_protocol.files import data_folder
from coin_protocol.limits import MAX_NOTE_NAME_BYTES
from coin_protocol.ops.fields import Address, DatabaseUrl
from coin_protocol.ops.loading import TableSettings, load, read_tables
from coin_protocol.ops.logs import LogFormat, LogLevel
from verifier_sdk.witness.witness import parse_logs

PREFIX: Final = "COIN_WITNESS_"
_DAY_SECONDS: Final = 86_400


def _default_database() -> SecretStr:
    return SecretStr(f"sqlite:///{data_folder() / 'witness.db'}")


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Keys = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1, max_length=16)]


class WitnessSettings(TableSettings):
    """Every setting of a witness."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, validate_default=True)

    name: str = Field(
        min_length=1,
        max_length=MAX_NOTE_NAME_BYTES,
        description="The witness's name, such as example.org/w1. It is part of its key.",
    )
    key: SecretStr = Field(
        description="URI of its Ed25519 key (file:, pkcs11:), which signs nothing else."
    )
    logs: dict[str, Keys] = Field(
        default_factory=dict,
        max_length=10_000,
        description="Logs that it follows: the verifier key, or keys, of each, by its origin.",
    )
    database: DatabaseUrl = Field(
        default_factory=_default_database,
        description="sqlite:///PATH (sqlite:////PATH absolute) or postgresql://USER:PASSWORD@HOST/"
        "NAME, of this witness alone; by default a file in the user's data folder.",
    )

    listen: Address = Field(default="127.0.0.1:8446", description="HOST:PORT for logs.")
    tls_certificate: Path | None = Field(
        default=None, description="Certificate chain (PEM); without, plain HTTP is served."
    )
    tls_key: Path | None = Field(default=None, description="Its private key (PEM), unencrypted.")
    requests_per_second: float = Field(
        default=10.0,
        gt=0,
        le=100_000,
        description="Requests of one address (one /64 of IPv6) on the long run.",
    )
    requests_burst: int = Field(
        default=100, ge=1, le=1_000_000, description="Requests of one address at once."
    )
    grace_seconds: int = Field(
        default=10,
        ge=0,
        le=_DAY_SECONDS,
        description="At shutdown, requests may finish for so long.",
    )

    metrics_listen: Address | None = Field(
        default=None, description="HOST:PORT that serves /metrics."
    )
    log_level: LogLevel = Field(default="info", description="Least grave level that is written.")
    log_format: LogFormat = Field(
        default="auto", description="json, console, or auto: console on a terminal."
    )

    @field_validator("logs")
    @classmethod
    def _keys_of_logs(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        try:
            parse_logs(value)
        except InvalidInputError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            msg = "tls_certificate and tls_key go together: give both or neither"
            raise ValueError(msg)
        return self

    def secret_values(self) -> Iterator[str]:
        """Give every secret in these settings, for `configure_logging(secrets=…)`."""
        yield from database_passwords(self.database.get_secret_value())
        yield self.key.get_secret_value()


def load_settings(file: Path | None = None, **given: object) -> WitnessSettings:
    """Return the settings.

    Args:
        file: TOML file, where there is one.
        **given: What the command line says; None counts as not given.

    Raises:
        ConfigurationError: The file cannot be read, or a setting is missing, unknown or out of
            its limits. Values are never quoted.
    """
    table = read_tables(file)
    return load(WitnessSettings, table, file=file, given=given, owner="the witness")
