"""How settings are put together out of their sources, and what is said where they are wrong."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from coin_protocol.errors import ConfigurationError

_NESTED: Final = "__"
_MAX_FILE_BYTES: Final = 1 << 20

_TABLE: ContextVar[Mapping[str, object]] = ContextVar("_TABLE", default=MappingProxyType({}))


class TableSettings(BaseSettings):
    """Settings from options, else the environment, else a folder of secrets, else a TOML table."""

    model_config = SettingsConfigDict(
        env_nested_delimiter=_NESTED,
        extra="forbid",
        frozen=True,
        # What is wrong may be a secret in the wrong place.
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the sources in their order."""
        del dotenv_settings
        from_table = InitSettingsSource(settings_cls, dict(_TABLE.get()))
        return init_settings, env_settings, file_secret_settings, from_table


S = TypeVar("S", bound=TableSettings)


def load(
    kind: type[S],
    table: Mapping[str, object],
    *,
    file: Path | None,
    given: Mapping[str, object],
    owner: str = "",
    others: Iterable[str] = (),
    secrets_dir: str | None = None,
) -> S:
    """Return settings out of all their sources.

    Args:
        kind: What to load; its `env_prefix` says which variables of the environment are its own.
        table: What the file says.
        file: Where the table is from, for messages.
        given: What goes before all else; None counts as not given.
        owner: Whose settings these are, for messages.
        others: Patterns of variables with the same prefix that are no settings of this kind.
        secrets_dir: Folder with a file for each secret.

    Raises:
        ConfigurationError: A setting is missing, unknown or out of its limits. Values are never
            quoted.
    """
    _refuse_unknown_variables(kind, owner, others)
    named = {name: value for name, value in given.items() if value is not None}
    named["_secrets_dir"] = secrets_dir
    token = _TABLE.set(table)
    try:
        return kind(**named)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'together'}: {detail['msg']}"
            for detail in error.errors(include_input=False, include_url=False)
        )
        what = f"{owner}'s settings" if owner else "the settings"
        where = "" if file is None else f" ({file})"
        msg = f"{what}{where} cannot be used: {found}"
        raise ConfigurationError(msg) from None
    except SettingsError as error:
        # Its text names the variable, and the error behind it would quote the value.
        of = f" of {owner}" if owner else ""
        msg = f"a setting{of} cannot be read: {error}; lists and tables are written as JSON"
        raise ConfigurationError(msg) from None
    finally:
        _TABLE.reset(token)


def read_tables(file: Path | None) -> dict[str, object]:
    """Return what a TOML file says, unchecked; without a file, nothing.

    Raises:
        ConfigurationError: It is missing, too large or no TOML.
    """
    if file is None:
        return {}
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        msg = f"cannot read the settings in {file}: {error.strerror}"
        raise ConfigurationError(msg) from error
    if len(raw) > _MAX_FILE_BYTES:
        msg = f"{file} has more than {_MAX_FILE_BYTES} bytes; that is no file of settings"
        raise ConfigurationError(msg)
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{file} is not TOML: {error}"
        raise ConfigurationError(msg) from error


def _refuse_unknown_variables(kind: type[TableSettings], owner: str, others: Iterable[str]) -> None:
    prefix = kind.model_config["env_prefix"]
    known = [f"{prefix}{name.upper()}" for name in kind.model_fields]
    for variable in os.environ:
        name = variable.upper()
        ours = name.startswith(prefix) and not any(fnmatchcase(name, other) for other in others)
        if ours and name.partition(_NESTED)[0] not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            has = f"{owner} has" if owner else "there is"
            msg = f"the environment has {variable}, and {has} no such setting{hint}"
            raise ConfigurationError(msg)
