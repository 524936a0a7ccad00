"""Nearest vectors, by comparing with all or through an inverted file: all that is asked of faiss.

Searches take one thread and at most `MOST_QUERIES` vectors: threads wait for each other longer
than they work on so few, and with more faiss goes over to BLAS, which starts threads of its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import MissingDependencyError
from coin_protocol.quantise import SCALE_BYTES
from verifier_sdk.memory.vectors import Directions, Rows, directions

Positions = npt.NDArray[np.int64]

MOST_QUERIES: Final = 16

_CELLS: Final = 8
"""Cells that a search looks into, were the provider's vectors alone in the file.

Four find every near duplicate (cosine 0.995) of a million, eight the nearest, whatever it is,
four times in five (docs/decisions/0012).
"""

_CELLS_OF_ROOT: Final = 2.0
"""Cells for the square root of the vectors: fewer make searches slower, more make builds so."""

_SAMPLE: Final = 64
"""Vectors for each cell that k-means learns from, where there are so many."""

_ROUNDS: Final = 8
_SEED: Final = 1

_CHUNK: Final = 65_536
"""Vectors in float32 at a time, which bounds the memory that a build takes."""


class InvertedFile:
    """Vectors by the cell that they lie in, mapped into memory. Threads may share one."""

    def __init__(self, path: Path) -> None:
        """Map a file that `write_inverted_file` made; of other bytes faiss raises what it likes."""
        faiss = load_faiss()
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        # By default each search starts 32 threads to read ahead: three times slower from memory.
        faiss.downcast_InvertedLists(self._index.invlists).prefetch_nthread = 0

    def nearest(
        self, queries: Directions, count: int, span: tuple[int, int], effort: int
    ) -> tuple[Positions, bool]:
        """Return positions of likely nearest vectors, and whether there are no others.

        Args:
            queries: Float32 (n, dimension), of norm 1.
            count: Wanted for each.
            span: Only positions from the first to before the second count.
            effort: Each step looks into eight times as many cells.

        Returns:
            Int64 (n, count), -1 where fewer were found.
        """
        faiss, index = load_faiss(), self._index
        size = span[1] - span[0]
        # So that as many vectors are looked at as if the others had a file of their own.
        share = np.sqrt(index.ntotal / size)
        cells = min(index.nlist, int(np.ceil(_CELLS * share)) * 8**effort)
        within = faiss.IDSelectorRange(*span, True)  # noqa: FBT003 - sorted; no keywords there
        parameters = faiss.SearchParametersIVF(nprobe=cells, sel=within)
        with _threads(1):
            _, found = index.search(queries, min(count, size), params=parameters)
        return found, bool(cells == index.nlist and count >= size)


def nearest_of_all(queries: Directions, units: Directions, count: int) -> Positions:
    """Return which of `units`, float32 (m, dimension), are nearest, by comparing with each.

    Args:
        queries: Float32 (n, dimension), of norm 1.
        units: Float32 (m, dimension), of norm 1.
        count: Wanted for each.

    Returns:
        Int64 (n, at most count).
    """
    faiss = load_faiss()
    metric = faiss.METRIC_INNER_PRODUCT
    with _threads(1):
        _, found = faiss.knn(queries, units, min(count, len(units)), metric=metric)
    positions: Positions = found
    return positions


def write_inverted_file(
    path: Path, rows: Rows, positions: Positions, going_on: Callable[[], None]
) -> None:
    """Write an inverted file over rows at some positions, in rising order.

    Its codes have eight bits a number: they only choose what is compared exactly.

    Args:
        path: Where to.
        rows: Encoded vectors, uint8 (n, 4 + dimension).
        positions: Int64; which of them.
        going_on: Called now and then; what it raises ends the work.

    Raises:
        OSError: It cannot be written.
    """
    faiss = load_faiss()
    dimension = rows.shape[1] - SCALE_BYTES
    cells = int(_CELLS_OF_ROOT * np.sqrt(len(positions)))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimension),
        dimension,
        cells,
        faiss.ScalarQuantizer.QT_8bit_uniform,
        faiss.METRIC_INNER_PRODUCT,
        False,  # noqa: FBT003 - codes are not of what is left beside the cell's centre
    )
    index.cp.niter, index.cp.seed, index.cp.spherical = _ROUNDS, _SEED, True
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _SAMPLE
    sample = positions[:: max(1, len(positions) // (_SAMPLE * cells))]
    # Audits go on beside it.
    with _threads(max(1, (os.cpu_count() or 1) // 2)):
        index.train(directions(rows[sample]))
        for start in range(0, len(positions), _CHUNK):
            going_on()
            part = positions[start : start + _CHUNK]
            index.add_with_ids(directions(rows[part]), part)
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(errno.EIO, f"faiss could not write {path.name}") from error


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Have faiss take so many threads. It may share OpenMP with torch, which keeps its own."""
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def load_faiss() -> Any:  # noqa: ANN401 - its own type hints leave out much of what there is
    """Return the library.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        msg = "the memory needs faiss: install coin-audit[verifier]"
        raise MissingDependencyError(msg) from error
    return faiss
