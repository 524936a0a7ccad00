"""What a reader of the demo's bundles pins."""

from __future__ import annotations

from pathlib import Path

from coin_protocol.checks import Trust
from coin_protocol.demo.run import VERIFIER
from coin_protocol.files import read_file
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned_verifiers


def trust_of(folder: Path) -> Trust:
    """Return the keys that `coin demo --keep` left in a folder."""
    root = read_file(folder / "provider" / "root.pub.pem")
    verifier = read_file(folder / "verifier" / "key.pub.pem")
    return Trust(
        [VerificationKey.from_pem(ROOT_KEY_NAME, root)], pinned_verifiers({VERIFIER: verifier})
    )
