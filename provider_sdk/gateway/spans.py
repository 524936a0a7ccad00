"""What a reply's trace says of its commitments."""

from __future__ import annotations

from coin_protocol.encoding import digest
from coin_protocol.statements import read_commitment
from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.gateway.dialects import Endpoint
from provider_sdk.ops.tracing import CHAT, TEXT_COMPLETION, Operation, ReplySpan


def operation_of(endpoint: Endpoint) -> Operation:
    """Return the name of what was asked for, as the GenAI conventions have it."""
    return TEXT_COMPLETION if endpoint is Endpoint.COMPLETIONS else CHAT


def describe(span: ReplySpan, delivery: delivery_pb2.Delivery) -> None:
    """Say what a reply's commitments are, and what they bill together."""
    span.response(delivery.response_id)
    billed = statements_pb2.Usage()
    for choice in delivery.choices:
        if choice.missing:
            span.missing(choice.missing)
            continue
        found = read_commitment(choice.commitment.payload)
        span.committed(
            digest(choice.commitment.payload),
            session_id=found.session_id,
            blocks=found.block_count,
            id_source=found.id_source,
            abort_reason=found.abort_reason,
            choice=choice.choice,
        )
        billed.prompt_tokens += found.usage.prompt_tokens
        billed.completion_tokens += found.usage.completion_tokens
        billed.reasoning_tokens += found.usage.reasoning_tokens
        billed.reasoning_counting = found.usage.reasoning_counting
    span.usage(billed)
