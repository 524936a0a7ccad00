"""The provider's side: commit to reasoning while it streams, answer challenges later.

provider = Provider(name="acme", signer=signer, key_set=key_set, models=models,
                    verifiers=verifiers)
session = provider.open_session(model="acme-1", request=body, client_nonce=nonce)
checkpoints = session.append(token_ids)     # as the engine samples them
commitment = session.finish(answer=text, answer_tokens=120, usage=usage)
"""

from provider_sdk.provider import Provider
from provider_sdk.session import Session

__all__ = ["Provider", "Session"]
