"""`coin demo`: a provider and a verifier as two processes, an honest reply and nine lies.

The outermost layer: it puts both SDKs together, and nothing imports it.
"""
