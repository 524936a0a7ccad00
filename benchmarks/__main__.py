"""Run all benchmarks, or those named, each in a process of its own.

python -m benchmarks [NAME …]

Those that take long run only where they are named: ablations, faults, node_crashes, replays, soak,
windows, worker_scaling.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LONG = ("ablations", "faults", "node_crashes", "replays", "soak", "windows", "worker_scaling")


def main() -> int:
    """Run them in turn; return 1 if one broke."""
    here = Path(__file__).parent
    known = sorted(path.stem for path in here.glob("*.py") if not path.stem.startswith("_"))
    wanted = sys.argv[1:] or [name for name in known if name not in LONG]
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        sys.stderr.write(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}\n")
        return 2
    broken = [name for name in wanted if _run(name, here.parent)]
    for name in broken:
        sys.stderr.write(f"benchmark {name} broke\n")
    return 1 if broken else 0


def _run(name: str, folder: Path) -> int:
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    return subprocess.run(command, check=False, cwd=folder).returncode  # noqa: S603 - our own


if __name__ == "__main__":
    sys.exit(main())
