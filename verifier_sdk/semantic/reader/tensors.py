"""Networks as flat tables of float16 arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Tensors = Mapping[str, npt.NDArray[np.generic]]

_WIDEST: Final = 1024
"""Greatest dimension of a network, its vocabulary aside: bounds what a file can ask for."""


def taken(tensors: Tensors, name: str) -> npt.NDArray[np.generic]:
    """Return a tensor by name.

    Raises:
        ValueError: There is none.
    """
    if name not in tensors:
        msg = f"no tensor {name!r}"
        raise ValueError(msg)
    return tensors[name]


def dimension(tensors: Tensors, name: str, axis: int) -> int:
    """Return the size of a tensor along an axis, 1 to 1,024.

    Raises:
        ValueError: There is no such tensor or axis, or it is larger.
    """
    shape = taken(tensors, name).shape
    if len(shape) <= axis or not 1 <= shape[axis] <= _WIDEST:
        msg = f"axis {axis} of {name} must lie in [1, {_WIDEST}]; found shape {shape}"
        raise ValueError(msg)
    return int(shape[axis])


def exported(prefix: str, net: nn.Module) -> dict[str, npt.NDArray[np.generic]]:
    """Return a network's parameters by prefixed name, float16."""
    return {
        prefix + name: value.detach().numpy().astype(np.float16)
        for name, value in net.state_dict().items()
    }


def parameters(net: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """Return a network's parameters by name, float32."""
    return {
        name: value.detach().numpy().astype(np.float32) for name, value in net.state_dict().items()
    }


def imported(prefix: str, net: nn.Module, tensors: Tensors) -> None:
    """Set a network's parameters.

    Raises:
        ValueError: Tensors are missing, left over, not finite or of other shapes or kinds.
    """
    wanted = net.state_dict()
    given = {name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}
    if given - wanted.keys():
        msg = f"no place for the tensors {sorted(prefix + name for name in given - wanted.keys())}"
        raise ValueError(msg)
    values = {}
    for name, parameter in wanted.items():
        value = taken(tensors, prefix + name)
        if value.shape != tuple(parameter.shape) or value.dtype != np.float16:
            msg = (
                f"{prefix}{name} must be float16 {tuple(parameter.shape)}; "
                f"found {value.dtype} {value.shape}"
            )
            raise ValueError(msg)
        wide = value.astype(np.float32)
        if not np.isfinite(wide).all():
            msg = f"{prefix}{name} holds numbers that are not finite"
            raise ValueError(msg)
        values[name] = torch.from_numpy(wide)
    net.load_state_dict(values)
