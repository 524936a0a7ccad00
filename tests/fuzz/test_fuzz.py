"""The targets read their seeds, and bear mangled ones; the fuzzer finds out one that does not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coin_protocol.errors import CoinError
from tests.fuzz.targets import MAX_BYTES, TARGETS

SECONDS: Final = 10
SLOW: Final = frozenset({"bundle", "tokenizer"})

with_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None and not os.environ.get("CI"),
    reason="atheris is not installed: pip install 'coin-audit[dev]'",
)


@cache
def seeds(name: str) -> list[bytes]:
    return sorted(set(TARGETS[name].seeds()), key=len)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_begins_with_bytes_that_it_reads(name: str) -> None:
    read = 0
    for seed in seeds(name)[:40]:
        assert len(seed) <= MAX_BYTES or name == "table"
        try:
            TARGETS[name].run(seed)
        except CoinError:
            continue
        read += 1
    assert read


@pytest.mark.parametrize("name", TARGETS)
def test_no_mangled_bytes_do_more_than_be_refused(name: str) -> None:
    # Large ones are few, and say little more.
    known = seeds(name)[:40]

    @given(data=st.data())
    @settings(max_examples=max(1, settings().max_examples // (10 if name in SLOW else 2)))
    def mangle(data: st.DataObject) -> None:
        raw = data.draw(st.sampled_from(known))
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(raw)))
            end = data.draw(st.integers(at, min(len(raw), at + 40)))
            raw = raw[:at] + data.draw(st.binary(max_size=8)) + raw[end:]
        TARGETS[name](raw)

    mangle()


def test_a_target_that_is_not_known_is_an_error_that_names_those_there_are() -> None:
    done = fuzz("nothing")
    assert done.returncode == 2
    assert "stream" in done.stderr


@with_atheris
def test_all_targets_bear_a_short_run(tmp_path: Path) -> None:
    # The gate's run is the same each time: `make fuzz` searches on.
    options = ("--seconds", str(SECONDS), "--seed", "1", "--folder", str(tmp_path))
    done = fuzz("--mixed", *options, env={**os.environ, "PYTHONHASHSEED": "0"})
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "number_of_executed_units" in done.stderr


@with_atheris
def test_a_parser_that_breaks_is_found_and_its_input_kept(tmp_path: Path) -> None:
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "from coin_protocol import sse\n"
        "feed = sse.SseParser.feed\n"
        "def broken(self, chunk):\n"
        "    if chunk.startswith(b'data: B'):\n"
        "        raise IndexError\n"
        "    return feed(self, chunk)\n"
        "sse.SseParser.feed = broken\n"
    )
    folder = tmp_path / "found"
    (folder / "stream").mkdir(parents=True)
    (folder / "stream" / "found-before").write_bytes(b"data: B\n\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = fuzz("stream", "--seconds", "9", "--folder", str(folder), env=environment)
    assert done.returncode == 1
    assert "IndexError" in done.stdout + done.stderr
    (kept,) = folder.glob("broken-stream-*")
    assert kept.read_bytes().startswith(b"data: B")
    again = fuzz("stream", "--input", str(kept), env=environment)
    assert again.returncode == 1
    assert "IndexError" in again.stdout + again.stderr
    assert fuzz("stream", "--input", str(kept)).returncode == 0


def fuzz(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env=env,
        timeout=240,
        cwd=Path(__file__).parents[2],
    )
