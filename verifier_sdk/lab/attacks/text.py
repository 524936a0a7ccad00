"""What attacks share: ordinary ids, sentences of ids, the separators that a text uses."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from coin_protocol.tokenizer import Tokenizer
from verifier_sdk.lab.attack import Ids, Material, NotApplicableError

T = TypeVar("T")

LONGEST_SENTENCE: Final = 128
"""Tokens after which a sentence is cut: code and tables have none that end."""

_NAME = re.compile(rb"<[^<>\s]*[A-Za-z][^<>\s]*>|\[[^\[\]\s]*[A-Za-z][^\[\]\s]*\]")
_SEPARATOR = re.compile(r"(?<=[.!?:;)])\s+|\n\s*")
_ENDS, _ENDS_ALONE, _BREAKS, _GOES_ON = 1, 2, 4, 8


def per_tokenizer(make: Callable[[Tokenizer], T]) -> Callable[[Tokenizer], T]:
    """Keep what a function makes of a tokenizer: one result for each tokenizer file."""
    made: dict[bytes, T] = {}

    @wraps(make)
    def get(tokenizer: Tokenizer) -> T:
        if tokenizer.sha256 not in made:
            made[tokenizer.sha256] = make(tokenizer)
        return made[tokenizer.sha256]

    return get


@per_tokenizer
def ordinary_ids(tokenizer: Tokenizer) -> Ids:
    """Return the ids that stand for text, uint32 (n,): no control ids such as `[INST]`.

    An id whose bytes look like a control id's name is left out with them.
    """
    pieces = map(tokenizer.token_bytes, range(tokenizer.vocabulary_size))
    return np.array(
        [at for at, raw in enumerate(pieces) if raw and not _NAME.fullmatch(raw)], np.uint32
    )


def encode(tokenizer: Tokenizer, text: str) -> Ids:
    """Return the canonical ids of a text, uint32 (n,)."""
    return np.array(tokenizer.encode(text), np.uint32)


def separators(material: Material) -> list[str]:
    """Return the white space that follows sentences in the trace, as often as it does.

    A trace of a single sentence gives one space.
    """
    return _SEPARATOR.findall(material.trace.reasoning.strip()) or [" "]


def cut_sentences(tokenizer: Tokenizer, ids: Ids) -> list[Ids]:
    """Cut ids behind sentences and lines, none longer than 128; together they are all ids.

    Ids are told by their own bytes and those of the next one, so that `3.14` stays whole.
    """
    if not len(ids):
        return []
    kinds = _kinds(tokenizer)
    here, after = kinds[ids[:-1]], kinds[ids[1:]]
    ends = (here & _ENDS_ALONE > 0) | ((here & _ENDS > 0) & (after & _BREAKS > 0))
    ends &= after & _GOES_ON == 0
    found = []
    for sentence in np.split(ids, np.flatnonzero(ends) + 1):
        found += [
            sentence[start : start + LONGEST_SENTENCE]
            for start in range(0, len(sentence), LONGEST_SENTENCE)
        ]
    return found


def fitting(tokenizer: Tokenizer, before: Ids, ids: Ids) -> Ids:
    """Return ids with the space before them that fits: none after a line's end, else one.

    Args:
        tokenizer: The profile's.
        before: What each id follows, uint32 (n,).
        ids: Ids that begin a sentence, uint32 (n,); one without a twin stays as it is.
    """
    with_space, without, ends_line = _spaced(tokenizer)
    return np.where(ends_line[before], without[ids], with_space[ids]).astype(np.uint32)


def needed(text: str, name: str) -> str:
    """Return a text that an attack cannot do without.

    Raises:
        NotApplicableError: It is blank.
    """
    if not text.strip():
        msg = f"this trace has no {name}: take another one"
        raise NotApplicableError(msg)
    return text


@per_tokenizer
def _kinds(tokenizer: Tokenizer) -> npt.NDArray[np.uint8]:
    """Return what each id does at the end of a sentence, as flags, uint8 (vocabulary,)."""
    kinds = np.zeros(tokenizer.vocabulary_size, np.uint8)
    for at in range(tokenizer.vocabulary_size):
        text = tokenizer.token_bytes(at).decode(errors="ignore")
        last = text.rstrip(" \"'*`)")[-1:]
        if "\n" in text or last in tuple("\u3002\uff01\uff1f"):
            kinds[at] |= _ENDS_ALONE
        if last in tuple(".!?"):
            kinds[at] |= _ENDS
        if text[:1].isspace():
            kinds[at] |= _BREAKS
        if text[:1] == "\n":
            kinds[at] |= _GOES_ON
    return kinds


@per_tokenizer
def _spaced(
    tokenizer: Tokenizer,
) -> tuple[Ids, Ids, npt.NDArray[np.bool_]]:
    """Return each id's twin with a space before it, that without, and whether it ends a line."""
    pieces = [tokenizer.token_bytes(at) for at in range(tokenizer.vocabulary_size)]
    known = {piece: token for token, piece in reversed(list(enumerate(pieces)))}
    with_space = np.arange(len(pieces), dtype=np.uint32)
    without = with_space.copy()
    for token, piece in enumerate(pieces):
        if piece[:1] == b" " and piece[1:2].strip():
            bare = known.get(piece[1:])
            if bare is not None:
                without[token] = bare
                with_space[bare] = token
    return with_space, without, np.array([piece.endswith(b"\n") for piece in pieces])
