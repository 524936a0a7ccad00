"""The provider's side: commit to reasoning while it streams, answer challenges later.

provider = Provider(name="acme", signer=signer, key_set=key_set, models=models,
                    verifiers=verifiers, store=store)
async with provider.session(request, client_nonce=nonce, model="acme-1") as session:
    checkpoints = session.append(token_ids)     # as the engine samples them
    reply = await session.finish(answer, usage)
"""

from provider_sdk.live import CommittedReply, LiveSession
from provider_sdk.provider import Provider
from provider_sdk.record import Delivered, ReplyRef
from provider_sdk.session import Session

__all__ = ["CommittedReply", "Delivered", "LiveSession", "Provider", "ReplyRef", "Session"]
