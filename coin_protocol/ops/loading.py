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
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
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
    """Settings from options, the environment, systemd's credentials or a TOML table, in order."""

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
    other_secrets: Iterable[str] = (),
) -> S:
    """Return settings out of all their sources.

    Args:
        kind: What to load; its `env_prefix` says which variables of the environment are its own.
        table: What the file says.
        file: Where the table is from, for messages.
        given: What goes before all else; None counts as not given.
        owner: Whose settings these are, for messages.
        others: Patterns of variables with the same prefix that are no settings of this kind.
        other_secrets: Names of tables whose credentials are no settings of this kind.

    Raises:
        ConfigurationError: A setting is missing, unknown or out of its limits. Values are never
            quoted.
    """
    _refuse_unknown_variables(kind, owner, others)
    named = {name: value for name, value in given.items() if value is not None}
    folder = credentials_folder()
    if folder is not None:
        _refuse_unknown_secrets(kind, folder, owner, other_secrets)
    named["_secrets_dir"] = folder
    token = _TABLE.set(table)
    try:
        return kind(**named)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)
        found = "; ".join(_said(detail, kind, given) for detail in details)
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


def credentials_folder() -> str | None:
    """Return the folder in which systemd put this process's credentials, if there is one."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder if folder is not None and Path(folder).is_dir() else None


def _said(detail: ErrorDetails, kind: type[TableSettings], given: Mapping[str, object]) -> str:
    """Return what is wrong with one setting, and what to do about it."""
    where = [str(part) for part in detail["loc"]]
    name = ".".join(where) or "together"
    if detail["type"] == "extra_forbidden":
        return f"{name}: there is no such setting{_hint(where[-1], _beside(kind, where))}"
    if detail["type"] == "missing":
        ways = [f"{kind.model_config['env_prefix']}{_NESTED.join(where).upper()}", "in the file"]
        if name in given:
            ways.insert(0, f"--{name.replace('_', '-')}")
        return f"{name}: missing; give it as {', '.join(ways[:-1])} or {ways[-1]}"
    return f"{name}: {detail['msg'].removeprefix('Value error, ')}"


def _beside(kind: type[BaseModel], where: list[str]) -> Iterable[str]:
    """Return the names that there are in the table in which `where` ends."""
    for part in where[:-1]:
        field = kind.model_fields.get(part)
        annotation = None if field is None else field.annotation
        tables = [
            found
            for found in (annotation, *get_args(annotation))
            if isinstance(found, type) and issubclass(found, BaseModel)
        ]
        if not tables:
            return ()
        kind = tables[0]
    return kind.model_fields


def _hint(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _refuse_unknown_variables(kind: type[TableSettings], owner: str, others: Iterable[str]) -> None:
    prefix = kind.model_config["env_prefix"]
    known = [f"{prefix}{name.upper()}" for name in kind.model_fields]
    has = f"{owner} has" if owner else "there is"
    for variable in os.environ:
        name = variable.upper()
        ours = name.startswith(prefix) and not any(fnmatchcase(name, other) for other in others)
        if ours and name.partition(_NESTED)[0] not in known:
            hint = _hint(name, known)
            msg = f"the environment has {variable}, and {has} no such setting{hint}"
            raise ConfigurationError(msg)


def _refuse_unknown_secrets(
    kind: type[TableSettings], folder: str, owner: str, others: Iterable[str]
) -> None:
    """Refuse a secret that nothing reads: without it a default would be in force, unnoticed."""
    prefix = kind.model_config["env_prefix"].lower()
    known = [f"{prefix}{name}" for name in kind.model_fields]
    has = f"{owner} has" if owner else "there is"
    for file in sorted(path.name for path in Path(folder).iterdir()):
        name = file.lower()
        rest = name.removeprefix(prefix)
        if rest in {name, ""} or rest.startswith((".", *(f"{other}_" for other in others))):
            continue
        if name not in known:
            msg = f"the credentials have {file}, and {has} no such setting{_hint(name, known)}"
            raise ConfigurationError(msg)
