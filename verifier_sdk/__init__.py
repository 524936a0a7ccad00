"""The verifier's side: keep receipts, challenge providers, judge what they open.

recorder = Recorder(request=body)                  # the client, while the reply streams
receipt = recorder.receipt()
auditor = Auditor(name="me", signer=signer, trust=trust, profile=profile, policy=policy)
async with ProviderClient(target, tls=tls) as provider:
    bundle = await auditor.audit(receipt, provider)
"""

from verifier_sdk.auditor import Auditor
from verifier_sdk.client import ProviderClient
from verifier_sdk.recorder import Recorder

__all__ = ["Auditor", "ProviderClient", "Recorder"]
