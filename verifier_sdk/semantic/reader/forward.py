"""The readers' networks once trained, as every machine computes them to the same bits.

They are trained in torch, whose convolutions and sums differ in their last bits between
processors; what an audit reads with is this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.semantic import exact
from verifier_sdk.semantic.exact import Linear, Numbers
from verifier_sdk.semantic.reader.vocabulary import Rows

Weights = Mapping[str, npt.NDArray[np.float32]]

_EPSILON: Final = 1e-5
"""Of torch's layer norm."""


@dataclass(frozen=True)
class _Norm:
    """A layer norm."""

    gain: Numbers
    shift: Numbers

    @classmethod
    def of(cls, weights: Weights, name: str) -> _Norm:
        return cls(
            weights[f"{name}.weight"].astype(np.float64), weights[f"{name}.bias"].astype(np.float64)
        )

    @property
    def most(self) -> float:
        """Greatest magnitude of an output: no number is further from the mean of n than sqrt(n)."""
        width = len(self.gain)
        return sqrt(width) * float(np.abs(self.gain).max()) + float(np.abs(self.shift).max())

    def __call__(self, states: Numbers) -> Numbers:
        centred = states - exact.mean(states, 1)[:, None]
        scale = 1.0 / np.sqrt(exact.mean(centred * centred, 1) + _EPSILON)
        return centred * scale[:, None] * self.gain + self.shift


@dataclass(frozen=True)
class _Layer:
    """Adds what stands `dilation` places before, here and after."""

    norm: _Norm
    mix: Linear
    dilation: int

    @classmethod
    def of(cls, weights: Weights, name: str, dilation: int) -> _Layer:
        norm = _Norm.of(weights, f"{name}.norm")
        kernel = weights[f"{name}.mix.weight"]
        taps = [kernel[:, :, 0, tap].T for tap in range(kernel.shape[3])]
        mix = Linear.of(np.concatenate(taps), weights[f"{name}.mix.bias"], most=norm.most)
        return cls(norm, mix, dilation)

    def __call__(self, states: Numbers) -> Numbers:
        length, width = states.shape
        seen = exact.rounded(np.maximum(self.norm(states), 0.0), self.mix.bits)
        near = np.zeros((length, 3 * width))
        kept = max(length - self.dilation, 0)
        near[length - kept :, :width] = seen[:kept]
        near[:, width : 2 * width] = seen
        near[:kept, 2 * width :] = seen[length - kept :]
        return states + (exact.times(near, self.mix.weights) + self.mix.bias)


@dataclass(frozen=True)
class BlockForward:
    """`BlockNet` of one piece of a block."""

    embedding: npt.NDArray[np.float32]
    project: Linear
    layers: tuple[_Layer, ...]
    norm: _Norm
    places: Linear
    summary: Linear
    heads: Linear
    pool: Numbers

    @classmethod
    def of(cls, weights: Weights, dilations: Sequence[int]) -> BlockForward:
        """Take the parameters of a `BlockNet`.

        Raises:
            ConfigurationError: Some are too large to be computed with.
        """
        norm = _Norm.of(weights, "norm")
        summary = _linear(weights, "summary", norm.most)
        return cls(
            embedding=weights["embedding.weight"],
            # Beside the embedding it reads marks of 0 or 1.
            project=_linear(weights, "project", max(_most(weights["embedding.weight"]), 1.0)),
            layers=tuple(
                _Layer.of(weights, f"layers.{number}", dilation)
                for number, dilation in enumerate(dilations)
            ),
            norm=norm,
            places=_linear(weights, "places", norm.most),
            summary=summary,
            heads=_linear(weights, "heads", summary.most),
            pool=weights["pool"].astype(np.float64),
        )

    def __call__(self, rows: Rows, repeats: npt.NDArray[np.float32]) -> Numbers:
        """Return logits, float64 (families,).

        Args:
            rows: Of each place, int64 (length,), one at least, without padding.
            repeats: Of `repeated_before`, float32 (length, 4).
        """
        states = self.project(np.concatenate([self.embedding[rows], repeats], axis=1))
        for layer in self.layers:
            states = layer(states)
        states = self.norm(states)
        places = self.places(states)
        pooled = np.concatenate([exact.mean(states, 0), states.max(axis=0)])
        summary = np.maximum(self.summary(pooled[None]), 0.0)
        top = places.max(axis=0)
        peak = top + exact.logs(exact.total(exact.exps(places - top), 0))
        level = exact.mean(places, 0)
        logits: Numbers = self.heads(summary)[0] + self.pool[0] * level + self.pool[1] * peak
        return logits


@dataclass(frozen=True)
class RunForward:
    """`RunNet` of any number of runs."""

    embedding: npt.NDArray[np.float32]
    layers: tuple[Linear, ...]

    @classmethod
    def of(cls, weights: Weights) -> RunForward:
        """Take the parameters of a `RunNet`.

        Raises:
            ConfigurationError: Some are too large to be computed with.
        """
        most, layers = _most(weights["embedding.weight"]), []
        for name in ("first", "second", "heads"):
            layers.append(_linear(weights, name, most))
            most = layers[-1].most
        return cls(weights["embedding.weight"], tuple(layers))

    def __call__(self, rows: Rows) -> Numbers:
        """Return logits, float64 (n, families), of rows, int64 (n, 4)."""
        first, *others = self.layers
        found = first(self.embedding[rows].reshape(len(rows), len(first.weights)))
        for layer in others:
            found = layer(np.maximum(found, 0.0))
        return found


def _linear(weights: Weights, name: str, most: float) -> Linear:
    return Linear.of(weights[f"{name}.weight"].T, weights[f"{name}.bias"], most=most)


def _most(values: npt.NDArray[np.float32]) -> float:
    return float(np.abs(values).max(initial=0.0))
