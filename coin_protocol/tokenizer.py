"""LLM tokenizers behind one small interface, known by the digest of their file.

Reads Hugging Face `tokenizer.json` files (package `tokenizers`) and Mistral's tekken files
(package `mistral-common`). Both packages come with the extra `embedding`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from coin_protocol.errors import (
    ConfigurationError,
    InvalidInputError,
    LimitError,
    MissingDependencyError,
    ModelMismatchError,
)
from coin_protocol.files import read_file
from coin_protocol.limits import MAX_VOCABULARY
from coin_protocol.v1 import profile_pb2


class Tokenizer(Protocol):
    """What the protocol needs of an LLM's tokenizer. It never changes, and can be a key."""

    def __hash__(self) -> int:
        """Return the same number for the same tokenizer."""

    @property
    def sha256(self) -> bytes:
        """Digest of the tokenizer file, 32 bytes."""

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, special ones included."""

    def encode(self, text: str) -> list[int]:
        """Return the canonical ids of `text`, without special tokens."""

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one id stands for; special tokens give their name.

        Raises:
            InvalidInputError: The id is outside the vocabulary.
        """


def token_text(raw: bytes) -> str:
    """Return the text that a token of these bytes is embedded as.

    Bytes that are not valid UTF-8 on their own are written out as `<0xE4><0xBD>`.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in raw)


def text_of(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """Return the text of a run of ids; bytes of a character cut at an end become U+FFFD."""
    return b"".join(map(tokenizer.token_bytes, token_ids)).decode(errors="replace")


def noncanonical_tokens(tokenizer: Tokenizer, token_ids: Sequence[int]) -> int:
    """Count the ids that are not the tokenizer's own encoding of the text they spell.

    An id counts as canonical when encoding the text gives a token over the very same bytes
    (so splits near the run's two ends, where context is missing, cost a few at most). Bytes
    that are no UTF-8 belong to no text, and their ids are not canonical.
    """
    pieces = [tokenizer.token_bytes(token_id) for token_id in token_ids]
    raw = b"".join(pieces)
    with suppress(UnicodeDecodeError):
        # Most are, and this is much faster.
        if tokenizer.encode(raw.decode()) == list(token_ids):
            return 0
    canonical: set[tuple[int, int]] = set()
    for start, text in _texts(raw):
        own = [tokenizer.token_bytes(token_id) for token_id in tokenizer.encode(text)]
        # Some tokenizers put a space before the first word.
        extra = len(b"".join(own)) - len(text.encode())
        canonical.update(_spans(own, start - extra))
    return sum(span not in canonical for span in _spans(pieces, 0))


def _texts(raw: bytes) -> Iterator[tuple[int, str]]:
    """Yield the longest runs of UTF-8 in `raw`, with where they begin."""
    start = 0
    while start < len(raw):
        try:
            text, skip = raw[start:].decode(), len(raw)
        except UnicodeDecodeError as error:
            text, skip = raw[start : start + error.start].decode(), error.end
        if text:
            yield start, text
        start += skip


def _spans(pieces: Sequence[bytes], start: int) -> Iterator[tuple[int, int]]:
    for piece in pieces:
        yield start, start + len(piece)
        start += len(piece)


class TekkenTokenizer:
    """A tekken file, as `mistral-common` reads it."""

    def __init__(self, path: Path) -> None:
        """Read `path`.

        Raises:
            MissingDependencyError: `mistral-common` is not installed.
            InvalidInputError: The file is not a tekken file.
        """
        try:
            from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
            from mistral_common.tokens.tokenizers.tekken import Tekkenizer
        except ImportError as error:
            msg = "tekken tokenizers need mistral-common: install coin-audit[embedding]"
            raise MissingDependencyError(msg) from error
        self._sha256 = _file_sha256(path)
        with _reading(path, "tekken file"):
            self._tekken = Tekkenizer.from_file(path)
            self._bytes: list[bytes] = [
                self._tekken.id_to_byte_piece(token_id, SpecialTokenPolicy.KEEP)
                for token_id in range(self._tekken.n_words)
            ]

    @property
    def sha256(self) -> bytes:
        """Digest of the tokenizer file, 32 bytes."""
        return self._sha256

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, special ones included."""
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Return the canonical ids of `text`, without special tokens."""
        with _encoding():
            ids: list[int] = self._tekken.encode(text, bos=False, eos=False)
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one id stands for."""
        return self._bytes[_in_vocabulary(token_id, len(self._bytes))]


class HuggingFaceTokenizer:
    """A `tokenizer.json`, as the package `tokenizers` reads it."""

    def __init__(self, path: Path) -> None:
        """Read `path`.

        Raises:
            MissingDependencyError: `tokenizers` is not installed.
            InvalidInputError: The file is not a tokenizer.json.
        """
        try:
            import tokenizers
        except ImportError as error:
            msg = "tokenizer.json files need tokenizers: install coin-audit[embedding]"
            raise MissingDependencyError(msg) from error
        self._sha256 = _file_sha256(path)
        with _reading(path, "tokenizer.json"):
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            document = json.loads(path.read_bytes())
            special = {entry["content"] for entry in document.get("added_tokens", ())}
            spell = _speller(document.get("decoder"))
            vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
            last = max(vocabulary.values())
            if last >= MAX_VOCABULARY:
                msg = f"an id of {last}; at most {MAX_VOCABULARY} ids are read"
                raise LimitError(msg)
            self._bytes = [b""] * (last + 1)
            for piece, token_id in vocabulary.items():
                self._bytes[token_id] = piece.encode() if piece in special else spell(piece)

    @property
    def sha256(self) -> bytes:
        """Digest of the tokenizer file, 32 bytes."""
        return self._sha256

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, special ones included."""
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Return the canonical ids of `text`, without special tokens."""
        ids = self._encode(text)
        if text.startswith(" ") and self._spell(ids) != text.encode():
            # Some tokenizers put a space first, and the text's own would stand twice.
            shorter = self._encode(text[1:])
            if self._spell(shorter) == text.encode():
                return shorter
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one id stands for."""
        return self._bytes[_in_vocabulary(token_id, len(self._bytes))]

    def _encode(self, text: str) -> list[int]:
        with _encoding():
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _spell(self, token_ids: Sequence[int]) -> bytes:
        return b"".join(self._bytes[token_id] for token_id in token_ids)


def load_tokenizer(path: Path, spec: profile_pb2.TokenizerSpec) -> Tokenizer:
    """Load the tokenizer file at `path`, which must be the one that a profile names.

    Raises:
        ModelMismatchError: Digest or vocabulary size are not those of the profile.
        ConfigurationError: There is no such file.
    """
    if not path.is_file():
        msg = f"there is no tokenizer file {path}; wanted {spec.name}"
        raise ConfigurationError(msg)
    found = _file_sha256(path)
    if found != spec.sha256:
        msg = (
            f"{path.name} is not the profile's tokenizer {spec.name}: "
            f"found SHA-256 {found.hex()}, wanted {spec.sha256.hex()}"
        )
        raise ModelMismatchError(msg)
    tokenizer = read_tokenizer(path)
    if tokenizer.vocabulary_size != spec.vocabulary_size:
        msg = (
            f"{path.name} has {tokenizer.vocabulary_size} ids, "
            f"the profile's {spec.name} has {spec.vocabulary_size}"
        )
        raise ModelMismatchError(msg)
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tekken or `tokenizer.json` file, telling them apart by their content.

    Raises:
        InvalidInputError: It is neither, or cannot be read.
    """
    try:
        document = json.loads(read_file(path))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path.name} is not JSON; wanted tokenizer.json or a tekken file"
        raise InvalidInputError(msg) from error
    if isinstance(document, dict) and "model" in document:
        return HuggingFaceTokenizer(path)
    if isinstance(document, dict) and "vocab" in document and "config" in document:
        return TekkenTokenizer(path)
    msg = f"{path.name} is neither a tokenizer.json nor a tekken file"
    raise InvalidInputError(msg)


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a package raises over a file's content into `InvalidInputError`."""
    try:
        yield
    except Exception as error:
        # The packages raise bare Exception and more for what they cannot read.
        msg = f"{path.name} is not a {kind} that can be read: {error}"
        raise InvalidInputError(msg) from error


@contextmanager
def _encoding() -> Iterator[None]:
    """Turn whatever a package raises over a text into `InvalidInputError`."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the packages raise bare Exception and more
        # What it says may quote the text, which may be hidden reasoning.
        msg = (
            f"the tokenizer cannot encode the text ({type(error).__name__}): its file leaves out "
            "what it needs, such as a token for what it does not know"
        )
        raise InvalidInputError(msg) from None


def _file_sha256(path: Path) -> bytes:
    return sha256(path.read_bytes()).digest()


def _in_vocabulary(token_id: int, size: int) -> int:
    if not 0 <= token_id < size:
        msg = f"token id {token_id} is outside the vocabulary of {size} ids"
        raise InvalidInputError(msg)
    return token_id


def _speller(decoder: dict[str, Any] | None) -> Callable[[str], bytes]:
    """Return the function from a piece of the vocabulary to its bytes."""
    kinds = {decoder["type"]} if decoder else set()
    if decoder and decoder["type"] == "Sequence":
        kinds = {part["type"] for part in decoder["decoders"]}
    if "ByteLevel" in kinds:
        table = _byte_level_alphabet()
        return lambda piece: bytes(table[char] for char in piece)
    if "ByteFallback" in kinds:
        return _spell_with_byte_fallback
    if "WordPiece" in kinds:
        # A piece that starts a word stands for itself; the space before it is the text's.
        return lambda piece: piece.removeprefix("##").encode()
    return lambda piece: piece.replace("\u2581", " ").encode()


def _spell_with_byte_fallback(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes.fromhex(piece[3:5])
    return piece.replace("\u2581", " ").encode()


def _byte_level_alphabet() -> dict[str, int]:
    """Return the printable character that byte-level BPE writes each byte as (GPT-2)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    table = {chr(byte): byte for byte in visible}
    table |= {chr(256 + number): byte for number, byte in enumerate(hidden)}
    return table
