"""Commands for profiles, and for the tokenizer files that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from coin_protocol.cli.common import (
    OUT,
    JsonOption,
    as_document,
    load_profile,
    print_json,
    show_named,
    table_models,
)
from coin_protocol.files import replace_file
from coin_protocol.models import keep_tokenizer
from coin_protocol.profile import Profile
from coin_protocol.table import make_table
from coin_protocol.v1 import profile_pb2

_MILLION: Final = 1_000_000

TokenizerFile = Annotated[Path, typer.Argument(help="tokenizer.json, or a tekken file.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    profile = typer.Typer(help="What commitments are made of.", no_args_is_help=True)
    profile.command("show")(profile_show)
    profile.command("make")(profile_make)
    app.add_typer(profile, name="profile")
    tokenizer = typer.Typer(help="Tokenizer files of models.", no_args_is_help=True)
    tokenizer.command("add")(tokenizer_add)
    tokenizer.callback()(_group)
    app.add_typer(tokenizer, name="tokenizer")


def _group() -> None:
    pass


def profile_show(
    name: Annotated[str, typer.Argument(help="File, or one that ships: default, demo.")] = (
        "default"
    ),
    *,
    as_json: JsonOption = False,
) -> None:
    """Show a profile and the digest that names it."""
    loaded = load_profile(name)
    show_named(loaded.digest, as_document(loaded.message), as_json=as_json)


def profile_make(
    tokenizer: TokenizerFile,
    name: Annotated[str, typer.Option(help="Of profile and tokenizer, such as qwen3.")],
    out: Annotated[Path, typer.Option(help="Where to write the profile.")],
    base: Annotated[
        str, typer.Option("--from", help="Profile file, or one that ships, for all the rest.")
    ] = "default",
    block_size: Annotated[
        int | None, typer.Option(help="Tokens in a block; by default as in --from.")
    ] = None,
    whole_blocks: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of blocks that may be opened whole; by default as in --from."
        ),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make the profile of another model: of its tokenizer, whose file is kept as `add` does.

    Embeds the whole vocabulary, once: some minutes for 150,000 ids. Give the profile and the
    tokenizer file to whoever audits you.
    """
    message = profile_pb2.Profile()
    message.CopyFrom(load_profile(base).message)
    message.name = name
    if block_size is not None:
        message.block_size = block_size
    if whole_blocks is not None:
        message.caps.whole_blocks_ppm = round(whole_blocks * _MILLION)
    read, _ = keep_tokenizer(tokenizer)
    spec = message.tokenizer
    spec.name, spec.sha256, spec.vocabulary_size = name, read.sha256, read.vocabulary_size
    # What is out of its limits is said before minutes of work, not after.
    with table_models(Profile.from_bytes(message.SerializeToString())) as models:
        table = make_table(message, read, models.embedder, progress=models.progress)
    spec.token_table_root = table.root
    made = Profile.from_bytes(message.SerializeToString())
    replace_file(out, made.raw)
    show_named(made.digest, as_document(made.message), as_json=as_json)


def tokenizer_add(file: TokenizerFile, *, as_json: JsonOption = False) -> None:
    """Keep a tokenizer file where every command finds it by the digest in a profile."""
    tokenizer, path = keep_tokenizer(file)
    document = {
        "sha256": tokenizer.sha256.hex(),
        "vocabulary_size": tokenizer.vocabulary_size,
        "path": str(path),
    }
    if as_json:
        print_json(document)
        return
    OUT.print(
        "{vocabulary_size} ids, SHA-256 {sha256}\n{path}".format_map(document),
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
