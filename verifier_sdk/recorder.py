"""The client's side of a reply: note what arrives and when, and keep it as a receipt."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.clock import SteadyClock
from coin_protocol.receipt import RECEIPT_FORMAT, check_receipt
from coin_protocol.v1 import envelope_pb2, receipt_pb2, statements_pb2


class Recorder:
    """Makes the receipt of one reply. Start it when the request is sent."""

    def __init__(
        self,
        *,
        request: bytes,
        client_nonce: bytes | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        """Note the time of sending.

        Args:
            request: Exact bytes of the request.
            client_nonce: What the request carried; 32 random bytes by default.
            clock: Nanoseconds since 1970, by the client's own clock; by default one that
                never runs backwards.
        """
        self._clock = SteadyClock().nanoseconds if clock is None else clock
        self.client_nonce = secrets.token_bytes(32) if client_nonce is None else client_nonce
        self._receipt = receipt_pb2.Receipt(
            format=RECEIPT_FORMAT,
            client_nonce=self.client_nonce,
            request=request,
            sent_at=self._now(),
        )
        self._answer: list[str] = []

    def checkpoint(self, signed: envelope_pb2.Envelope) -> None:
        """Note a checkpoint and the time it was seen."""
        seen = receipt_pb2.SeenCheckpoint(checkpoint=signed, seen_at=self._now())
        self._receipt.checkpoints.append(seen)

    def answer_delta(self, text: str) -> None:
        """Note a piece of the answer's text; times of the first and last are kept."""
        if text:
            self.answer_seen()
            self._answer.append(text)

    def answer_seen(self) -> None:
        """Note that a piece of the answer came, whose bytes `finish` is given as a whole."""
        now = self._now()
        if not self._receipt.HasField("answer_first_at"):
            self._receipt.answer_first_at.CopyFrom(now)
        self._receipt.answer_last_at.CopyFrom(now)

    def finish(
        self,
        *,
        commitment: envelope_pb2.Envelope,
        key_set: envelope_pb2.Envelope,
        root_chain: Sequence[bytes] = (),
        billed: statements_pb2.Usage | None = None,
        summary: bytes | None = None,
        answer: bytes | None = None,
    ) -> receipt_pb2.Receipt:
        """Return the receipt.

        Args:
            commitment: As it came.
            key_set: As it came.
            root_chain: As it came with the key set.
            billed: Usage as the client was told it.
            summary: Exact bytes of the visible reasoning summary, where there was one.
            answer: Exact bytes of the answer; by default those of the pieces noted, which an
                answer that calls tools is more than (`coin_protocol.answer`).

        Raises:
            InvalidInputError: A part passes its limit.
        """
        self._receipt.commitment.CopyFrom(commitment)
        self._receipt.key_set.CopyFrom(key_set)
        self._receipt.root_chain[:] = root_chain
        self._receipt.answer = "".join(self._answer).encode() if answer is None else answer
        if billed is not None:
            self._receipt.billed.CopyFrom(billed)
        if summary is not None:
            self._receipt.summary = summary
        check_receipt(self._receipt)
        return self._receipt

    def _now(self) -> Timestamp:
        stamp = Timestamp()
        stamp.FromNanoseconds(self._clock())
        return stamp
