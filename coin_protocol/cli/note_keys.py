"""Make the key of a signed note, or show one: what logs and witnesses have in common."""

from __future__ import annotations

from pathlib import Path

from coin_protocol.errors import InvalidInputError
from coin_protocol.note import NoteAlgorithm, NoteSigner
from coin_protocol.signer import KeySigner, key_password, write_private_key


def verifier_key(name: str, algorithm: NoteAlgorithm, *, out: Path | None, uri: str | None) -> str:
    """Return the verifier key of a new private key in `out`, or of the one at `uri`.

    Raises:
        InvalidInputError: Not one of the two is given, or `out` is there already.
        ConfigurationError: The key at `uri` cannot be used.
    """
    if (out is None) == (uri is None):
        msg = "give --out FILE to make a key, or --key URI to show one"
        raise InvalidInputError(msg)
    if out is None:
        return NoteSigner.from_uri(str(uri), name, algorithm).verifier.vkey
    made = KeySigner.generate(name)
    vkey = NoteSigner(made, algorithm).verifier.vkey
    write_private_key(out, made, key_password())
    return vkey
