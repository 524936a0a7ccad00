"""What an audit reads with computes what was trained, and does so alike for any company."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coin_protocol.errors import ConfigurationError
from verifier_sdk.semantic.reader import (
    BLOCK_FAMILIES,
    BlockNet,
    BlockReader,
    RunNet,
    RunReader,
    Vocabulary,
)
from verifier_sdk.semantic.reader.block_reader import DILATIONS, repeated_before
from verifier_sdk.semantic.reader.forward import BlockForward, RunForward
from verifier_sdk.semantic.reader.tensors import parameters

ROWS = 41
VOCABULARY = Vocabulary.counted([np.arange(at, at + 40, dtype=np.uint32) for at in range(30)],
                                size=32, bits=3)  # fmt: skip


@pytest.fixture(scope="module")
def nets() -> tuple[RunNet, BlockNet]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        runs, blocks = RunNet(ROWS), BlockNet(ROWS)
        torch.nn.init.normal_(blocks.pool)
    return runs.eval(), blocks.eval()


@pytest.mark.parametrize("length", [1, 2, 31, 33, 64, 256])
def test_a_block_is_read_as_by_the_network_that_was_trained(
    nets: tuple[RunNet, BlockNet], length: int
) -> None:
    rows = np.random.default_rng(length).integers(1, ROWS, (3, length))
    repeats = repeated_before(rows)
    with torch.inference_mode():
        wanted, _ = nets[1](torch.from_numpy(rows), torch.from_numpy(repeats))
    forward = BlockForward.of(parameters(nets[1]), DILATIONS)
    found = [forward(one, marks) for one, marks in zip(rows, repeats, strict=True)]
    assert np.allclose(found, wanted.numpy(), atol=1e-4)
    assert found[0].shape == (len(BLOCK_FAMILIES),)


def test_runs_are_read_as_by_the_network_that_was_trained(nets: tuple[RunNet, BlockNet]) -> None:
    rows = np.random.default_rng(1).integers(0, ROWS, (50, 4))
    with torch.inference_mode():
        wanted = nets[0](torch.from_numpy(rows)).numpy()
    forward = RunForward.of(parameters(nets[0]))
    assert np.allclose(forward(rows), wanted, atol=1e-4)
    assert np.array_equal(forward(rows)[7:8], forward(rows[7:8]))
    assert forward(rows[:0]).shape == (0, wanted.shape[1])


def test_a_block_reads_to_the_same_bits_beside_others(nets: tuple[RunNet, BlockNet]) -> None:
    reader = BlockReader(VOCABULARY, nets[1])
    blocks = [np.arange(at, at + size, dtype=np.uint32) for at, size in ((3, 256), (9, 40), (0, 7))]
    together = reader.read(blocks)
    for number, block in enumerate(blocks):
        assert np.array_equal(reader.read([block])[0], together[number])


def test_weights_that_cannot_be_computed_with_are_refused() -> None:
    runs, blocks = RunNet(ROWS), BlockNet(ROWS)
    with torch.no_grad():
        runs.heads.weight.fill_(1e12)
        blocks.heads.weight.fill_(1e12)
    with pytest.raises(ConfigurationError, match="smaller weights"):
        RunReader(VOCABULARY, runs)
    with pytest.raises(ConfigurationError, match="smaller weights"):
        BlockReader(VOCABULARY, blocks)
