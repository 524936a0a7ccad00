"""What may be logged: a copy of a value in which no secret is left, and no value without end.

Three rules, in this order. What stands under the name of a secret is masked, whatever it is.
What is of a type that is not known to be harmless is shown by its type, bytes by their length.
In text, what looks like a secret is cut out: user and password of a URL, query strings, bearer
tokens, `password=…`, PEM, the parameters of an SQL statement, and the secrets that the process
itself was configured with.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import date, timedelta
from math import isfinite
from pathlib import PurePath
from typing import Final, TypeVar
from urllib.parse import quote, quote_plus
from uuid import UUID

K = TypeVar("K")

MASK: Final = "[redacted]"

_SECRETS: Final = """
answer answers argument arguments authorization bearer body completion content contents cookie
cookies credential credentials delta dsn hmac ids input instructions key message messages nonce
nonces output params parameters passphrase passwd password passwords payload pin prompt prompts pwd
query reasoning salt salts secret secrets seed summary text thinking token tokens traces
"""
_COUNTS: Final = """
age bits blocks bytes chars count counting depth length limit seconds size tokens total
"""

SECRET_WORDS: Final = frozenset(_SECRETS.split())
"""A name is secret where one of its words is one of these: `X-Api-Key`, `promptText`, `ids`."""

_MEASURES: Final = frozenset(_COUNTS.split())
"""Where these end a name, a number under it is no secret: `reasoning_tokens`, `content_length`."""

_KEY_IS_PUBLIC: Final = frozenset({"id", "set", "sets", "name", "names", "algorithm", "count"})
"""What turns `key` into something public: `key_id`, `key_set`."""

MAX_DEPTH: Final = 8
MAX_ITEMS: Final = 64
MAX_TEXT: Final = 4096
_MAX_INTEGER_BITS: Final = 64
_SCRUBBED_CHARACTERS: Final = 4 * MAX_TEXT

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# Line breaks and tabs stay: what writes lines escapes them. Turned text reads as what it is not.
_CONTROL: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)

_NAMED: Final = (
    r"(?i)((?:api[-_]?key|passw(?:or)?d|passphrase|pwd|pin|pin[-_]value|secret|nonce|token)"
)

_PATTERNS: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # PEM, whole or cut off.
        (r"-----BEGIN [\s\S]*?(?:-----END [^\n]*?-----|\Z)", "[PEM redacted]"),
        # What SQLAlchemy and PostgreSQL say about the row.
        (r"\[parameters: [\s\S]*?(?=\(Background on|\Z)", "[parameters redacted] "),
        (r"DETAIL: [^\n]*", "DETAIL: " + MASK),
        # What pydantic says about the value.
        (r"input_value=[\s\S]*?(?=, input_type=|\Z)", "input_value=" + MASK),
        # Headers run to the end of their line.
        (r"(?i)((?:authorization|cookie)[\"']?\s*[:=]\s*)[^\r\n]+", r"\1" + MASK),
        (r"(?i)\b(bearer|basic)\s+\S+", r"\1 " + MASK),
        # User and password of a URL, with whatever stands in them; at most to the line's end.
        (r"(://)(?:\S{0,512}|[^\s/@:]{0,256}:[^@\r\n]{0,512})@", r"\1" + MASK + "@"),
        (_NAMED + r"[\"']?\s*[=:]\s*)(?:\"[^\"]*\"|'[^']*'|[^\s,;&)]+)", r"\1" + MASK),
        (r"(?<=[^\s?])\?[^\s\"'<>]+", "?" + MASK),
        (r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{8,}|\beyJ[A-Za-z0-9_-]{8,}[A-Za-z0-9_.-]*", MASK),
    )
)

Plain = str | int | float | bool | list["Plain"] | dict[str, "Plain"] | None
"""What comes out: values that JSON can say."""


def is_secret_name(name: str) -> bool:
    """Tell whether what stands under this name is masked."""
    words = [word.lower() for word in _WORD.findall(name)]
    for here, word in enumerate(words):
        if word not in SECRET_WORDS:
            continue
        public = here + 1 < len(words) and words[here + 1] in _KEY_IS_PUBLIC
        if word != "key" or not public:
            return True
    joined = "".join(words)
    return joined.endswith(("apikey", "password", "passwd", "secret", "token", "tokenids"))


def is_measure(name: str) -> bool:
    """Tell whether a number under this name counts or measures something."""
    words = _WORD.findall(name)
    return bool(words) and words[-1].lower() in _MEASURES


class Redactor:
    """Makes harmless copies of values, knowing some secrets by heart."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Hold secrets that are cut out wherever they stand.

        Args:
            secrets: Those that the process was configured with: passwords, tokens. Those of
                less than four characters are left to the other rules, or logs would be holes.
        """
        forms = {
            form
            for secret in secrets
            if len(secret) >= 4
            for form in (secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1])
        }
        self._known = sorted(forms, key=len, reverse=True)

    def text(self, text: str, limit: int = MAX_TEXT) -> str:
        """Return text of at most some `limit` characters without what looks like a secret."""
        whole = len(text)
        for secret in self._known:
            text = text.replace(secret, MASK)
        cut = ""
        if whole > _SCRUBBED_CHARACTERS:
            # A secret that is cut in two is no longer recognised, so no word is.
            cut = f" [{whole} characters]"
            head, _, _ = text[:_SCRUBBED_CHARACTERS].rpartition(" ")
            text = head
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        if len(text) > limit:
            cut = f" [{whole} characters]"
            text = text[:limit]
        return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text) + cut

    def value(self, value: object, *, depth: int = 0) -> Plain:  # noqa: PLR0911 - one a type
        """Return a harmless copy of anything."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, (int, float)):
            return _number(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f"[{memoryview(value).nbytes} bytes]"
        if isinstance(value, (date, timedelta, UUID, PurePath)):
            return self.text(str(value))
        if isinstance(value, BaseException):
            return f"{type(value).__name__}: {self.text(str(value))}"
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            if depth >= MAX_DEPTH:
                return "[too deep]"
            if isinstance(value, dict):
                return self.mapping(value, depth=depth + 1)
            return self._items(value, depth + 1)
        # Its repr may say anything.
        return f"[{type(value).__name__}]"

    def mapping(self, values: Mapping[K, object], *, depth: int = 0) -> dict[str, Plain]:
        """Return a harmless copy of a mapping; names of secrets mask what stands under them."""
        found: dict[str, Plain] = {}
        for here, (key, value) in enumerate(values.items()):
            if here >= MAX_ITEMS:
                found["…"] = f"[{len(values) - here} more]"
                break
            name = self.text(key) if isinstance(key, str) else str(self.value(key, depth=MAX_DEPTH))
            raw = key if isinstance(key, str) else name
            if not is_secret_name(raw) or _is_harmless(raw, value):
                found[name] = self.value(value, depth=depth)
            else:
                found[name] = MASK
        return found

    def _items(self, values: Collection[object], depth: int) -> list[Plain]:
        found: list[Plain] = []
        for here, value in enumerate(values):
            if here >= MAX_ITEMS:
                found.append(f"[{len(values) - here} more]")
                break
            found.append(self.value(value, depth=depth))
        return found


def _is_harmless(name: str, value: object) -> bool:
    if value is None or isinstance(value, bool):
        return True
    return isinstance(value, (int, float)) and is_measure(name)


def _number(value: float | None) -> Plain:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        bits = value.bit_length()
        return int(value) if bits <= _MAX_INTEGER_BITS else f"[integer of {bits} bits]"
    # JSON has no word for those that are no number.
    return float(value) if isfinite(value) else str(float(value))
