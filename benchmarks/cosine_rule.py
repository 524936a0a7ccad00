"""What the plain cosine rule tells apart, and what it misses, on real reasoning traces.

python -m benchmarks.cosine_rule [TRACES]

Needs `../shared/data` beside the repository and the token table (`coin table build`). Traces
are drawn by question, one each, from all domains in turn. Float32: twice as fast, and these
figures have three digits.

A session is the round 1 of an audit: two blocks and twelve tokens in each, means over the
blocks. Attacks replace the blocks and keep the trace's answer.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks._common import Float32Embedder, real_table, report, skip
from coin_protocol.cli.common import quiet_models
from coin_protocol.embedding import (
    TextEmbedder,
    Vectors,
    block_embedding,
    embed_texts,
    project,
    quantised_windows,
    unit,
    window_dimension,
    window_texts,
)
from coin_protocol.errors import ConfigurationError, TryLaterError
from coin_protocol.models import Models
from coin_protocol.profile import Policy, Profile
from coin_protocol.quantise import dequantise
from coin_protocol.table import TokenTable
from verifier_sdk.semantic import OpenedBlock, OpenedEvidence
from verifier_sdk.semantic.cosine import block_scores

DATA: Final = Path(__file__).parents[2] / "shared" / "data"
SCORES: Final = ("tokens_to_block", "block_to_answer")
TRACES: Final = 150
MIN_BLOCKS: Final = 4
FALSE_ALARMS: Final = 0.01

_HONEST_BLOCKS: Final = 3
_ATTACK_BLOCKS: Final = 2
_OPENED_BLOCKS: Final = 2
_OPENED_TOKENS: Final = 12
_SESSIONS: Final = 12  # for each trace: draws differ
_SEED: Final = 7

Ids = npt.NDArray[np.uint32]
Scores = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Block:
    """A block's ids and its window embeddings as committed."""

    ids: Ids
    windows: list[bytes]


@dataclass(frozen=True)
class Sample:
    """A trace, cut and embedded, with the blocks that attacks put in the place of its own."""

    domain: str
    answer: Vectors
    honest: list[Block]
    random_vocabulary: list[Block]
    own_words_shuffled: list[Block]

    @property
    def random_ids_under_real_embeddings(self) -> list[Block]:
        """Ids of one kind beside embeddings of another: unseen unless a block is opened whole."""
        return [
            Block(random.ids, honest.windows)
            for random, honest in zip(self.random_vocabulary, self.honest, strict=False)
        ]


class Bench:
    """Models, and the randomness of the whole run."""

    def __init__(self, models: Models, table: TokenTable, embedder: TextEmbedder) -> None:
        """Take what was loaded."""
        self.profile = models.profile
        self.spec = models.profile.message.embedding
        self.tokenizer = models.tokenizer
        self.table = table
        self.embedder = embedder
        self.rng = np.random.default_rng(_SEED)

    def samples(self, wanted: int) -> Iterator[Sample]:
        """Yield traces that have an answer and blocks enough."""
        for row in drawn_rows(self.rng):
            if wanted == 0:
                return
            ids = np.array(self.tokenizer.encode(row["reasoning"]), np.uint32)
            if len(ids) >= MIN_BLOCKS * self.profile.block_size:
                yield self._sample(row, ids)
                wanted -= 1

    def _sample(self, row: dict[str, Any], ids: Ids) -> Sample:
        size = self.profile.block_size
        starts = self.rng.choice(range(0, len(ids), size), _HONEST_BLOCKS, replace=False)
        vocabulary = self.profile.vocabulary_size
        answer = project(self.spec, embed_texts(self.embedder, [row["answer"]]))[0]
        return Sample(
            domain=row["domain"],
            answer=answer,
            honest=[self._block(ids[at : at + size]) for at in starts],
            random_vocabulary=[
                self._block(self.rng.integers(0, vocabulary, size, np.uint32))
                for _ in range(_ATTACK_BLOCKS)
            ],
            own_words_shuffled=[
                self._block(self.rng.choice(ids, size, replace=False))
                for _ in range(_ATTACK_BLOCKS)
            ],
        )

    def _block(self, ids: Ids) -> Block:
        texts = window_texts(self.tokenizer, self.spec, ids.tolist())
        return Block(ids, quantised_windows(self.embedder, self.spec, texts))

    def opened(self, index: int, block: Block) -> OpenedBlock:
        """Open a block and some of its tokens, drawn now."""
        dimension = window_dimension(self.spec)
        count = min(_OPENED_TOKENS, len(block.ids))
        drawn = self.rng.choice(block.ids, count, replace=False).tolist()
        rows = dequantise([self.table.row(token_id) for token_id in drawn], self.spec.dimension)
        return OpenedBlock(
            index=index,
            embedding=block_embedding(block.windows, dimension),
            windows=dequantise(block.windows, dimension),
            tokens=unit(project(self.spec, rows)),
        )

    def session(self, blocks: list[Block], answer: Vectors) -> list[dict[str, float]]:
        """Return the scores of each block that one session opens."""
        drawn = self.rng.choice(len(blocks), _OPENED_BLOCKS, replace=False).tolist()
        opened = [self.opened(index, blocks[index]) for index in drawn]
        evidence = OpenedEvidence(opened, answer, len(blocks))
        return [block_scores(block, evidence) for block in opened]


def drawn_rows(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield one row a question, in random order, from each domain in turn."""
    questions: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for path in sorted(DATA.glob("traces_dev*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                # A token has some four characters; short rows are left out unread.
                if row["answer"] and len(row["reasoning"]) > MIN_BLOCKS * 256 * 2:
                    questions.setdefault(row["domain"], {}).setdefault(row["qid"], []).append(row)
    drawn = []
    for _, by_question in sorted(questions.items()):
        picked = [rows[int(rng.integers(len(rows)))] for _, rows in sorted(by_question.items())]
        rng.shuffle(picked)
        drawn.append(picked)
    for turn in zip_longest(*drawn):
        yield from (row for row in turn if row is not None)


def sessions_of(bench: Bench, samples: list[Sample]) -> dict[str, Scores]:
    """Return the mean scores of every session, by what its blocks are."""
    found: dict[str, list[list[dict[str, float]]]] = {}
    for at, sample in enumerate(samples):
        same_domain = [
            other for other in samples if other.domain == sample.domain and other is not sample
        ]
        for _ in range(_SESSIONS):
            step = int(bench.rng.integers(1, len(samples)))
            near = same_domain[int(bench.rng.integers(len(same_domain)))]
            for kind, blocks in (
                ("honest", sample.honest),
                ("random_vocabulary", sample.random_vocabulary),
                ("own_words_shuffled", sample.own_words_shuffled),
                ("random_ids_under_real_embeddings", sample.random_ids_under_real_embeddings),
                ("other_question", samples[(at + step) % len(samples)].honest),
                ("other_question_same_domain", near.honest),
            ):
                found.setdefault(kind, []).append(bench.session(blocks, sample.answer))
    return {
        kind: {
            name: np.array([np.mean([block[name] for block in blocks]) for blocks in sessions])
            for name in SCORES
        }
        for kind, sessions in found.items()
    }


def blocks_of(bench: Bench, samples: list[Sample]) -> Scores:
    """Return the scores of every honest block, opened once."""
    scores = []
    for sample in samples:
        opened = [bench.opened(index, block) for index, block in enumerate(sample.honest)]
        evidence = OpenedEvidence(opened, sample.answer, len(opened))
        scores += [block_scores(block, evidence) for block in opened]
    return {name: np.array([score[name] for score in scores]) for name in SCORES}


def shares_below(scores: Scores, thresholds: dict[str, float]) -> dict[str, float]:
    """Return the share of sessions below each threshold, and below either."""
    low = {name: scores[name] < thresholds[name] for name in SCORES}
    low["either"] = low["tokens_to_block"] | low["block_to_answer"]
    return {name: float(below.mean()) for name, below in low.items()}


def main() -> None:
    """Measure honest sessions, find the thresholds, and count the attacks below them."""
    quiet_models()
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else TRACES
    models = Models(Profile.shipped("default"))
    table = real_table(models.profile)
    if table is None:
        skip("cosine_rule", "the token table is not built: coin table build")
        return
    if not any(DATA.glob("traces_dev*.jsonl.gz")):
        skip("cosine_rule", "no traces in ../shared/data beside the repository")
        return
    try:
        bench = Bench(models, table, Float32Embedder(models.embedder))
    except (ConfigurationError, TryLaterError) as error:
        skip("cosine_rule", f"{error}")
        return
    samples = list(bench.samples(wanted))
    blocks = blocks_of(bench, samples)
    for name in SCORES:
        for percent in (1, 5, 50):
            value = float(np.percentile(blocks[name], percent))
            report(
                f"cosine_rule.honest_blocks.{name}.p{percent}",
                value,
                unit="cosine",
                better="higher",
            )
    sessions = sessions_of(bench, samples)
    thresholds = {
        name: float(np.quantile(sessions["honest"][name], FALSE_ALARMS)) for name in SCORES
    }
    for name, threshold in thresholds.items():
        report(f"cosine_rule.threshold.{name}", threshold, unit="cosine", better="higher")
    for kind, scores in sessions.items():
        better = "lower" if kind == "honest" else "higher"
        for name, share in shares_below(scores, thresholds).items():
            report(f"cosine_rule.below.{kind}.{name}", share, unit="share", better=better)
    rules = Policy.shipped().message.cosine_rules
    shipped = {
        "tokens_to_block": rules.tokens_to_block.value + rules.tokens_to_block.guard,
        "block_to_answer": rules.block_to_answer.value + rules.block_to_answer.guard,
    }
    for name, share in shares_below(sessions["honest"], shipped).items():
        report(f"cosine_rule.below_shipped.honest.{name}", share, unit="share", better="lower")


if __name__ == "__main__":
    main()
