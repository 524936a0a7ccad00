"""Small networks: what they compute, and what files they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from coin_protocol.errors import ConfigurationError
from tests.support.judges import mlp, numbers
from verifier_sdk.semantic.mlp import Mlp

Tensors = dict[str, Any]


def test_rows_become_one_logit_for_each_output() -> None:
    network = mlp(5, 3)
    assert (network.inputs, network.outputs) == (5, 3)
    found = network(numbers(7, 5))
    assert found.shape == (7, 3)
    assert found.dtype == np.float32
    assert network(numbers(0, 5)).shape == (0, 3)


def test_it_standardises_then_alternates_linear_layers_and_relu() -> None:
    network, row = mlp(4, 2), numbers(1, 4)
    (first, shift), (second, bias) = network.layers
    hidden = np.maximum((row - network.mean) / network.scale @ first + shift, 0)
    assert np.allclose(network(row), hidden @ second + bias, atol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    network, rows = mlp(6, 2), numbers(9, 6)
    assert np.allclose(network(rows)[4:5], network(rows[4:5]), atol=1e-6)


@pytest.mark.parametrize("far", [8.0, 100.0, 1e30])
def test_inputs_are_cut_off_at_eight_standard_deviations(far: float) -> None:
    network = Mlp(
        np.array([1.0], np.float32), np.array([2.0], np.float32),
        ((np.ones((1, 1), np.float32), np.zeros(1, np.float32)),),
    )  # fmt: skip
    rows = np.array([[1.0 + 2.0 * far], [1.0 - 2.0 * far]], np.float32)
    assert network(rows).ravel().tolist() == [8.0, -8.0]


def test_tensors_make_the_same_network_again() -> None:
    network, rows = mlp(5, 3), numbers(4, 5)
    again = Mlp.read(network.tensors("a"), "a", inputs=5, outputs=3)
    assert np.array_equal(again(rows), network(rows))
    assert Mlp.read({**mlp(2, 1).tensors("b"), **network.tensors("a")}, "b", inputs=2, outputs=1)


def without(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize("name", ["a.mean", "a.scale", "a.0.bias", "a.1.bias"])
def test_a_missing_tensor_is_named(name: str) -> None:
    tensors: Tensors = mlp(5, 3).tensors("a")
    without(name)(tensors)
    with pytest.raises(ConfigurationError, match=rf"no tensor '{name}'"):
        Mlp.read(tensors, "a", inputs=5, outputs=3)


def test_any_number_of_outputs_is_read_where_none_is_wanted() -> None:
    tensors: Tensors = mlp(5, 3).tensors("a")
    assert Mlp.read(tensors, "a", inputs=5).outputs == 3
    with pytest.raises(ConfigurationError, match="not from 6 to some numbers"):
        Mlp.read(tensors, "a", inputs=6)


@pytest.mark.parametrize(
    ("edit", "inputs", "outputs"),
    [
        (lambda _: None, 6, 3),
        (lambda _: None, 5, 4),
        (without("a.0.weight"), 5, 3),
        (without("a.1.weight"), 5, 3),
        (lambda tensors: tensors.update({"a.mean": numbers(4)}), 5, 3),
        (lambda tensors: tensors.update({"a.scale": numbers(1, 5)}), 5, 3),
        (lambda tensors: tensors.update({"a.0.weight": numbers(4, 6)}), 5, 3),
        (lambda tensors: tensors.update({"a.0.bias": numbers(1, 6)}), 5, 3),
        (lambda tensors: tensors.update({"a.1.weight": numbers(7, 3)}), 5, 3),
        (lambda tensors: tensors.update({"a.1.bias": np.array(1.0, np.float32)}), 5, 3),
        (lambda tensors: tensors.update({"a.scale": np.zeros(5, np.float32)}), 5, 3),
    ],
)
def test_other_shapes_are_of_another_version(
    edit: Callable[[Tensors], None], inputs: int, outputs: int
) -> None:
    tensors: Tensors = mlp(5, 3).tensors("a")
    edit(tensors)
    with pytest.raises(ConfigurationError, match=f"not from {inputs} to {outputs} numbers"):
        Mlp.read(tensors, "a", inputs=inputs, outputs=outputs)


def test_half_precision_reads_as_single() -> None:
    tensors = {name: value.astype(np.float16) for name, value in mlp(5, 3).tensors("a").items()}
    found = Mlp.read(tensors, "a", inputs=5, outputs=3)  # type: ignore[arg-type]
    assert found(numbers(2, 5)).dtype == np.float32
