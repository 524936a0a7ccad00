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
    """A layer norm.

    Attributes:
        gain: What each number is multiplied by.
        shift: What is added to it.
        bits: States are summed in multiples of 2^-bits, their squares in multiples of 2^-squares.
        squares: See above.
    """

    gain: Numbers
    shift: Numbers
    bits: int
    squares: int

    @classmethod
    def of(cls, weights: Weights, name: str, *, most: float) -> _Norm:
        """Take a layer norm of states of magnitude up to `most`."""
        gain = weights[f"{name}.weight"].astype(np.float64)
        shift = weights[f"{name}.bias"].astype(np.float64)
        bits = exact.bits_for(most, len(gain))
        return cls(gain, shift, bits, exact.bits_for(4.0 * most * most, len(gain)))

    @property
    def most(self) -> float:
        """Greatest magnitude of an output: no number is further from the mean of n than sqrt(n)."""
        width = len(self.gain)
        return sqrt(width) * float(np.abs(self.gain).max()) + float(np.abs(self.shift).max())

    def __call__(self, states: Numbers) -> Numbers:
        width = len(self.gain)
        found = states - (exact.row_totals(states, self.bits) / width)[:, None]
        spread = exact.row_totals(found * found, self.squares) / width
        found *= (1.0 / np.sqrt(spread + _EPSILON))[:, None]
        found *= self.gain
        found += self.shift
        return found


@dataclass(frozen=True)
class _Layer:
    """Adds what stands `dilation` places before, here and after.

    Attributes:
        norm: Of the states.
        taps: For each of the three, whole numbers: multiples of 2^-bits.
        bias: Added to all places.
        bits: What the taps read is rounded to multiples of 2^-bits, too.
        dilation: Places.
        most: Greatest magnitude of the states that come out.
    """

    norm: _Norm
    taps: tuple[Numbers, ...]
    bias: Numbers
    bits: int
    dilation: int
    most: float

    @classmethod
    def of(cls, weights: Weights, name: str, dilation: int, *, most: float) -> _Layer:
        """Take a layer that reads states of magnitude up to `most`."""
        norm = _Norm.of(weights, f"{name}.norm", most=most)
        kernel = weights[f"{name}.mix.weight"]
        taps = [kernel[:, :, 0, tap].T for tap in range(kernel.shape[3])]
        mix = Linear.of(np.concatenate(taps), weights[f"{name}.mix.bias"], most=norm.most)
        whole = np.split(mix.weights * 2.0**mix.bits, len(taps))
        return cls(norm, tuple(whole), mix.bias, mix.bits, dilation, most + mix.most)

    def __call__(self, states: Numbers) -> Numbers:
        seen = self.norm(states)
        np.maximum(seen, 0.0, out=seen)
        seen *= 2.0**self.bits
        np.rint(seen, out=seen)
        before, here, after = self.taps
        found = exact.times(seen, here)
        kept = len(seen) - self.dilation
        if kept > 0:
            found[self.dilation :] += exact.times(seen[:kept], before)
            found[:kept] += exact.times(seen[self.dilation :], after)
        found *= 2.0 ** (-2 * self.bits)
        found += self.bias
        found += states
        return found


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
        # Beside the embedding it reads marks of 0 or 1.
        project = _linear(weights, "project", max(_most(weights["embedding.weight"]), 1.0))
        layers: list[_Layer] = []
        most = project.most
        for number, dilation in enumerate(dilations):
            layers.append(_Layer.of(weights, f"layers.{number}", dilation, most=most))
            most = layers[-1].most
        norm = _Norm.of(weights, "norm", most=most)
        summary = _linear(weights, "summary", norm.most)
        return cls(
            embedding=weights["embedding.weight"],
            project=project,
            layers=tuple(layers),
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
