"""The files that an audit leaves behind, and the keys that its readers pin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coin_protocol.receipt import write_file
from coin_protocol.signer import public_pem
from coin_protocol.v1 import receipt_pb2
from tests.support.parties import WAIT_SECONDS, Parties, Reply, run_session
from tests.support.servers import serving
from verifier_sdk.client import ProviderClient


@dataclass(frozen=True)
class AuditFiles:
    """Paths of what a third party is handed, or pins."""

    receipt: Path
    bundle: Path
    profile: Path
    policy: Path
    root: Path
    verifier: Path

    @property
    def options(self) -> list[str]:
        """Return the options of `coin` that name root, profile and policy."""
        return [
            *("--root", str(self.root)),
            *("--profile", str(self.profile)),
            *("--policy", str(self.policy)),
        ]

    @property
    def bundle_options(self) -> list[str]:
        """Return those, and the one that names the verifier's key."""
        return [*self.options, "--verifier-key", str(self.verifier)]


def leave_files(
    parties: Parties,
    folder: Path,
    *,
    form: str = "binpb",
    edit: Callable[[receipt_pb2.Receipt], object] = lambda _: None,
    before: Callable[[Reply], object] = lambda _: None,
    **auditor: Any,
) -> AuditFiles:
    """Run a reply, `edit` its receipt and audit it; write what is left of all this.

    What is to happen `before` the audit, does.
    """
    receipt, bundle = asyncio.run(_audit(parties, edit, before, auditor))
    files = AuditFiles(
        receipt=folder / f"receipt.{form}",
        bundle=folder / f"bundle.{form}",
        profile=folder / "profile.binpb",
        policy=folder / "policy.binpb",
        root=folder / "root.pub.pem",
        verifier=folder / "verifier.pub.pem",
    )
    write_file(files.receipt, receipt)
    write_file(files.bundle, bundle)
    files.profile.write_bytes(parties.profile.raw)
    files.policy.write_bytes(parties.policy.raw)
    files.root.write_bytes(public_pem(parties.root.public))
    files.verifier.write_bytes(public_pem(parties.verifier.public))
    return files


async def _audit(
    parties: Parties,
    edit: Callable[[receipt_pb2.Receipt], object],
    before: Callable[[Reply], object],
    auditor: dict[str, Any],
) -> tuple[receipt_pb2.Receipt, receipt_pb2.Bundle]:
    with parties.provider() as provider:
        reply = run_session(provider)
        receipt = reply.receipt
        edit(receipt)
        before(reply)
        async with (
            serving(provider) as target,
            ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client,
        ):
            return receipt, await parties.auditor(**auditor).audit(receipt, client)
