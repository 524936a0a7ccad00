"""Which test fails without which defence: `docs/defences.md` is written from here.

`python -m tests.support.defences` writes the page; with `--check` it writes nothing, and exits with
1 where the page is another. Checks, mutations, vectors, liars, limits and caps are read from where
they stand.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Final

from coin_protocol import limits
from coin_protocol.checks import CHECKS
from coin_protocol.profile import Profile
from coin_protocol.testing.adversaries import ALL_ADVERSARIES, Adversary
from coin_protocol.testing.mutations import mutations_of
from tests.support.limit_cases import CAPS, CASES, ELSEWHERE, MADE
from tests.support.threats import CAP, CODES, LIFTED, ROOT, RUN, SHORT, TRIPS, rows

PAGE: Final = ROOT / "docs" / "defences.md"


@cache
def vectors() -> dict[str, tuple[str, ...]]:
    """Return the vectors that trip each check: folder and name."""
    found: dict[str, list[str]] = {code: [] for code in CODES}
    for folder in ("evidence", "bundles"):
        held = files("coin_protocol").joinpath("testing", "vectors", folder)
        for path in sorted(held.iterdir(), key=lambda path: path.name):
            expected = json.loads(path.read_bytes())["expect"]
            code = expected.get("failed") or (expected.get("value") or {}).get("failed")
            if code:
                found[code].append(f"{folder}/{path.name.removesuffix('.json')}")
    return {code: tuple(names) for code, names in found.items()}


def liars(code: str) -> tuple[Adversary, ...]:
    """Return the lying providers that a check catches, alone or before another."""
    return tuple(liar for liar in ALL_ADVERSARIES if code in liar.codes)


def cases(limit: str) -> tuple[str, ...]:
    """Return the cases of a limit, by their ids as tests."""
    found = [case.name for case in CASES if case.limit == limit]
    return (*found, *(case.name for case in MADE if case.limit == limit))


@cache
def held_in(path: str) -> frozenset[str]:
    """Return the tests in a file."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
    )


@cache
def reasons() -> dict[str, str]:
    """Return why each limit is what it is, in the words under it."""
    body = ast.parse(Path(str(limits.__file__)).read_text()).body
    found = {}
    for node, after in pairwise(body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[node.target.id] = " ".join(str(after.value.value).split())
    return found


# The page


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for line in lines:
        yield f"| {' | '.join(line)} |"


def _names(found: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in found)


def called(test: str) -> str:
    """Return what the page calls a test."""
    name, bracket, parameter = test.partition("[")
    short = next((short for short, known in SHORT.items() if known == name), name)
    return short + bracket + parameter


def _tests(found: Iterable[str]) -> str:
    return _names(map(called, found))


def _legend() -> Iterator[str]:
    yield from _table(
        ("name", "test"), ((f"`{name}`", f"`{test}`") for name, test in SHORT.items())
    )


def of_check(code: str) -> tuple[str, ...]:
    """Return the tests of a check: the first fails without it, the second shows so."""
    return f"{TRIPS}[{code}]", f"{LIFTED}[{code}]"


def _checks() -> Iterator[str]:
    held = vectors()
    yield from _table(
        ("code", "what holds where it passes", "mutations", "vectors", "liars", "tests"),
        (
            (
                f"[`{check.code}`](#{check.code.lower()})",
                check.claim,
                str(len(mutations_of(check.code))),
                str(len(held[check.code])),
                str(len(liars(check.code))),
                _tests(of_check(check.code)),
            )
            for check in CHECKS
        ),
    )


def _of_checks() -> Iterator[str]:
    for code in CODES:
        yield f"### {code}"
        yield ""
        yield f"* mutations: {_names(found.name for found in mutations_of(code))}"
        yield f"* vectors: {_names(vectors()[code])}"
        yield f"* liars: {_names(liar.name for liar in liars(code))}"
        yield ""


def _threats() -> Iterator[str]:
    yield from _table(
        ("who", "threat", "stopped by", "mounted by", "tests", "with the defence taken away"),
        (
            (
                row.who,
                row.lie,
                row.stopped.replace("](#", "](protocol.md#"),
                ", ".join(row.threatened.mounted),
                _tests(row.threatened.tests),
                _tests(row.threatened.without) or "none of its own",
            )
            for row in rows()
        ),
    )


def _limits() -> Iterator[str]:
    yield from _table(
        ("limit", "value", "why", "cases", "also held by"),
        (
            (
                f"`{name}`",
                f"{getattr(limits, name):,}",
                reason,
                _names(case.removeprefix(f"{name}-") for case in cases(name)),
                _names(test for (_, limit), test in ELSEWHERE.items() if limit == name),
            )
            for name, reason in reasons().items()
        ),
    )


def _caps() -> Iterator[str]:
    agreed = Profile.shipped("default").message.caps
    lines = [
        (
            f"`{case.cap}`",
            f"{getattr(agreed, case.cap):,}",
            case.what,
            _tests([f"{CAP}[{case.cap}]"]),
        )
        for case in CAPS
    ]
    runs = "consecutive tokens that are drawn together"
    lines.append(("`run_tokens`", f"{agreed.run_tokens:,}", runs, _tests([RUN])))
    yield from _table(("cap", "in the profile that ships", "of what", "fails without it"), lines)


TEXT: Final = """\
# Defences, and the tests that fail without them

Written by `python -m tests.support.defences` from checks, mutations, vectors, liars and limits as
they stand in the code. `tests/unit/test_defences.py` fails where this page is another; where a
check has fewer than three mutations or vectors, or no liar; where a threat has nobody who tries it,
or no test; where a limit has no case; and where a test that is named here does not exist.
[Threats](threats.md) has those against the programs.

Tests that are named often have short names here, and their parameter in brackets:

{legend}

## Checks

A mutation breaks one thing of an honest audit, and the check must be the first to fail: `trips`
fails where the check is gone. That no other check does its work is what `without` shows: it takes
each out of the table in turn, and says what then passes, or which later checks catch it. Of
`SIGNATURE` alone nothing passes, as every later statement's signature is asked for again. `vectors`
runs the vectors, `bundles` those that are whole bundles, and `liars` the liars, over gRPC.
[Below](#mutations-vectors-and-liars-by-check) all have their names.

{checks}

## Threats

The rows of the [protocol's section 1](protocol.md#1-parties-and-threats). Some have no defence that
could be taken away alone: what is graded is weighed by a judge who may be wrong
([measured](detection.md)), evidence takes two parties who compare, and a verdict is decided again
as a whole.

{threats}

## Limits

A limit is a number of `coin_protocol/limits.py`, in every module that imports it, or an exposure
cap of the profile (protocol, section 3). Other numbers bound one program's own resources; they
stand beside their use, with their tests.

A case is one thing that one module reads, and, after the limit's name and a dash, a parameter of
`past`: what is one past the limit is refused in a sentence. Two tests beside it run each case, too:
what is at the limit is taken; and with the limit lifted in that module alone, what was refused is
taken, or meets the next refusal, which the case names. So `past` would fail without the limit.
Where the true limit takes much memory or time, the module is given a smaller one. Salts are made
and not read alone: `made` shows that another size gives others than the protocol's. In the modules
of the last column the test that stands there holds the limit.
`tests/support/limit_cases/elsewhere.py` says where else a limit is imported, and why nothing from
outside is read there.

{limits}

### Exposure caps

Parts are of a million. A provider under the cap opens as much and refuses one more, and opens that,
too, under a profile that keeps nothing back.

{caps}

## Mutations, vectors and liars, by check

{of_checks}
"""


def page() -> str:
    """Return the page."""
    made = {
        name: "\n".join(lines()).rstrip()
        for name, lines in (
            ("legend", _legend),
            ("checks", _checks),
            ("threats", _threats),
            ("limits", _limits),
            ("caps", _caps),
            ("of_checks", _of_checks),
        )
    }
    return TEXT.format(**made)


@cache
def named() -> frozenset[str]:
    """Return every test that the page names, in full, with its parameter if it says one."""
    found = {*SHORT.values(), *ELSEWHERE.values(), RUN}
    for code in CODES:
        found.update(of_check(code))
    for row in rows():
        found.update(row.threatened.tests, row.threatened.without)
    return frozenset(found | {f"{CAP}[{case.cap}]" for case in CAPS})


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the page; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.defences", description="Write docs/defences.md."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; say if it differs")
    check: bool = parser.parse_args(arguments).check
    wanted = page()
    if PAGE.exists() and PAGE.read_text() == wanted:
        return 0
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}: {'differs' if check else 'written'}\n")
    if not check:
        PAGE.write_text(wanted)
    return int(check)


if __name__ == "__main__":
    sys.exit(main())
