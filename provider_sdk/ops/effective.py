"""Show the settings in force, and where to read about each one, without a secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from provider_sdk.ops.database import shown_database_url
from provider_sdk.ops.settings import PREFIX, ProviderSettings

MASK: Final = "[redacted]"

Shown = str | int | float | bool | dict[str, "Shown"] | list["Shown"] | None


@dataclass(frozen=True, slots=True)
class SettingHelp:
    """One setting, for documentation.

    Attributes:
        name: In the file.
        variable: In the environment.
        default: As it would be written, or `required`.
        text: What it does, with its unit and limits.
    """

    name: str
    variable: str
    default: str
    text: str


def effective_settings(settings: ProviderSettings) -> dict[str, Shown]:
    """Return what is in force, by name, as JSON can say it, secrets masked."""
    found = shown_settings(settings)
    found["database"] = shown_database_url(settings.database.get_secret_value())
    # Of a URI the scheme is no secret, and tells which kind of key is in use.
    found["signer"] = _scheme(settings.signer_uri)
    found["sealing_key"] = _scheme(settings.sealing_uri)
    return found


def shown_settings(settings: BaseModel) -> dict[str, Shown]:
    """Return any settings, by name, as JSON can say them, secrets masked."""
    return {name: _shown(value) for name, value in settings}


def describe_settings(kind: type[ProviderSettings] = ProviderSettings) -> list[SettingHelp]:
    """Return every setting, in the order of the class."""
    return [
        SettingHelp(
            name=name,
            variable=f"{PREFIX}{name.upper()}",
            default=_default(field),
            text=f"{field.description or ''}{_limits(field)}",
        )
        for name, field in kind.model_fields.items()
    ]


def _scheme(uri: str) -> str:
    scheme, separator, _ = uri.partition(":")
    return f"{scheme}:{MASK}" if separator else MASK


def _shown(value: object) -> Shown:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, BaseModel):
        return {name: _shown(inner) for name, inner in value}
    if isinstance(value, dict):
        return {str(name): _shown(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(inner) for inner in value]
    return str(value)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None or field.default is None:
        return ""
    return str(field.default)


def _limits(field: FieldInfo) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "max_length": "at most"}
    found = [
        f"{word} {getattr(bound, name):,}"
        for bound in field.metadata
        for name, word in words.items()
        if hasattr(bound, name)
    ]
    return f" ({', '.join(found)})" if found else ""
