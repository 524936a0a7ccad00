"""`coin attack`: what a cheating provider would commit to, made visible."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from coin_protocol.cli.common import (
    ERR,
    OUT,
    JsonOption,
    ProfileOption,
    load_profile,
    print_json,
    printable,
    printable_lines,
    quiet_models,
)
from coin_protocol.errors import InvalidInputError
from coin_protocol.profile import Profile
from coin_protocol.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from verifier_sdk.lab import Attacked, Library, Trace

INJECTED: Final = "reverse yellow"
"""How injected text looks; reverse also where colours are off."""


class Run(NamedTuple):
    """A longest run of ids that were all injected, or all were not."""

    start: int
    end: int
    injected: bool
    text: str


def attack(  # noqa: PLR0913 - the options of a command
    name: Annotated[str | None, typer.Argument(help="One of those that --list names.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Traces as JSON Lines; gzipped if it ends in .gz.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(help="Id of a trace in the file; by default the first.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Injected tokens for each original one.")] = 1.0,
    placement: Annotated[
        str, typer.Option(help="Where they go: appended, interleaved or scattered.")
    ] = "appended",
    seed: Annotated[int, typer.Option(help="Another seed gives other filler.", min=0)] = 0,
    block_size: Annotated[
        int | None, typer.Option(help="Tokens in a block; by default the profile's.", min=1)
    ] = None,
    profile: ProfileOption = "default",
    *,
    list_attacks: Annotated[bool, typer.Option("--list", help="List the attacks.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Apply an attack to a trace and mark the tokens that the model never produced.

    Marks are for the eye: piped, the text stands alone, and --json has spans of ids.
    """
    if list_attacks:
        _list(as_json=as_json)
        return
    if name is None or data is None:
        msg = "wanted an attack and --data FILE; `coin attack --list` names the attacks"
        raise InvalidInputError(msg)
    from verifier_sdk.lab import Material, apply_attack, family_of, named_attack

    found = named_attack(name)
    chosen = load_profile(profile)
    with ERR.status(f"applying {name}"):
        library = _library(data, chosen)
        target = _target(library.traces, trace)
        material = Material(target, library.ids(target), library.tokenizer, library, seed)
        size = block_size or chosen.message.block_size
        attacked = apply_attack(name, material, rate=rate, placement=placement, block_size=size)
    runs = list(_runs(library.tokenizer, attacked))
    document = {
        "attack": name,
        "family": family_of(found, placement),
        "trace": target.id,
        "rate": rate,
        "placement": placement,
        "tokens": len(attacked.ids),
        "injected": int(attacked.injected.sum()),
        "share": attacked.share,
    }
    if as_json:
        spans = [[run.start, run.end] for run in runs if run.injected]
        text = "".join(run.text for run in runs)
        print_json(document | {"ids": attacked.ids.tolist(), "spans": spans, "text": text})
    else:
        _show(runs)
        _say(
            "{attack} (family {family}), {placement} at rate {rate:g}: {injected} of {tokens} "
            "tokens were injected into {trace} ({share:.1%})".format_map(document)
        )


def _list(*, as_json: bool) -> None:
    from rich import box
    from rich.table import Table

    from verifier_sdk.lab import ATTACKS

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("attack", no_wrap=True)
    table.add_column("family", no_wrap=True)
    table.add_column("what is committed")
    for found in sorted(ATTACKS.values(), key=lambda found: (found.family, found.name)):
        table.add_row(found.name, found.family, found.summary)
        if as_json:
            print_json(
                {
                    "attack": found.name,
                    "family": found.family,
                    "placements": list(found.placements),
                    "summary": found.summary,
                }
            )
    if not as_json:
        OUT.print(table)


def _library(data: Path, profile: Profile) -> Library:
    """Return a file's traces, beside the models of a profile; the larger one loads if used."""
    quiet_models()
    import numpy as np

    from coin_protocol.embedding import embed_texts
    from coin_protocol.models import Models
    from verifier_sdk.lab import Library, read_traces

    models = Models(profile)

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return embed_texts(models.embedder, texts).astype(np.float32)

    return Library(read_traces([data]), models.tokenizer, embed)


def _target(traces: Sequence[Trace], wanted: str | None) -> Trace:
    for trace in traces:
        if wanted in {None, trace.id}:
            return trace
    msg = f"no trace {wanted!r} in the file; its first is {traces[0].id!r}"
    raise InvalidInputError(msg)


def _runs(tokenizer: Tokenizer, attacked: Attacked) -> Iterator[Run]:
    """Yield the runs of what is committed; a character cut by an edge goes to the later one."""
    import numpy as np

    # Unlike `text_of` for each run, one decoder sees characters that two runs share.
    decoder = getincrementaldecoder("utf-8")(errors="replace")
    edges = np.flatnonzero(np.diff(attacked.injected)) + 1
    starts, ends = [0, *edges.tolist()], [*edges.tolist(), len(attacked.ids)]
    for start, end in zip(starts, ends, strict=True):
        raw = b"".join(map(tokenizer.token_bytes, attacked.ids[start:end].tolist()))
        text = decoder.decode(raw, final=end == len(attacked.ids))
        yield Run(start, end, bool(attacked.injected[start]), text)


def _show(runs: Sequence[Run]) -> None:
    from rich.text import Text

    marked = Text()
    for run in runs:
        marked.append(printable_lines(run.text), INJECTED if run.injected else "")
    OUT.print(marked, soft_wrap=True)


def _say(sentence: str) -> None:
    ERR.print(printable(sentence), markup=False, highlight=False, soft_wrap=True)
