"""Train the readers of token ids on real traces, against filler made while they train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from coin_protocol.tokenizer import Tokenizer
from verifier_sdk.lab.library import Library
from verifier_sdk.lab.trace import Trace
from verifier_sdk.semantic.reader import (
    BLOCK_FAMILIES,
    RUN_FAMILIES,
    BlockNet,
    BlockReader,
    Readers,
    RunNet,
    RunReader,
    Vocabulary,
)
from verifier_sdk.semantic.reader.block_reader import repeated_before
from verifier_sdk.semantic.reader.vocabulary import PADDING
from verifier_sdk.training.blocks import BLOCK, INJECTED, JOINT, BlockMaker
from verifier_sdk.training.corpus import Corpus
from verifier_sdk.training.filler import filler_runs, real_runs
from verifier_sdk.training.fit import one_thread

Progress = Callable[[str, int, int], None]
"""Told what is trained, how many steps are done, and how many there are."""

FREQUENT: Final = 8192
"""Ids with a row of their own: over 98 % of the tokens of real reasoning."""

SHARED_BITS: Final = 11
"""2,048 rows for the rest."""

LEAST_ANSWER: Final = 192
"""Tokens of an answer that is read as real text of another style."""

RUN_STEPS: Final = 5000
BLOCK_STEPS: Final = 5000
"""About 2 and 11 minutes of one core that multiplies bfloat16, and twice that on others."""

_REAL_RUNS: Final = 2048
_FAMILY_RUNS: Final = 512
_REAL_BLOCKS: Final = 28
_FAMILY_BLOCKS: Final = {
    "random": 2,
    "bag": 3,
    "scattered": 3,
    "split": 3,
    "ngram": 12,
    "shuffled": 12,
    "retrieved": 6,
    "edited": 6,
}
"""Examples in a step: most of what is hardest to tell from reasoning."""

_BY_SENTENCE: Final = ("shuffled", "retrieved")
"""Families whose places are told at sentence starts alone, real ones against joints."""

_WITHOUT_PLACES: Final = ("edited",)
_RUN_RATE: Final = 4e-3
_BLOCK_RATE: Final = 3e-3
_WARM_UP: Final = 200
_DECAY: Final = 0.01
_STEEPEST: Final = 5.0


@one_thread()
def train_readers(
    traces: Sequence[Trace],
    tokenizer: Tokenizer,
    library: Library,
    *,
    seed: int,
    run_steps: int = RUN_STEPS,
    block_steps: int = BLOCK_STEPS,
    progress: Progress | None = None,
) -> dict[str, npt.NDArray[np.generic]]:
    """Train both readers; return the tensors that `Readers.from_tensors` reads.

    One seed gives one result on one machine.

    Args:
        traces: Real ones, of the training split alone.
        tokenizer: The profile's.
        library: Knows the ids of traces.
        seed: Of everything random.
        run_steps: Steps of the run reader; each sees 2,048 real runs and 512 of each family.
        block_steps: Steps of the block reader; each sees 28 real blocks and 47 of filler.
        progress: Told after each step.

    Raises:
        ValueError: No trace has 8 tokens.
    """
    ids = [library.ids(trace) for trace in traces]
    corpus = Corpus(traces, ids, tokenizer)
    vocabulary = Vocabulary.counted(ids, size=FREQUENT, bits=SHARED_BITS)
    tell = progress or (lambda _name, _done, _all: None)
    runs = train_runs(corpus, vocabulary, seed=seed, steps=run_steps, progress=tell)
    others = answers(traces, tokenizer)
    blocks = train_blocks(
        corpus, vocabulary, others=others, seed=seed, steps=block_steps, progress=tell
    )
    return Readers(vocabulary, runs, blocks).tensors()


def train_runs(
    corpus: Corpus, vocabulary: Vocabulary, *, seed: int, steps: int, progress: Progress
) -> RunReader:
    """Train a run reader."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = RunNet(vocabulary.rows)
    optimizer = _optimizer(net, _RUN_RATE)
    rng = np.random.default_rng([seed, 1])
    for step in range(steps):
        _schedule(optimizer, _RUN_RATE, step, steps)
        runs = [real_runs(corpus, corpus.draw_traces(_REAL_RUNS, rng), rng)]
        runs += [
            filler_runs(family, corpus, corpus.draw_traces(_FAMILY_RUNS, rng), rng)
            for family in RUN_FAMILIES
        ]
        rows = vocabulary.rows_of(np.concatenate(runs))
        # Runs at the edge of a session's last block are short.
        short = rng.integers(1, 4, len(rows)) * (rng.random(len(rows)) < 0.03)
        rows[np.arange(4) >= 4 - short[:, None]] = PADDING
        logits = net(torch.from_numpy(rows))
        real, filler = logits[:_REAL_RUNS], logits[_REAL_RUNS:]
        own = filler.view(len(RUN_FAMILIES), _FAMILY_RUNS, -1).diagonal(dim1=0, dim2=2)
        loss = _softplus(real).mean(0).sum() + _softplus(-own).mean(0).sum()
        _step(optimizer, net, loss)
        progress("runs", step + 1, steps)
    return RunReader(vocabulary, net)


def answers(traces: Sequence[Trace], tokenizer: Tokenizer) -> Corpus | None:
    """Return the longer answers as a corpus, None if there are none.

    They are real text on the same questions, and denser than any reasoning: what is real is not
    to be what rambles.
    """
    ids = [np.array(tokenizer.encode(trace.answer), np.uint32) for trace in traces]
    long = [at for at, one in enumerate(ids) if len(one) >= LEAST_ANSWER]
    if not long:
        return None
    return Corpus([traces[at] for at in long], [ids[at] for at in long], tokenizer)


def train_blocks(
    corpus: Corpus, vocabulary: Vocabulary, *, others: Corpus | None, seed: int, steps: int,
    progress: Progress,
) -> BlockReader:  # fmt: skip
    """Train a block reader."""
    # Twice as fast where the processor multiplies bfloat16, many times slower elsewhere.
    fast = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    maker = BlockMaker(corpus, others=others)
    rng = np.random.default_rng([seed, 2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        net = BlockNet(vocabulary.rows)
        net.train()
        optimizer = _optimizer(net, _BLOCK_RATE)
        for step in range(steps):
            _schedule(optimizer, _BLOCK_RATE, step, steps)
            batch = _batch(maker, vocabulary, rng)
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                logits, places = net(batch.rows, batch.repeats)
            _step(optimizer, net, _block_loss(batch, logits.float(), places.float()))
            progress("blocks", step + 1, steps)
    return BlockReader(vocabulary, net)


@dataclass(frozen=True)
class _Batch:
    """Blocks of a step; family is -1 for real ones."""

    rows: torch.Tensor
    repeats: torch.Tensor
    family: torch.Tensor
    joint: torch.Tensor
    injected: torch.Tensor
    starts: torch.Tensor


def _batch(maker: BlockMaker, vocabulary: Vocabulary, rng: np.random.Generator) -> _Batch:
    made = [maker.real(_REAL_BLOCKS, rng)]
    made += [maker.filler(family, _FAMILY_BLOCKS[family], rng) for family in BLOCK_FAMILIES]
    ids = np.concatenate([blocks.ids for blocks in made])
    marks = np.concatenate([blocks.marks for blocks in made])
    lengths = np.concatenate([blocks.lengths for blocks in made])
    rows = vocabulary.rows_of(ids)
    rows[np.arange(BLOCK) >= lengths[:, None]] = PADDING
    starts = np.zeros(ids.shape, np.bool_)
    starts[:, 1:] = maker.corpus.starts_after(ids[:, :-1], ids[:, 1:])
    return _Batch(
        torch.from_numpy(rows),
        torch.from_numpy(repeated_before(rows)),
        torch.from_numpy(np.repeat(np.arange(-1, len(made) - 1), [len(one.ids) for one in made])),
        torch.from_numpy((marks & JOINT) > 0),
        torch.from_numpy((marks & INJECTED) > 0),
        torch.from_numpy(starts),
    )


def _block_loss(batch: _Batch, logits: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Sum over the families: blocks and places of each against real ones, evenly weighted."""
    here = batch.rows != PADDING
    real = batch.family < 0
    loss = logits.new_zeros(())
    for number, family in enumerate(BLOCK_FAMILIES):
        own = batch.family == number
        loss = (
            loss + _softplus(logits[real, number]).mean() + _softplus(-logits[own, number]).mean()
        )
        if family in _WITHOUT_PLACES:
            continue
        plain, filled = here, here & batch.injected
        if family == "ngram":
            filled = here & batch.joint
        if family in _BY_SENTENCE:
            plain, filled = here & batch.starts & ~batch.injected, here & batch.joint
        # Real places of blocks that are filler in part count as real.
        unlike = places[..., number][plain & (real | own)[:, None] & ~batch.injected]
        alike = places[..., number][filled & own[:, None]]
        if len(unlike) and len(alike):
            loss = loss + _softplus(unlike).mean() + _softplus(-alike).mean()
    return loss


def _softplus(logits: torch.Tensor) -> torch.Tensor:
    return nn.functional.softplus(logits)


def _optimizer(net: nn.Module, rate: float) -> torch.optim.Optimizer:
    tables = [value for name, value in net.named_parameters() if name.startswith("embedding")]
    rest = [value for name, value in net.named_parameters() if not name.startswith("embedding")]
    return torch.optim.AdamW(
        [{"params": tables, "weight_decay": 0.0}, {"params": rest, "weight_decay": _DECAY}],
        lr=rate,
    )


def _schedule(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Warm up for 200 steps, then fall along a cosine to a hundredth."""
    cosine = 0.5 * (1.0 + np.cos(np.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / _WARM_UP) * (0.01 + 0.99 * cosine)


def _step(optimizer: torch.optim.Optimizer, net: nn.Module, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(net.parameters(), _STEEPEST)
    optimizer.step()
