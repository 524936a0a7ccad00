"""What the gateway can be told: options, environment, credentials, a TOML file, defaults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, FilePath, HttpUrl, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from coin_protocol.errors import ConfigurationError
from coin_protocol.ops.loading import TableSettings, load, read_tables
from coin_protocol.vendors import CONVENTIONS

PREFIX: Final = "COIN_GATEWAY_"
MIB: Final = 1024 * 1024

PASSED: Final = (
    "/v1/models",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/audio",
    "/tokenize",
    "/detokenize",
    "/health",
    "/version",
)
"""Paths on which no serving stack in use generates reasoning."""
_DAY: Final = 86_400.0

Seconds = Annotated[float, Field(gt=0, le=_DAY)]


class Reasoning(StrEnum):
    """What the client sees of the reasoning."""

    HIDE = "hide"
    PASS = "pass"  # noqa: S105 - no password


class TokenIds(StrEnum):
    """How the upstream is asked for token ids."""

    AUTO = "auto"
    """Ask; where it answers 400 or 422, send the request again without asking, and remember."""
    ASK = "ask"
    """Ask, whatever it answers."""
    NEVER = "never"
    """Do not ask: its text is tokenized again, and receipts say RETOKENIZED."""


class Settings(TableSettings):
    """Every setting of the gateway. docs/gateway.md says when to change which.

    A value comes from the command line, else from `COIN_GATEWAY_<NAME>` in the environment, else
    from systemd's credential `coin_gateway_<name>`, else from the file. Secrets are files, or
    `SecretStr`, and never shown.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    upstream: HttpUrl
    """Where the serving stack listens, without `/v1`."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """Port to listen on; 0 picks one."""
    tls_certificate: FilePath | None = None
    """PEM chain, where the gateway itself speaks HTTPS."""
    tls_key: FilePath | None = None
    """PEM key of that certificate."""

    sign: bool = True
    """Off: every byte is passed on untouched and nothing is committed to."""
    require_receipt: bool = False
    """A reply whose receipt is missing is an error for the client."""
    reasoning: Reasoning = Reasoning.HIDE
    """Whether the client sees the reasoning's text."""
    markers: str | dict[str, Any] = "think"
    """How the model marks its reasoning: a built-in name, or a table of them."""
    model_markers: dict[str, str | dict[str, Any]] = Field(default_factory=dict, max_length=1000)
    """The same, for requests that name one of these models."""
    token_ids: TokenIds = TokenIds.AUTO
    """Whether the upstream is asked for the ids that it sampled."""
    vendor: str = "openai-compatible"
    """How the upstream counts in its usage block: a name of docs/usage.md."""
    rewrite_usage: bool = True
    """Write the committed counts over the upstream's usage block, where it counts otherwise."""
    pass_prefixes: tuple[str, ...] = PASSED
    """Other paths go through where they begin with one of these; the rest is 404."""

    max_request_bytes: int = Field(default=64 * MIB, ge=1024, le=1024 * MIB)
    """A larger request to a committed path is answered 413."""
    max_reply_bytes: int = Field(default=256 * MIB, ge=1024, le=1024 * MIB)
    """A larger plain reply of the upstream is answered 502; it is held in memory."""
    max_event_bytes: int = Field(default=16 * MIB, ge=1024, le=256 * MIB)
    """A larger event of a stream is malformed."""

    connect_seconds: Seconds = 10.0
    """To connect to the upstream."""
    first_byte_seconds: Seconds = 600.0
    """From request to the first byte of the upstream's reply, and between two of its bytes."""
    client_stall_seconds: Seconds = 60.0
    """A client that takes nothing for so long is dropped, as if it had hung up."""
    grace_seconds: Annotated[int, Field(ge=0, le=int(_DAY))] = 30
    """At shutdown, streams may finish for so long; then they are CANCELLED."""
    abort_seconds: Seconds = 10.0
    """After the grace period, for the aborted commitments to be signed and written."""
    max_connections: int = Field(default=1000, ge=1, le=65_535)
    """Connections to the upstream; more requests wait for one."""
    max_client_connections: int = Field(default=4096, ge=1, le=1_000_000)
    """Connections of clients; a request on one more is answered 503."""
    read_buffer_bytes: int = Field(default=64 * 1024, ge=1024, le=16 * MIB)
    """Of one stream, held for a client that reads slowly; then the upstream is not read."""

    metrics_path: Literal["", "/metrics"] = ""
    """`/metrics` serves metrics on the gateway's own port: whoever can ask for replies reads
    how many others do. Empty: not there; the shared setting `metrics_listen` has its own port."""

    caller_key: SecretStr | None = Field(default=None, min_length=16)
    """Keys the digest under which a caller's receipts are kept; the same in all processes."""
    keep_missing: int = Field(default=10_000, ge=0, le=10_000_000)
    """Replies without a commitment whose reason is remembered, for GET /coin/v1/receipts."""

    @field_validator("upstream")
    @classmethod
    def _bare(cls, url: HttpUrl) -> HttpUrl:
        if url.query or url.fragment or url.username or url.password:
            msg = "wanted http://HOST:PORT with an optional path, and no query or credentials"
            raise ValueError(msg)
        return url

    @field_validator("vendor")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in CONVENTIONS:
            msg = f"wanted one of {', '.join(CONVENTIONS)}"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _pairs(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            msg = "tls_certificate and tls_key go together: give both or neither"
            raise ValueError(msg)
        if self.require_receipt and not self.sign:
            msg = "require_receipt needs sign: there are no receipts without it"
            raise ValueError(msg)
        return self

    def secret_values(self) -> Iterator[str]:
        """Give every secret in these settings, for `configure_logging(secrets=…)`."""
        for _, value in self:
            if isinstance(value, SecretStr):
                yield value.get_secret_value()

    @property
    def upstream_root(self) -> str:
        """The upstream's URL without a slash at its end."""
        return str(self.upstream).rstrip("/")


def is_configured(file: Path | None = None) -> bool:
    """Tell whether the file or the environment holds settings of the gateway.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    return "gateway" in read_tables(file) or any(
        variable.upper().startswith(PREFIX) for variable in os.environ
    )


def load_settings(file: Path | None = None, **given: object) -> Settings:
    """Return the settings.

    Args:
        file: TOML file, where there is one; its table `[gateway]` is read.
        **given: Settings that go before all else; None counts as not given.

    Raises:
        ConfigurationError: The file cannot be read, or a setting is missing, unknown or out of
            its limits. Values are never quoted.
    """
    table = read_tables(file).get("gateway", {})
    if not isinstance(table, dict):
        msg = f"[gateway] in {file} must be a table"
        raise ConfigurationError(msg)
    return load(Settings, table, file=file, given=given, owner="the gateway")
