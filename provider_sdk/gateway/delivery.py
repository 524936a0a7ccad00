"""What is handed over with a reply, as JSON; and which replies went without."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from google.protobuf import json_format
from google.protobuf.message import Message

from coin_protocol.delivery import DELIVERY_FORMAT
from coin_protocol.errors import NotReadyError
from coin_protocol.v1 import delivery_pb2 as pb
from coin_protocol.v1 import envelope_pb2, statements_pb2
from provider_sdk.provider import Provider
from provider_sdk.record import KeptReply

NONCE_NOTE: Final = "The request carried no coin-nonce: the gateway chose the nonce."

MISSING_SENTENCES: Final = {
    pb.MISSING_REASON_SIGNING_FAILED: "The commitment could not be made or signed.",
    pb.MISSING_REASON_STORE_UNAVAILABLE: (
        "The commitment was not on disk in time; ask for it at /coin/v1/receipts later."
    ),
    pb.MISSING_REASON_NO_TOKEN_IDS: "The upstream's token ids are outside the vocabulary.",
    pb.MISSING_REASON_MALFORMED_UPSTREAM: "The upstream's reply could not be understood.",
    pb.MISSING_REASON_REQUEST_TOO_LARGE: "The request is larger than any that is committed to.",
}


def as_document(message: Message) -> dict[str, Any]:
    """Return protobuf's own JSON mapping of a message, with the names of the `.proto`."""
    document: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return document


def as_json(message: Message) -> bytes:
    """Return `as_document` as JSON on one line."""
    return orjson.dumps(as_document(message))


def delivered_checkpoint(choice: int, signed: envelope_pb2.Envelope) -> pb.DeliveredCheckpoint:
    """Return what goes out for one checkpoint."""
    return pb.DeliveredCheckpoint(choice=choice, checkpoint=signed)


def missing_choice(
    choice: int, reason: pb.MissingReason.ValueType, sentence: str = "", notes: Sequence[str] = ()
) -> pb.DeliveredChoice:
    """Return what is said of a choice without a commitment."""
    why = sentence or MISSING_SENTENCES.get(reason, "")
    return pb.DeliveredChoice(
        choice=choice, missing=reason, notes=[*([why] if why else []), *notes]
    )


def delivery(
    provider: Provider,
    *,
    response_id: str,
    client_nonce: bytes,
    nonce_from_client: bool,
    choices: Sequence[pb.DeliveredChoice],
    reported: statements_pb2.Usage | None,
) -> pb.Delivery:
    """Return the delivery of a reply, under the provider's keys as they are now."""
    keys = provider.served
    return pb.Delivery(
        format=DELIVERY_FORMAT,
        response_id=response_id,
        client_nonce=client_nonce,
        nonce_from_client=nonce_from_client,
        key_set=keys.signed,
        root_chain=keys.root_chain,
        choices=sorted(choices, key=lambda choice: choice.choice),
        reported=reported,
    )


@dataclass
class Deliveries:
    """Finds the delivery of a reply again.

    Commitments come from the provider's store. What went without one is remembered here only:
    the newest `keep` such replies of this process.
    """

    provider: Provider
    keep: int
    _missing: OrderedDict[tuple[str, bytes], pb.Delivery] = field(default_factory=OrderedDict)
    _seen: OrderedDict[tuple[str, bytes], None] = field(default_factory=OrderedDict)

    def claim(self, response_id: str, caller: bytes) -> bool:
        """Take a response id for a caller's new reply; False where the caller has it already."""
        key = response_id, caller
        if key in self._seen:
            return False
        self._seen[key] = None
        while len(self._seen) > max(self.keep, 1000):
            self._seen.popitem(last=False)
        return True

    def remember(self, caller: bytes, found: pb.Delivery) -> None:
        """Keep a delivery that lacks a commitment."""
        if not any(choice.missing for choice in found.choices):
            return
        self._missing[found.response_id, caller] = found
        while len(self._missing) > self.keep:
            self._missing.popitem(last=False)

    def find(self, response_id: str, caller: bytes) -> pb.Delivery | None:
        """Return the delivery of a reply, or None where the caller made none with this id.

        Blocks on the store: call it on a thread.

        Raises:
            NotReadyError: The reply is still being generated.
            StoreUnavailableError: The store does not answer.
        """
        missing = self._missing.get((response_id, caller))
        if missing is not None and not _may_have_come(missing):
            return missing
        kept = self.provider.replies(response_id, caller)
        choices = [reply.choice for reply in kept if reply.choice is not None]
        if len(choices) < len(kept) and missing is None:
            msg = "the reply is still being generated"
            raise NotReadyError(msg)
        if missing is not None:
            return _completed(missing, choices)
        return _from_store(self.provider, response_id, kept, choices) if kept else None


def _may_have_come(found: pb.Delivery) -> bool:
    """Whether a commitment that was not on disk in time may be there by now."""
    return any(choice.missing == pb.MISSING_REASON_STORE_UNAVAILABLE for choice in found.choices)


def _completed(missing: pb.Delivery, kept: Sequence[pb.DeliveredChoice]) -> pb.Delivery:
    """Return a delivery with the commitments that came after it was sent."""
    later = {choice.choice: choice for choice in kept}
    found = pb.Delivery()
    found.CopyFrom(missing)
    for choice in found.choices:
        if choice.missing == pb.MISSING_REASON_STORE_UNAVAILABLE and choice.choice in later:
            choice.CopyFrom(later[choice.choice])
    return found


def _from_store(
    provider: Provider,
    response_id: str,
    kept: Sequence[KeptReply],
    choices: Sequence[pb.DeliveredChoice],
) -> pb.Delivery:
    first = kept[0]
    return delivery(
        provider,
        response_id=response_id,
        client_nonce=first.client_nonce,
        nonce_from_client=first.ref.nonce_from_client,
        choices=choices,
        reported=next((reply.reported for reply in kept if reply.reported is not None), None),
    )
