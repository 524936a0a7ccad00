"""A laboratory over small models: traces written for it, a tokenizer of words, hashed vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from hashlib import sha256, shake_256
from typing import Any

import numpy as np
import numpy.typing as npt

from coin_protocol.embedding import TextEmbedder
from coin_protocol.errors import InvalidInputError
from coin_protocol.models import Models
from coin_protocol.profile import Profile
from coin_protocol.table import TokenTable, build_rows
from coin_protocol.testing.profiles import default_profile
from coin_protocol.testing.small import DIMENSION, SmallEmbedder
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import profile_pb2
from provider_sdk.replay import traces as samples
from verifier_sdk.lab import Library, Material, Trace, sentences


def shipped_traces() -> list[samples.Trace]:
    """Return the sample traces but for the longest, which would make every test slower."""
    return [trace for trace in samples.shipped_traces() if trace.id != "math-03"]


BLOCK_SIZE = 64

GERMAN = (
    "Zuerst zähle ich die Züge. Dann prüfe ich, ob einer fehlt! Übrig bleiben drei: 3.14 ist π."
)
JAPANESE = (
    "まず、数を数えます。次に確かめます\uff01それでいいですか\uff1fはい、三つです。🙂 終わり。"
)
CODE = "def f(x):\n    if x < 0:\n        return -x\n    return x\n\n\nassert f(-3) == 3\n"
SENTENCE = "so the sky is blue"

_PIECE = re.compile(rb" ?[A-Za-z]+|[.,!?]\n*|\s+|.", re.DOTALL)
_CONTROL = (b"<s>", b"</s>", b"[INST]", b"<|think|>")


class WordTokenizer:
    """Ids 0 to 3 are control ids, then come all bytes, then words and halves of words.

    A piece of text that is no word of the vocabulary is written in bytes.
    """

    @property
    def sha256(self) -> bytes:
        """Digest of its name: it has no file."""
        return sha256(b"word tokenizer").digest()

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Return ids, whole words first."""
        ids: list[int] = []
        for piece in _PIECE.findall(text.encode()):
            known = self._ids.get(piece)
            ids += [len(_CONTROL) + byte for byte in piece] if known is None else [known]
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one id stands for."""
        if not 0 <= token_id < len(self._pieces):
            msg = f"token id {token_id} is outside the vocabulary of {len(self._pieces)} ids"
            raise InvalidInputError(msg)
        return self._pieces[token_id]

    @cached_property
    def _pieces(self) -> list[bytes]:
        text = " ".join(trace.reasoning for trace in shipped_traces()).encode()
        words = set(_PIECE.findall(text))
        halves = {
            half for word in words for half in (word[: len(word) // 2], word[len(word) // 2 :])
        }
        return [
            *_CONTROL,
            *map(bytes, zip(range(256))),
            *sorted(w for w in words | halves if len(w) > 1),
        ]

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {piece: at for at, piece in enumerate(self._pieces) if at >= len(_CONTROL)}


@cache
def tokenizer() -> Tokenizer:
    """Return the one tokenizer of words."""
    return WordTokenizer()


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the mean of one hashed vector for each word, float32 (n, 16), of norm 1."""
    sums = np.stack([sum(map(_vector, text.split() or [""]), np.zeros(16)) for text in texts])
    unit: npt.NDArray[np.float32] = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit


@cache
def _vector(word: str) -> npt.NDArray[np.float64]:
    raw = shake_256(word.encode()).digest(32)
    return np.frombuffer(raw, ">u2").astype(np.float64) - 32_767.5


class LabModels(Models):
    """The models of the laboratory where a profile's are expected."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of words."""
        return tokenizer()

    @cached_property
    def embedder(self) -> TextEmbedder:
        """The small embedding model."""
        return SmallEmbedder()

    @cached_property
    def table(self) -> TokenTable:
        """The table of both."""
        return table()


@cache
def table() -> TokenTable:
    """Return the token table of the laboratory."""
    return TokenTable(build_rows(tokenizer(), SmallEmbedder()))


def profile(
    edit: Callable[[profile_pb2.Profile], object] = lambda _: None, *, projection: int = 12
) -> Profile:
    """Return the default profile over the models of the laboratory, after `edit`."""
    message = default_profile()
    message.name = "laboratory"
    message.tokenizer.name = "words"
    message.tokenizer.sha256 = tokenizer().sha256
    message.tokenizer.vocabulary_size = tokenizer().vocabulary_size
    message.tokenizer.token_table_root = table().root
    message.embedding.name = "small"
    message.embedding.dimension = DIMENSION
    message.embedding.weights_sha256 = sha256(b"small weights").digest()
    message.embedding.tokenizer_sha256 = sha256(b"small pieces").digest()
    message.embedding.projection.dimension = projection
    edit(message)
    return Profile.from_bytes(message.SerializeToString(deterministic=True))


@cache
def traces() -> list[Trace]:
    """Return the traces that ship, half of them by a second model too."""
    own = [
        Trace(found.id, found.id, found.domain, "a", found.question, found.reasoning, found.answer)
        for found in shipped_traces()
    ]
    again = [
        trace(
            " ".join(reversed(sentences(found.reasoning))),
            id=f"{found.id}-b",
            qid=found.qid,
            domain=found.domain,
            model="b",
        )
        for found in own[::2]
    ]
    return [*own, *again]


def trace(reasoning: str, **changes: Any) -> Trace:
    """Return a trace with this reasoning."""
    values = {
        "id": sha256(reasoning.encode()).hexdigest()[:8],
        "qid": "q",
        "domain": "general",
        "model": "a",
        "question": "Why is the sky blue?",
        "answer": "Air sends the short waves of light around. That is why.",
    }
    return Trace(reasoning=reasoning, **values | changes)


def written(questions: int, *, tokens: int = 1100, domain: str = "math") -> list[Trace]:
    """Return a trace for each of so many questions: sentences of the traces that ship."""
    known = [sentences(one.reasoning) for one in shipped_traces()]
    found = []
    for number in range(questions):
        rng = np.random.default_rng([number, 7])
        own, other = known[number % len(known)], known[(number + 1) % len(known)]
        chosen = [str(part) for part in rng.permutation([*own, *other[: len(other) // 2]])]
        text = ""
        while len(tokenizer().encode(text)) < tokens:
            text += f"{chosen.pop()} " if chosen else f"{SENTENCE}. "
        question = f"What is question {number} about? {own[0]}"
        answer = "" if number % 5 == 4 else f"{own[-1]} {own[1]}"
        found.append(
            trace(
                text.strip(),
                id=f"{domain}-{number}",
                qid=f"{domain}-{number}",
                domain=domain,
                question=question,
                answer=answer,
            )
        )
    return found


def few_kinds(
    _material: Material, candidates: Sequence[npt.NDArray[np.uint32]]
) -> npt.NDArray[np.float64]:
    """Be suspicious of blocks with few different ids: any judge will do."""
    return np.array([-float(len(set(ids.tolist()))) for ids in candidates])


def library(
    found: Sequence[Trace] | None = None,
    embed: Callable[[Sequence[str]], npt.NDArray[np.float32]] = embed,
) -> Library:
    """Return a library of these traces, by default of those that ship."""
    shown = traces() if found is None else found
    return Library(shown, tokenizer(), embed, suspicion=few_kinds)


def material(
    target: Trace | None = None, *, seed: int = 0, among: Library | None = None
) -> Material:
    """Return what an attacker of a trace has, by default of the first that ships."""
    among = among or library()
    target = target or traces()[0]
    return Material(target, among.ids(target), among.tokenizer, among, seed)


def spelled(ids: npt.NDArray[np.uint32]) -> bytes:
    """Return the bytes of ids."""
    return b"".join(map(tokenizer().token_bytes, ids.tolist()))
