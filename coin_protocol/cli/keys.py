"""`coin keys`: make, rotate, revoke and show keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.table import Column, Table

from coin_protocol import root_certificate
from coin_protocol.cli.common import OUT, JsonOption, print_json, printable
from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.key_keeper import (
    KeyKeeper,
    NewKey,
    Root,
    make_verifier_key,
    require_certificate,
)
from coin_protocol.keys import ECDSA_P256, ED25519, KeyRing, ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME
from coin_protocol.signer import Signer, signer_from_uri
from coin_protocol.v1 import keys_pb2

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DAY: Final = timedelta(days=1)


class Algorithm(StrEnum):
    """Signature algorithms by their command-line names."""

    ED25519 = "ed25519"
    ECDSA_P256 = "ecdsa-p256"

    @property
    def number(self) -> keys_pb2.KeyAlgorithm.ValueType:
        """As key sets have it."""
        return ED25519 if self is Algorithm.ED25519 else ECDSA_P256


class Role(StrEnum):
    """Whose keys to make."""

    PROVIDER = "provider"
    VERIFIER = "verifier"


FolderArgument = Annotated[Path, typer.Argument(help="Folder that `coin keys init` made.")]
AlgorithmOption = Annotated[Algorithm, typer.Option(help="Of the keys that are made.")]
DaysOption = Annotated[
    int, typer.Option(help="Validity of the new signing key.", min=1, max=36_500)
]
RootKeyOption = Annotated[
    str | None,
    typer.Option(help="Where the root key is: file:PATH, pkcs11:…; by default FOLDER/root.pem."),
]
RootChainOption = Annotated[
    Path | None,
    typer.Option(
        help="Certificates (PEM, leaf first) of the root key for the provider's domain.",
        exists=True,
    ),
]
SigningKeyOption = Annotated[
    str | None, typer.Option(help="A signing key that exists already: pkcs11:… or another URI.")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(help="Keys that sign, and the key set.", no_args_is_help=True)
    group.command()(init)
    group.command()(rotate)
    group.command()(revoke)
    group.command()(sign)
    group.command()(show)
    app.add_typer(group, name="keys")


def init(  # noqa: PLR0913 - the options of a command
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if missing.")],
    name: Annotated[str, typer.Option(help="Name of the provider or verifier.")],
    role: Annotated[Role, typer.Option(help="Whose keys.")] = Role.PROVIDER,
    algorithm: AlgorithmOption = Algorithm.ED25519,
    days: DaysOption = 365,
    root_key: RootKeyOption = None,
    root_chain: RootChainOption = None,
    signing_key: SigningKeyOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make keys: a signing key and, for a provider, a root key and the key set it signs.

    Private keys are PKCS#8 PEM, readable by you alone, and never overwritten. Keep root.pem
    offline: only rotate, revoke and sign need it.
    """
    key = NewKey(timedelta(days=days), algorithm.number, signing_key)
    if role is Role.VERIFIER:
        if root_key or root_chain or signing_key:
            msg = "a verifier has one key, which is pinned: no root and no key set"
            raise InvalidInputError(msg)
        signer, files = make_verifier_key(folder, name, key)
        keyid = signer.public.keyid
    else:
        files = KeyKeeper(folder).init(name, key, _given_root(root_key, root_chain))
        keyid = KeyKeeper(folder).read()[1].keys[0].key.keyid
    if as_json:
        print_json({"name": name, "keyid": keyid, "files": [str(path) for path in files]})
        return
    OUT.print(f"key id {keyid}", soft_wrap=True)
    for path in files:
        OUT.print(str(path), soft_wrap=True, markup=False)


def rotate(
    folder: FolderArgument,
    overlap: Annotated[
        str, typer.Option(help="How long the keys in use stay valid: 90m, 24h, 7d.")
    ] = "24h",
    days: DaysOption = 365,
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="Of the new key; by default that of the newest.")
    ] = None,
    root_key: RootKeyOption = None,
    root_chain: RootChainOption = None,
    signing_key: SigningKeyOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Add a signing key, valid from now, and sign the key set again.

    Whatever signs with this folder takes the new key within a second, without a restart.
    """
    keys = KeyKeeper(folder)
    lasts = _duration(overlap)
    ring = keys.read()[1]
    if algorithm is None and ring.keys:
        kind = max(ring.keys, key=lambda listed: listed.not_before).key.algorithm
    else:
        kind = (algorithm or Algorithm.ED25519).number
    root = keys.root(root_key, _chain(root_chain))
    added = keys.rotate(NewKey(timedelta(days=days), kind, signing_key), lasts, root)
    _report(keys, as_json=as_json, said=f"key {added.key.keyid} signs from now on")


def revoke(
    folder: FolderArgument,
    keyid: Annotated[str, typer.Argument(help="Key id, or its first eight digits or more.")],
    at: Annotated[
        datetime | None,
        typer.Option(
            help="Signatures from then on do not count (UTC); by default now.",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
        ),
    ] = None,
    root_key: RootKeyOption = None,
    root_chain: RootChainOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Date the revocation of a signing key, and sign the key set again.

    Rotate first: a key is not revoked while no other could sign.
    """
    keys = KeyKeeper(folder)
    keys.read()
    root = keys.root(root_key, _chain(root_chain))
    if at is not None and at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    revoked = keys.revoke(keyid, at, root)
    when = revoked.end.isoformat()
    _report(keys, as_json=as_json, said=f"key {revoked.key.keyid} is revoked from {when}")


def sign(
    folder: FolderArgument,
    root_key: RootKeyOption = None,
    root_chain: RootChainOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Sign the key set again as it is, as after renewing the root's certificate."""
    keys = KeyKeeper(folder)
    keys.read()
    keys.sign_again(keys.root(root_key, _chain(root_chain)))
    _report(keys, as_json=as_json, said="signed again")


def show(folder: FolderArgument, *, as_json: JsonOption = False) -> None:
    """Show the key set: keys, windows, revocations, and how many days are left."""
    _report(KeyKeeper(folder), as_json=as_json)


def make_keys(folder: Path, name: str, role: Role) -> tuple[Signer, list[Path]]:
    """Write new Ed25519 keys, valid for a year; return the signing key and the files.

    Raises:
        ConfigurationError: A file exists already or cannot be written.
    """
    key = NewKey(timedelta(days=365))
    if role is Role.VERIFIER:
        return make_verifier_key(folder, name, key)
    keys = KeyKeeper(folder)
    files = keys.init(name, key, None)
    return keys.signer(keys.read()[1].keys[0]), files


def _given_root(uri: str | None, chain_file: Path | None) -> Root | None:
    chain = _chain(chain_file)
    if uri is None:
        if chain:
            msg = "--root-chain needs the certificate's private key: name it with --root-key"
            raise ConfigurationError(msg)
        return None
    signer = signer_from_uri(uri, ROOT_KEY_NAME)
    if chain:
        require_certificate(chain, signer)
    return Root(signer, chain)


def _chain(file: Path | None) -> tuple[bytes, ...]:
    return () if file is None else root_certificate.read_chain(file)


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if found is None:
        msg = f"found an overlap of {text[:40]!r}; wanted a number and a unit: 90m, 24h, 7d"
        raise InvalidInputError(msg)
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError as error:
        msg = f"an overlap of {text} is past the end of time"
        raise InvalidInputError(msg) from error


def _report(keys: KeyKeeper, *, as_json: bool, said: str = "") -> None:
    served, ring = keys.read()
    now = datetime.now(UTC)
    certificate = _certificate(served.root_chain)
    if as_json:
        print_json(
            {
                "owner": ring.owner,
                "sequence": ring.sequence,
                "issued_at": None if ring.issued_at is None else ring.issued_at.isoformat(),
                "root_certificate": certificate,
                "keys": [_as_document(listed, now) for listed in ring.keys],
            }
        )
        return
    if said:
        OUT.print(said, soft_wrap=True)
    OUT.print(f"key set {ring.sequence} of {printable(ring.owner)}", markup=False, soft_wrap=True)
    if certificate is not None:
        OUT.print(f"root certificate valid to {certificate['not_after']}", soft_wrap=True)
    _print_table(ring, now)


def _print_table(ring: KeyRing, now: datetime) -> None:
    # Ids are what other commands take, so the rest makes room for them.
    keyid, algorithm, state = (
        Column(name, no_wrap=True) for name in ("key id", "algorithm", "state")
    )
    table = Table(keyid, algorithm, "from", "to", state, "days left", box=box.SIMPLE_HEAD)
    for listed in ring.keys:
        document = _as_document(listed, now)
        table.add_row(
            f"{listed.key.keyid[:16]}…",
            document["algorithm"],
            f"{listed.not_before:%Y-%m-%d %H:%M}",
            f"{listed.end:%Y-%m-%d %H:%M}",
            document["state"],
            f"{document['days_left']:.1f}",
        )
    OUT.print(table)


def _as_document(listed: ListedKey, now: datetime) -> dict[str, Any]:
    revoked = listed.revoked_at
    if listed.is_valid(now):
        state = "valid"
    elif revoked is not None and revoked <= now:
        state = "revoked"
    else:
        state = "to come" if now < listed.not_before else "ended"
    return {
        "keyid": listed.key.keyid,
        "name": listed.key.name,
        "algorithm": (
            Algorithm.ED25519 if listed.key.algorithm == ED25519 else Algorithm.ECDSA_P256
        ).value,
        "not_before": listed.not_before.isoformat(),
        "not_after": listed.not_after.isoformat(),
        "revoked_at": None if revoked is None else revoked.isoformat(),
        "state": state,
        "days_left": round(max((listed.end - now) / _DAY, 0.0), 2),
    }


def _certificate(chain: Sequence[bytes]) -> dict[str, str] | None:
    if not chain:
        return None
    first, last = root_certificate.window(chain)
    return {"not_before": first.isoformat(), "not_after": last.isoformat()}
