"""The gateway: an OpenAI-compatible reverse proxy that commits to hidden reasoning.

Its rules have no sockets in them: `sse` cuts streams into events, `markers` and `splitter` tell
reasoning from answer by token ids, `alignment` and `retokenize` bring ids and text together, and
`dialects` reads requests and replies.
"""
