"""`import coin_protocol` costs little more than the interpreter and numpy."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from benchmarks._common import report

_PAIRS = 15


def main() -> None:
    """Start fresh interpreters in turns; take the median of the differences."""
    _seconds("import numpy, coin_protocol")  # writes the bytecode caches
    extra = [
        _seconds("import numpy, coin_protocol") - _seconds("import numpy") for _ in range(_PAIRS)
    ]
    report("import_time.coin_protocol", median(extra) * 1e3, unit="ms", better="lower", limit=150)


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own interpreter
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
