"""Kinds of settings that more than one component has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from coin_protocol.database.url import check_database_url
from coin_protocol.errors import ConfigurationError
from coin_protocol.ops.address import parse_address


def _address(value: str) -> str:
    try:
        parse_address(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return value


def _database(value: SecretStr) -> SecretStr:
    try:
        check_database_url(value.get_secret_value())
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return value


Address = Annotated[str, AfterValidator(_address)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database)]


class TlsSettings(BaseModel):
    """PEM files of a gRPC service. They are read again when they change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    certificate: Path = Field(description="Certificate chain of the service.")
    key: Path = Field(description="Its private key, unencrypted.")
    authorities: Path | None = Field(
        default=None, description="What client certificates must end in; without, tokens are used."
    )
