"""Show the settings in force, and where to read about each one, without a secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

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


def shown_settings(settings: BaseModel) -> dict[str, Shown]:
    """Return any settings, by name, as JSON can say them, secrets masked."""
    return {name: _shown(value) for name, value in settings}


def describe_settings(kind: type[BaseSettings]) -> list[SettingHelp]:
    """Return every setting, in the order of the class."""
    return [
        SettingHelp(
            name=name,
            variable=f"{kind.model_config['env_prefix']}{name.upper()}",
            default=_default(field),
            text=f"{field.description or ''}{_limits(field)}",
        )
        for name, field in kind.model_fields.items()
    ]


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
