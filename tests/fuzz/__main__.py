"""Fuzz with atheris: `python -m tests.fuzz [NAME …] [--seconds N]`.

Each target runs in a process of its own, one after another, for so many seconds. What is new is
kept beside the seeds, so that the next run goes on from there; an input that breaks a target is
written to a file that the last lines name, and `python -m tests.fuzz NAME --input FILE` runs it
again. With `--mixed`, one process runs all named targets: the first byte of an input says which.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from coin_protocol.files import cache_folder, make_folder

_INPUT_SECONDS: Final = 20
_MEMORY_MIB: Final = 4096
_MIXED_SEEDS: Final = 8
"""Of each target, the smallest, where one process runs all."""


def main(arguments: Sequence[str]) -> int:
    """Run targets; return 1 if one broke, 2 if one is not known."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all")
    parser.add_argument("--seconds", type=int, default=60, help="for each process; default 60")
    parser.add_argument("--seed", type=int, default=0, help="of its choices; by default of chance")
    parser.add_argument("--mixed", action="store_true", help="all targets in one process")
    parser.add_argument("--folder", type=Path, default=None, help="for what is found")
    parser.add_argument("--input", type=Path, default=None, help="run one input, and nothing else")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.inside:
        return _inside(given.names, given.folder, given.seconds, given.seed)
    from tests.fuzz.targets import TARGETS

    names: list[str] = given.names or sorted(TARGETS)
    unknown = sorted(set(names) - set(TARGETS))
    if unknown:
        sys.stderr.write(
            f"no target {', '.join(unknown)}; there are {', '.join(sorted(TARGETS))}\n"
        )
        return 2
    if given.input is not None:
        for name in names:
            TARGETS[name](given.input.read_bytes())
        return 0
    folder: Path = given.folder or cache_folder() / "fuzz"
    broken = []
    for group in [names] if given.mixed else [[name] for name in names]:
        sys.stderr.write(f"fuzzing {', '.join(group)} for {given.seconds} s\n")
        if _outside(group, folder, given.seconds, given.seed) != 0:
            broken += group
    if broken:
        sys.stderr.write(f"broken: {', '.join(broken)}; inputs are in {folder}\n")
    return 1 if broken else 0


def _outside(names: Sequence[str], folder: Path, seconds: int, seed: int) -> int:
    command = [
        *(sys.executable, "-m", "tests.fuzz", "--inside", "--folder", str(folder)),
        *("--seconds", str(seconds), "--seed", str(seed), *names),
    ]
    return subprocess.run(command, check=False).returncode


def _inside(names: Sequence[str], folder: Path, seconds: int, chance: int) -> int:
    """Fuzz in this process, which ends by itself."""
    import atheris

    with atheris.instrument_imports(include=["coin_protocol", "verifier_sdk", "provider_sdk"]):
        from tests.fuzz.targets import MAX_BYTES, TARGETS

    chosen = [TARGETS[name] for name in names]
    several = len(chosen) > 1
    corpus = folder / "-".join(names if not several else ["mixed", str(len(names))])
    make_folder(corpus)
    for number, target in enumerate(chosen):
        seeds = sorted(set(target.seeds()), key=len)
        for seed in seeds[:_MIXED_SEEDS] if several else seeds:
            raw = bytes((number,)) + seed if several else seed
            (corpus / sha256(raw).hexdigest()).write_bytes(raw)

    def run(raw: bytes) -> None:
        if not several:
            chosen[0](raw)
        elif raw:
            chosen[raw[0] % len(chosen)](raw[1:])

    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            f"-seed={chance}",
            f"-timeout={_INPUT_SECONDS}",
            f"-rss_limit_mb={_MEMORY_MIB}",
            f"-max_len={MAX_BYTES}",
            f"-artifact_prefix={folder}/broken-{names[0] if not several else 'mixed'}-",
            "-print_final_stats=1",
            str(corpus),
        ],
        run,
    )
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
