"""How models mark their reasoning: the marks as data, and as the ids of a tokenizer.

markers = markers_from("think-in-prompt")
marks = MarkerIds.resolve(markers, tokenizer)        # once a process and model

A mark that the tokenizer knows as one id counts only as that id: text that spells it out is text.
A mark that is several ordinary ids is found by their bytes, however they are cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Final

from coin_protocol.errors import ConfigurationError
from coin_protocol.tokenizer import Tokenizer

MAX_MARKS: Final = 64
"""Opening or closing marks of one model: an order of magnitude above any in use."""

MAX_MARK_CHARS: Final = 256
"""One mark: what may be one is held back, so this bounds the delay."""

PROMPT_TAIL: Final = 64
"""Last ids of a prompt that are looked at: a template's own end is shorter."""

SPECIAL: Final = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
"""What tokenizers write special tokens like: <|end|>, <think>, [THINK]."""
# Pieces are strings of one character a byte (latin-1), so that marks of one id, which become one
# character from here on, can never be confused with bytes.
_SYMBOLS: Final = 0x100


@dataclass(frozen=True, slots=True, kw_only=True)
class Markers:
    """The marks around a model's reasoning.

    Attributes:
        name: As the configuration names them.
        open: Any of these begins reasoning.
        close: Any of these ends it.
        prompt_opens: The chat template ends with an opening mark, so that the reply begins in
            reasoning. Where the upstream tells the prompt's ids, those decide instead.
        repeats: The model reasons in several sections. Where not, a second one is malformed.
        lone_close: A closing mark means other things too, and may stand outside of reasoning.
    """

    name: str
    open: tuple[str, ...] = ()
    close: tuple[str, ...] = ()
    prompt_opens: bool = False
    repeats: bool = False
    lone_close: bool = False

    def __post_init__(self) -> None:
        """Check the marks.

        Raises:
            ConfigurationError: One is empty or too long, there are too many, or closing marks
                stand without opening ones or the other way round.
        """
        for mark in (*self.open, *self.close):
            if not 0 < len(mark) <= MAX_MARK_CHARS:
                msg = f"markers {self.name}: a mark has {len(mark)} characters; wanted 1 to 256"
                raise ConfigurationError(msg)
        if max(len(self.open), len(self.close)) > MAX_MARKS:
            msg = f"markers {self.name}: more than {MAX_MARKS} opening or closing marks"
            raise ConfigurationError(msg)
        if bool(self.open) != bool(self.close) or (self.prompt_opens and not self.close):
            msg = f"markers {self.name}: give both opening and closing marks, or neither"
            raise ConfigurationError(msg)


THINK: Final = Markers(name="think", open=("<think>",), close=("</think>",))
THINK_IN_PROMPT: Final = Markers(
    name="think-in-prompt", open=("<think>",), close=("</think>",), prompt_opens=True
)
THINK_INTERLEAVED: Final = Markers(
    name="think-interleaved", open=("<think>",), close=("</think>",), repeats=True
)
HARMONY: Final = Markers(
    name="gpt-oss",
    # With a recipient between channel and message it is a call of a tool, and no reasoning.
    open=("<|channel|>analysis<|message|>",),
    close=("<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>final<|message|>"),
    repeats=True,
    lone_close=True,
)
MISTRAL: Final = Markers(name="mistral", open=("[THINK]",), close=("[/THINK]",))
NONE: Final = Markers(name="none")

BUILTIN: Final[Mapping[str, Markers]] = MappingProxyType(
    {
        markers.name: markers
        for markers in (THINK, THINK_IN_PROMPT, THINK_INTERLEAVED, HARMONY, MISTRAL, NONE)
    }
)
"""`none` splits by the fields of an upstream that has a reasoning parser of its own."""


def markers_from(config: str | Mapping[str, object]) -> Markers:
    """Return the markers that a configuration names or spells out.

    Args:
        config: A name of `BUILTIN`, or a table with the fields of `Markers`; a `base` in it
            names the ones to start from.

    Raises:
        ConfigurationError: The name is unknown, or a field is not what it must be.
    """
    if isinstance(config, str):
        if config not in BUILTIN:
            msg = f"there are no markers {config!r}; wanted one of {', '.join(BUILTIN)}"
            raise ConfigurationError(msg)
        return BUILTIN[config]
    table = dict(config)
    base = table.pop("base", None)
    start = markers_from(base) if isinstance(base, str) else Markers(name="custom")
    given: dict[str, object] = {each.name: getattr(start, each.name) for each in fields(Markers)}
    for key, value in table.items():
        if key not in given:
            msg = f"markers have no field {key!r}; wanted one of {', '.join(given)}"
            raise ConfigurationError(msg)
        given[key] = value
    return Markers(
        name=_text(given["name"]),
        open=_marks(given["open"], "open"),
        close=_marks(given["close"], "close"),
        prompt_opens=_flag(given["prompt_opens"], "prompt_opens"),
        repeats=_flag(given["repeats"], "repeats"),
        lone_close=_flag(given["lone_close"], "lone_close"),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        msg = f"a name or mark is {type(value).__name__}; wanted a string"
        raise ConfigurationError(msg)
    return value


def _marks(value: object, what: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence):
        msg = f"{what} is {type(value).__name__}; wanted a string or a list of strings"
        raise ConfigurationError(msg)
    return tuple(_text(mark) for mark in value)


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        msg = f"{what} is {type(value).__name__}; wanted true or false"
        raise ConfigurationError(msg)
    return value


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MarkerIds:
    """Markers as one tokenizer writes them. Shared by all replies of a model.

    Attributes:
        markers: What they are.
        tokenizer: Whose ids they are.
        open: Opening marks as pieces (see `piece`).
        close: Closing marks as pieces.
        triggers: Ids that a mark can begin in; all others are never looked at twice.
    """

    markers: Markers
    tokenizer: Tokenizer
    open: tuple[str, ...]
    close: tuple[str, ...]
    triggers: frozenset[int]
    _symbols: Mapping[int, str]
    _names: Mapping[str, str]
    _optional: dict[int, bool] = field(default_factory=dict)

    @classmethod
    def resolve(cls, markers: Markers, tokenizer: Tokenizer) -> MarkerIds:
        """Look the marks up in a tokenizer's vocabulary: some 100 ms for 200,000 ids."""
        parts = {part for mark in (*markers.open, *markers.close) for part in SPECIAL.findall(mark)}
        whole = {*markers.open, *markers.close}
        wanted = {text.encode(): text for text in sorted(parts | whole)}
        vocabulary = [tokenizer.token_bytes(index) for index in range(tokenizer.vocabulary_size)]
        names: dict[str, str] = {}
        symbols: dict[int, str] = {}
        for index, raw in enumerate(vocabulary):
            if raw in wanted:
                name = wanted[raw]
                symbols[index] = names.setdefault(name, chr(_SYMBOLS + len(names)))
        opening = tuple(_pattern(mark, names) for mark in markers.open)
        closing = tuple(_pattern(mark, names) for mark in markers.close)
        return cls(
            markers=markers,
            tokenizer=tokenizer,
            open=opening,
            close=closing,
            triggers=_triggers((*opening, *closing), symbols, vocabulary),
            _symbols=MappingProxyType(symbols),
            _names=MappingProxyType({symbol: name for name, symbol in names.items()}),
        )

    def piece(self, token_id: int) -> str:
        """Return one id as characters of one byte each, or as the one character of its mark.

        Raises:
            InvalidInputError: The id is outside the vocabulary.
        """
        symbol = self._symbols.get(token_id)
        return symbol or self.tokenizer.token_bytes(token_id).decode("latin-1")

    def spelled(self, pieces: str) -> bytes:
        """Return the bytes that pieces stand for; a mark of one id gives its name."""
        return b"".join(
            self._names[char].encode() if char in self._names else char.encode("latin-1")
            for char in pieces
        )

    def silent(self, token_id: int) -> bool:
        """Whether an upstream may leave this id out of the text, as it does with special ones."""
        known = self._optional.get(token_id)
        if known is None:
            text = self.tokenizer.token_bytes(token_id).decode(errors="replace")
            known = self._optional[token_id] = SPECIAL.fullmatch(text) is not None
        return known

    def opened_by(self, prompt_ids: Sequence[int]) -> bool:
        """Whether a prompt ends with an opening mark, and at most white space after it.

        Raises:
            InvalidInputError: An id is outside the vocabulary.
        """
        tail = "".join(self.piece(token_id) for token_id in prompt_ids[-PROMPT_TAIL:])
        return _ends_with(tail, self.open)

    def opens(self, prompt: str) -> bool:
        """Whether a prompt's text ends so."""
        return _ends_with(prompt, self.markers.open)


def _ends_with(text: str, marks: Sequence[str]) -> bool:
    tail = text[-PROMPT_TAIL * MAX_MARK_CHARS :].rstrip(" \t\r\n")
    return bool(tail) and tail.endswith(tuple(mark.rstrip(" \t\r\n") for mark in marks))


def _pattern(mark: str, names: Mapping[str, str]) -> str:
    if mark in names:
        return names[mark]
    pattern, at = "", 0
    for match in SPECIAL.finditer(mark):
        pattern += mark[at : match.start()].encode().decode("latin-1")
        part = match.group()
        pattern += names.get(part) or part.encode().decode("latin-1")
        at = match.end()
    return pattern + mark[at:].encode().decode("latin-1")


def _triggers(
    patterns: Sequence[str], symbols: Mapping[int, str], vocabulary: Sequence[bytes]
) -> frozenset[int]:
    starts = {pattern[0] for pattern in patterns}
    found = {index for index, symbol in symbols.items() if symbol in starts}
    for pattern in patterns:
        plain = re.match(r"[\x00-\xff]*", pattern)
        text = (plain.group() if plain else "").encode("latin-1")
        if not text:
            continue
        heads = tuple(text[:length] for length in range(1, len(text) + 1))
        first = text[:1]
        for index, raw in enumerate(vocabulary):
            if first in raw and index not in symbols and (raw.endswith(heads) or text in raw):
                found.add(index)
    return frozenset(found)


__all__ = [
    "BUILTIN",
    "HARMONY",
    "MISTRAL",
    "NONE",
    "SPECIAL",
    "THINK",
    "THINK_INTERLEAVED",
    "THINK_IN_PROMPT",
    "MarkerIds",
    "Markers",
    "markers_from",
]
