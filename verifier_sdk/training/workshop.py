"""Everything that training and evaluation work with: models, traces, embeddings, sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coin_protocol.embedding import project, unit
from coin_protocol.files import cache_folder
from coin_protocol.models import Models
from coin_protocol.quantise import SCALE_BYTES
from coin_protocol.table import TokenTable
from coin_protocol.v1 import profile_pb2
from verifier_sdk.lab import (
    Attacked,
    Library,
    Material,
    NotApplicableError,
    Trace,
    apply_attack,
)
from verifier_sdk.lab.attack import Ids
from verifier_sdk.lab.audit import LabSession, Space
from verifier_sdk.semantic.judge import OpenedEvidence, Visible, VisibleText, window_texts
from verifier_sdk.training.embedder import EmbeddingCache, FastEmbedder
from verifier_sdk.training.honest import condensed

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


_LEAST_CONDENSED = 512

MAX_TOKENS = 8192
"""Reasoning tokens of a trace that are worked with: attacks multiply them by up to four."""


def kept_folder() -> Path:
    """Return where embeddings and readers are kept by default."""
    return cache_folder() / "training"


@dataclass(frozen=True, slots=True)
class Plan:
    """One session to be made: a trace, and what a provider does to it.

    Attributes:
        trace: The real reply.
        attack: Name, or `none`.
        rate: Injected tokens for each original one; 0 for an honest session.
        placement: Of the filler; empty for an honest session.
        block_size: Tokens in a full block.
        draw: Number of the draw: the same session opened another time.
        condensed: Whether about half of the reasoning is left out before anything else.
    """

    trace: Trace
    attack: str = "none"
    rate: float = 0.0
    placement: str = ""
    block_size: int = 256
    draw: int = 0
    condensed: bool = False


Made = tuple[Plan, LabSession]
"""A plan, and the session that was made of it."""


@dataclass
class Workshop:
    """Models and traces at hand.

    Attributes:
        models: Of the profile; the token table is built if it is not there.
        cache: Fast embeddings.
        library: Traces that attackers take from.
        rounds: The policy's plan.
        seed: Of attacks and draws.
    """

    models: Models
    cache: EmbeddingCache
    library: Library
    rounds: profile_pb2.RoundPlan
    seed: int = 0
    _visible: dict[Trace, Visible] = field(default_factory=dict, repr=False)

    @classmethod
    def opened(
        cls, models: Models, traces: Sequence[Trace], rounds: profile_pb2.RoundPlan, folder: Path
    ) -> Workshop:
        """Open a workshop whose embeddings are fast, and kept in a folder.

        Args:
            models: Of a profile.
            traces: That attackers take from.
            rounds: The policy's plan.
            folder: Of all embedding models and precisions.
        """
        embedder = FastEmbedder(models.embedder)
        digest = models.profile.message.embedding.weights_sha256.hex()[:12]
        cache = EmbeddingCache(embedder, folder / f"{digest}-{embedder.precision}")
        return cls(models, cache, Library(traces, models.tokenizer, cache.embed), rounds)

    @cached_property
    def table(self) -> TokenTable:
        """The profile's token table."""
        return self.models.table

    @property
    def spec(self) -> profile_pb2.EmbeddingSpec:
        """The profile's embedding."""
        return self.models.profile.message.embedding

    def space(self, block_size: int) -> Space:
        """Return the profile's space with another block size."""
        profile = profile_pb2.Profile()
        profile.CopyFrom(self.models.profile.message)
        profile.block_size = block_size
        return Space(profile, self.models.tokenizer, self.vectors, self._rows)

    def session(self, plan: Plan, *, whole: int = 0) -> LabSession:
        """Make a session; nothing is opened yet.

        Raises:
            NotApplicableError: The attack has nothing to work with in this trace.
        """
        seed = self.seed_of(plan.trace)
        ids = self.library.ids(plan.trace)
        if plan.condensed:
            text = condensed(plan.trace.reasoning, np.random.default_rng([seed, 8]))
            ids = np.array(self.models.tokenizer.encode(text), np.uint32)
            if len(ids) < _LEAST_CONDENSED:
                msg = "too little is left of the condensed reasoning"
                raise NotApplicableError(msg)
        ids = ids[:MAX_TOKENS]
        if plan.attack == "none":
            reply = Attacked(ids, np.zeros(len(ids), np.bool_))
        else:
            material = Material(plan.trace, ids, self.models.tokenizer, self.library, seed)
            reply = apply_attack(
                plan.attack,
                material,
                rate=plan.rate,
                placement=plan.placement,
                block_size=plan.block_size,
            )
        label = f"{seed}/{plan.attack}/{plan.rate}/{plan.placement}/{plan.block_size}/{plan.draw}"
        label += "/condensed" if plan.condensed else ""
        return LabSession(
            reply,
            self.space(plan.block_size),
            self.rounds,
            sha256(label.encode()).digest(),
            whole=whole,
        )

    def seed_of(self, trace: Trace) -> int:
        """Return the seed of a trace's attacks: its own, whatever else is made."""
        return int.from_bytes(sha256(f"{self.seed}/{trace.id}".encode()).digest()[:6], "big")

    def sessions(
        self, plans: Sequence[Plan], *, rounds: int, what: str, progress: Progress,
        whole: Sequence[int] = (0,),
    ) -> list[Made]:  # fmt: skip
        """Make sessions and open so many rounds of each; attacks that do not apply are left out.

        `whole` says how many blocks are opened whole, one number a plan, again and again.
        """
        made = []
        for number, plan in enumerate(plans, 1):
            progress(what, number, len(plans))
            try:
                session = self.session(plan, whole=whole[number % len(whole)])
            except NotApplicableError:
                continue
            while len(session.drawn) < rounds and session.open_round():
                pass
            if session.drawn:
                made.append((plan, session))
        return made

    def stages(self, plan: Plan, session: LabSession) -> list[OpenedEvidence]:
        """Return what was known after each round that a session opened."""
        visible = self.visible(plan.trace)
        return [session.evidence(visible, rounds=seen + 1) for seen in range(len(session.drawn))]

    def visible(self, trace: Trace) -> Visible:
        """Return what the client saw of a trace."""
        if trace not in self._visible:
            self._visible[trace] = Visible(self._text(trace.question), self._text(trace.answer))
        return self._visible[trace]

    def prepare(self, made: Sequence[Made], what: str, progress: Progress) -> None:
        """Embed all that these sessions opened and that their clients saw, many at once."""
        texts = [text for _, session in made for text in session.texts()]
        for trace in dict.fromkeys(plan.trace for plan, _ in made):
            for visible in (trace.question, trace.answer):
                texts += self._window_texts(visible)
        self.embed(list(dict.fromkeys(texts)), what, progress)

    def embed(self, texts: Sequence[str], what: str, progress: Progress) -> None:
        """Embed texts into the cache."""
        done = 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            progress(what, done, len(texts))

        self.cache.prepare(texts, step)

    def windows_of(self, blocks: Sequence[Ids]) -> list[list[str]]:
        """Return the texts of the windows of blocks."""
        step = self.spec.window_tokens
        return [window_texts(ids.tolist(), step, self.models.tokenizer) for ids in blocks]

    def vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the unit vectors of window texts in the committed space, float64 (n, d)."""
        return project(self.spec, self.cache.embed(texts).astype(np.float64))

    def _text(self, text: str) -> VisibleText | None:
        texts = self._window_texts(text)
        if not texts:
            return None
        ids = np.array(self.models.tokenizer.encode(text), np.uint32)
        return VisibleText(ids, self.vectors(texts))

    def _window_texts(self, text: str) -> list[str]:
        if not text.strip():
            return []
        ids = self.models.tokenizer.encode(text)
        return window_texts(ids, self.spec.window_tokens, self.models.tokenizer)

    def _rows(self, ids: Ids) -> npt.NDArray[np.float64]:
        if not len(ids):
            return np.empty((0, self.vectors(["a"]).shape[1]))
        raw = np.asarray(self.table.rows[ids])
        steps = raw[:, SCALE_BYTES:].view(np.int8).astype(np.float64)
        scales = np.ascontiguousarray(raw[:, :SCALE_BYTES]).view("<f4").astype(np.float64)
        return unit(project(self.spec, steps * scales))
