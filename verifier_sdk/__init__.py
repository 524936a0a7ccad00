"""The verifier's side: keep receipts, challenge providers, judge what they open.

recorder = Recorder(request=body)                  # the client, while the reply streams
receipt = recorder.receipt()
auditor = Auditor(name="me", signer=signer, trust=trust, profile=profile, policy=policy)
async with ProviderClient(target, tls=tls) as provider:
    bundle = await auditor.audit(receipt, provider)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verifier_sdk.auditor import Auditor
    from verifier_sdk.client import ProviderClient
    from verifier_sdk.recorder import Recorder

__all__ = ["Auditor", "ProviderClient", "Recorder"]

# Loaded when first used: what talks to providers needs the server extra, bills need none.
_HOME = {
    "Auditor": "verifier_sdk.auditor",
    "ProviderClient": "verifier_sdk.client",
    "Recorder": "verifier_sdk.recorder",
}


def __getattr__(name: str) -> object:
    """Return a public name, importing the module that defines it (PEP 562)."""
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value
