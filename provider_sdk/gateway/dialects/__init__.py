"""The request and reply formats of OpenAI's API, and what serving stacks add to them.

prepared = prepare(Endpoint.CHAT, raw)            # prepared.body goes to the upstream
reply = reader(prepared, rules)                   # one for each reply
step = reply.event(event.data)                    # or reply.body(raw)
for piece in step.pieces:
    sessions[piece.choice].append(piece.reasoning_ids)
pieces = reply.finish()
reply.missing(0)                                  # None, or why choice 0 has no commitment
"""

from __future__ import annotations

from provider_sdk.gateway.dialects.chat import ChatReader
from provider_sdk.gateway.dialects.choice import Choice
from provider_sdk.gateway.dialects.reader import Piece, Reader, Step
from provider_sdk.gateway.dialects.request import Endpoint, Prepared, Rules, prepare
from provider_sdk.gateway.dialects.responses import ResponsesReader
from provider_sdk.gateway.splitter import Flag


def reader(prepared: Prepared, rules: Rules) -> Reader:
    """Return a reader for the reply to a request."""
    if prepared.endpoint is Endpoint.RESPONSES:
        return ResponsesReader(prepared, rules)
    return ChatReader(prepared, rules)


__all__ = [
    "Choice",
    "Endpoint",
    "Flag",
    "Piece",
    "Prepared",
    "Reader",
    "Rules",
    "Step",
    "prepare",
    "reader",
]
