"""Commands that prepare a machine: keys and the token table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from coin_protocol.cli.common import (
    OUT,
    JsonOption,
    ProfileOption,
    load_profile,
    print_json,
    table_models,
)
from coin_protocol.errors import ConfigurationError
from coin_protocol.keys import ECDSA_P256, ED25519, ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, sign_key_set
from coin_protocol.signer import KeySigner, public_pem, write_private_key
from coin_protocol.table import table_path


class Algorithm(StrEnum):
    """Signature algorithms by their command-line names."""

    ED25519 = "ed25519"
    ECDSA_P256 = "ecdsa-p256"


class Role(StrEnum):
    """Whose keys to make."""

    PROVIDER = "provider"
    VERIFIER = "verifier"


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(keygen)
    table = typer.Typer(help="The token table of a profile.", no_args_is_help=True)
    table.command("build")(table_build)
    table.callback()(_group)
    app.add_typer(table, name="table")


def _group() -> None:
    pass


def keygen(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if missing.")],
    name: Annotated[str, typer.Option(help="Name of the provider or verifier.")],
    role: Annotated[Role, typer.Option(help="Whose keys.")] = Role.PROVIDER,
    algorithm: Annotated[Algorithm, typer.Option()] = Algorithm.ED25519,
    days: Annotated[
        int, typer.Option(help="Validity of the signing key.", min=1, max=36_500)
    ] = 365,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make keys: a signing key and, for a provider, a root key and the key set it signs.

    Private keys are PKCS#8 PEM, readable by you alone. Keep root.pem offline.
    """
    key, files = make_keys(folder, name, role, algorithm, days)
    if as_json:
        document = {"name": name, "keyid": key.public.keyid, "files": [str(f) for f in files]}
        print_json(document)
        return
    OUT.print(f"key id {key.public.keyid}", soft_wrap=True)
    for path in files:
        OUT.print(str(path), soft_wrap=True, markup=False)


def make_keys(
    folder: Path,
    name: str,
    role: Role,
    algorithm: Algorithm = Algorithm.ED25519,
    days: int = 365,
) -> tuple[KeySigner, list[Path]]:
    """Write new keys to `folder`; return the signing key and the files.

    Raises:
        ConfigurationError: A file exists already or cannot be written.
    """
    kind = ED25519 if algorithm is Algorithm.ED25519 else ECDSA_P256
    names = ["key.pem", "key.pub.pem"]
    if role is Role.PROVIDER:
        names += ["root.pem", "root.pub.pem", "keyset.binpb"]
    files = [folder / name for name in names]
    for path in files:
        if path.exists():
            msg = f"{path} exists; keys are never overwritten, move them away first"
            raise ConfigurationError(msg)
    key = KeySigner.generate(name, kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_private_key(files[0], key)
        files[1].write_bytes(public_pem(key.public))
        if role is Role.PROVIDER:
            root = KeySigner.generate(ROOT_KEY_NAME, kind)
            now = datetime.now(UTC).replace(microsecond=0)
            listed = ListedKey(key.public, now, now + timedelta(days=days))
            key_set = sign_key_set(name, [listed], root=root, issued_at=now, sequence=1)
            write_private_key(files[2], root)
            files[3].write_bytes(public_pem(root.public))
            files[4].write_bytes(key_set.SerializeToString())
    except OSError as error:
        msg = f"cannot write keys to {folder}: {error.strerror}"
        raise ConfigurationError(msg) from error
    return key, files


def table_build(profile: ProfileOption = "default", *, as_json: JsonOption = False) -> None:
    """Build a profile's token table, or check the one that is cached."""
    loaded = load_profile(profile)
    with table_models(loaded) as models:
        table = models.table
    path = table_path(loaded.message)
    if as_json:
        print_json({"path": str(path), "rows": len(table), "root": table.root.hex()})
        return
    OUT.print(f"{len(table)} rows, root {table.root.hex()}", soft_wrap=True)
    OUT.print(str(path), soft_wrap=True, markup=False)
