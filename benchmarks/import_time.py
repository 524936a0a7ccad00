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
    for name, code, limit in (
        ("coin_protocol", "import numpy, coin_protocol", 150),
        # Public names are loaded when first used; this is what all of them cost.
        ("every_public_name", "import numpy; from coin_protocol import *", None),
    ):
        _seconds(code)  # writes the bytecode caches
        extra = [_seconds(code) - _seconds("import numpy") for _ in range(_PAIRS)]
        value = median(extra) * 1e3
        report(f"import_time.{name}", value, unit="ms", better="lower", limit=limit)


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own interpreter
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
