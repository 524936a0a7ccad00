"""A verifier that tries what no verifier may, against any provider's challenge service.

    async with MaliciousVerifier(
        "127.0.0.1:7001", tls=None, profile=profile, receipts=(first, second), signers=(one, other)
    ) as verifier:
        findings = await verifier.attempt_all()
    assert all(finding.ok for finding in findings)

It knows what a verifier knows: the profile, receipts of two replies that nobody has challenged yet,
their manifests, and two keys that the provider takes challenges from. Each finding says what was
tried, what a correct provider must do, and what came. What is answered is held against draw, hash
chain and caps: an attempt that is answered may still be harmless. Needs the extra `server`.
"""

from coin_protocol.testing.malicious_verifier.answers import TURNED_AWAY, Finding
from coin_protocol.testing.malicious_verifier.verifier import MaliciousVerifier

__all__ = ["TURNED_AWAY", "Finding", "MaliciousVerifier"]
