"""Readers trained in a process of their own are those that would be trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coin_protocol.models import Models
from coin_protocol.profile import Profile
from tests.support.laboratory import traces
from tests.support.workshops import quiet
from verifier_sdk.lab import Library
from verifier_sdk.training.background import readers_in_background
from verifier_sdk.training.pipeline import Size, make_readers

pytestmark = pytest.mark.models

SIZE = Size(steps=0.001)


def test_they_are_kept_told_of_and_the_same(tmp_path: Path) -> None:
    profile, found = Profile.shipped("default"), traces()[:4]
    told: list[tuple[str, int, int]] = []
    with readers_in_background(
        profile, found, size=SIZE, kept=tmp_path, progress=lambda *step: told.append(step)
    ):
        pass
    assert len(list(tmp_path.glob("readers-*.safetensors"))) == 1
    library = Library(found, Models(profile).tokenizer, lambda _: np.empty((0, 0), np.float32))
    steps: list[str] = []
    kept = make_readers(
        library, found, size=SIZE, kept=tmp_path, progress=lambda what, *_: steps.append(what)
    )
    assert steps == []
    here = make_readers(library, found, size=SIZE, kept=None, progress=quiet)
    one, other = kept.tensors(), here.tensors()
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert {what for what, _, _ in told} <= {
        "training the reader of runs",
        "training the reader of blocks",
    }
    assert all(0 < done <= of for _, done, of in told)


def test_what_the_block_raises_comes_out(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyError, match="here"),
        readers_in_background(
            Profile.shipped("default"), traces()[:4], size=SIZE, kept=tmp_path, progress=quiet
        ),
    ):
        raise KeyError("here")  # noqa: EM101 - a test's own
