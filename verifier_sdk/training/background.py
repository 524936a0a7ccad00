"""Train the readers in a process of their own, while the other cores embed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.models import Models
from coin_protocol.profile import Profile
from verifier_sdk.lab import Library, Trace
from verifier_sdk.training.pipeline import Size, make_readers
from verifier_sdk.training.workshop import Progress

_PARTS: Final = ("runs", "blocks")
_LOOK_EVERY: Final = 1.0
"""Seconds between two looks at how far it is."""


@contextmanager
def readers_in_background(
    profile: Profile, traces: Sequence[Trace], *, size: Size, kept: Path, progress: Progress
) -> Iterator[None]:
    """Train the readers into a folder while the block runs, and wait for them at its end.

    A process that fails leaves no file; whoever wants the readers then trains them.

    Args:
        profile: Whose tokenizer reads.
        traces: Of the training split.
        size: How much is trained.
        kept: Folder that they are kept in.
        progress: Told how far it is, from a thread.
    """
    context = get_context("spawn")
    done = [context.Value("q", 0) for _ in _PARTS]
    all_ = [context.Value("q", 0) for _ in _PARTS]
    process = context.Process(
        target=_train, args=(profile.raw, list(traces), size, kept, done, all_), daemon=True
    )
    process.start()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(_LOOK_EVERY):
            for part, count, of in zip(_PARTS, done, all_, strict=True):
                if count.value:
                    progress(f"training the reader of {part}", count.value, of.value)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
        process.join()
    finally:
        stop.set()
        watcher.join()
        if process.is_alive():
            process.terminate()


def _train(
    profile: bytes,
    traces: list[Trace],
    size: Size,
    kept: Path,
    done: list[Synchronized[int]],
    all_: list[Synchronized[int]],
) -> None:
    models = Models(Profile.from_bytes(profile))

    def tell(what: str, steps: int, of: int) -> None:
        at = _PARTS.index(what.rpartition(" ")[2])
        done[at].value, all_[at].value = steps, of

    library = Library(traces, models.tokenizer, _nothing)
    make_readers(library, traces, size=size, kept=kept, progress=tell)


def _nothing(_texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Stand in for embeddings, which readers have no use for."""
    return np.empty((0, 0), np.float32)
