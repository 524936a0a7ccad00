"""A small multilayer perceptron in numpy: trained in torch, judged with without it.

The judge's networks are tiny, and matrices of this size are faster in numpy than through
torch's dispatcher; and here the same row gives the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import ConfigurationError
from verifier_sdk.semantic.exact import Linear

Floats = npt.NDArray[np.float32]

_FARTHEST: Final = 8.0
"""Standard deviations at which an input is cut off."""


@dataclass(frozen=True)
class Mlp:
    """Standardise, then linear layers with ReLU between them.

    Attributes:
        mean: Of each input, float32 (inputs,).
        scale: What to divide by, float32 (inputs,).
        layers: Weights (inputs, outputs) and biases (outputs,), float32.
    """

    mean: Floats
    scale: Floats
    layers: tuple[tuple[Floats, Floats], ...]

    @property
    def inputs(self) -> int:
        """Length of an input row."""
        return len(self.mean)

    @property
    def outputs(self) -> int:
        """Length of an output row."""
        return len(self.layers[-1][1])

    def __call__(self, rows: Floats) -> Floats:
        """Return logits, float32 (n, outputs), of rows (n, inputs)."""
        near = np.clip((rows.astype(np.float32) - self.mean) / self.scale, -_FARTHEST, _FARTHEST)
        first, *others = self.exact
        hidden = first(near)
        for layer in others:
            hidden = layer(np.maximum(hidden, 0.0))
        return hidden.astype(np.float32)

    @cached_property
    def exact(self) -> tuple[Linear, ...]:
        """Its layers, as they are computed with.

        Raises:
            ConfigurationError: Weights are too large.
        """
        most = _FARTHEST
        found: list[Linear] = []
        for weights, bias in self.layers:
            found.append(Linear.of(weights, bias, most=most))
            most = found[-1].most
        return tuple(found)

    def tensors(self, name: str) -> dict[str, Floats]:
        """Return its tensors, for a file."""
        found = {f"{name}.mean": self.mean, f"{name}.scale": self.scale}
        for number, (weights, bias) in enumerate(self.layers):
            found[f"{name}.{number}.weight"] = weights
            found[f"{name}.{number}.bias"] = bias
        return found

    @classmethod
    def read(
        cls, tensors: Mapping[str, Floats], name: str, *, inputs: int, outputs: int | None = None
    ) -> Mlp:
        """Take a network out of a file's tensors; of any number of outputs if none is given.

        Raises:
            ConfigurationError: It is not there, or has another shape than wanted.
        """
        try:
            mean, scale = tensors[f"{name}.mean"], tensors[f"{name}.scale"]
            layers: list[tuple[Floats, Floats]] = []
            while f"{name}.{len(layers)}.weight" in tensors:
                at = len(layers)
                layers.append((tensors[f"{name}.{at}.weight"], tensors[f"{name}.{at}.bias"]))
        except KeyError as error:
            msg = f"the model file has no tensor {error.args[0]!r}: it is of another version"
            raise ConfigurationError(msg) from error
        widths = [inputs, *(bias.size for _, bias in layers)]
        good = bool(layers) and outputs in (None, widths[-1]) and widths[-1] > 0
        good = good and mean.shape == scale.shape == (inputs,)
        good = good and all(
            weights.shape == (widths[at], widths[at + 1]) and bias.ndim == 1
            for at, (weights, bias) in enumerate(layers)
        )
        good = good and bool((scale > 0).all())
        if not good:
            wanted = "some" if outputs is None else outputs
            msg = f"network {name!r} is not from {inputs} to {wanted} numbers: another version"
            raise ConfigurationError(msg)
        read = cls(
            mean.astype(np.float32),
            scale.astype(np.float32),
            tuple((w.astype(np.float32), b.astype(np.float32)) for w, b in layers),
        )
        # Now, not in the middle of an audit, it is known whether it can be computed with.
        _ = read.exact
        return read
