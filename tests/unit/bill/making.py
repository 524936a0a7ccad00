"""Bills, receipts and price lists, made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

from coin_protocol import draw, envelope
from coin_protocol.checks import Trust
from coin_protocol.keys import ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned, sign_key_set, stamp
from coin_protocol.profile import Policy
from coin_protocol.receipt import RECEIPT_FORMAT, to_json
from coin_protocol.signer import KeySigner, public_pem
from coin_protocol.testing.small import small_profile
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import receipt_pb2, statements_pb2
from verifier_sdk.bill import (
    BillCheck,
    Checked,
    Examiner,
    Facts,
    Price,
    PriceList,
    ReceiptBook,
)

DATA = Path(__file__).with_name("data")
NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
MODEL = "acme-large"
PROFILE = small_profile()
POLICY = Policy.shipped()

Block = dict[str, Any]


def chat(
    prompt: int, completion: int, reasoning: int | None = None, total: int | None = -1
) -> Block:
    """Return a block of OpenAI's chat API; its total adds up unless another, or none, is given."""
    block: Block = {"prompt_tokens": prompt, "completion_tokens": completion}
    if total is not None:
        block["total_tokens"] = prompt + completion if total == -1 else total
    if reasoning is not None:
        block["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return block


def anthropic(prompt: int, output: int, thinking: int, **more: int) -> Block:
    """Return a block of the Messages API."""
    details = {"thinking_tokens": thinking}
    return {
        "input_tokens": prompt,
        "output_tokens": output,
        "output_tokens_details": details,
    } | more


def line(usage: Block | None, **instead: Any) -> dict[str, Any]:
    """Return a line of the plain form."""
    return {"time": NOON.isoformat(), "model": MODEL, "vendor": "openai", "usage": usage} | instead


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def check(folder: Path, *rows: object, **options: Any) -> list[Checked]:
    """Check a bill of these rows, in the plain form unless another is named."""
    bill = write_lines(folder / "bill.jsonl", rows)
    return list(BillCheck(bill, **({"form": "coin"} | options)))


def codes(checked: Checked) -> list[str]:
    """Return the codes of a line's findings."""
    return [finding.code for finding in checked.findings]


def prices(**models: tuple[str, str] | Price) -> PriceList:
    """Return a list in dollars; a pair is input and output. `_` in a name stands for `-`."""
    found = {}
    for name, price in models.items():
        if isinstance(price, Price):
            listed = price
        else:
            listed = Price(input=Decimal(price[0]), output=Decimal(price[1]))
        found[name.replace("_", "-")] = {"": listed}
    return PriceList("USD", found)


@dataclass(frozen=True)
class Provider:
    """Signs commitments and keys."""

    name: str = "acme"
    root: KeySigner = field(default_factory=lambda: KeySigner.generate(ROOT_KEY_NAME))
    signer: KeySigner = field(default_factory=lambda: KeySigner.generate("acme"))

    @property
    def root_pem(self) -> bytes:
        """What verifiers pin."""
        return public_pem(self.root.public)

    @property
    def trust(self) -> Trust:
        """Who pins it."""
        return Trust([self.root.public], pinned("verifiers", ()))

    def receipt(
        self,
        *,
        reasoning: int = 300,
        answer: int = 50,
        prompt: int = 20,
        at: datetime = NOON,
        seconds: float = 5.0,
        model: str = MODEL,
        request: object = None,
        text: bytes = b"Blue.",
        seed: str = "reply",
        nonce: str | None = None,
        cached: int = 0,
        edit: Callable[[statements_pb2.Commitment], object] = lambda _: None,
    ) -> receipt_pb2.Receipt:
        """Return a sound receipt, with `edit` done before it is signed."""
        nonce_bytes = sha256(f"nonce {nonce or seed}".encode()).digest()
        body = json.dumps({"model": model} if request is None else request).encode()
        usage = usage_for(
            prompt_tokens=prompt,
            reasoning_tokens=reasoning,
            answer_tokens=answer,
            counting=INSIDE,
            cached_prompt_tokens=cached,
        )
        end = at + timedelta(seconds=seconds)
        commitment = statements_pb2.Commitment(
            profile_sha256=PROFILE.digest,
            provider=self.name,
            model=model,
            session_id=sha256(f"session {seed}".encode()).digest()[:16],
            client_nonce=nonce_bytes,
            request_sha256=sha256(body).digest(),
            answer_sha256=sha256(text).digest(),
            token_root=bytes(32),
            block_count=-(-reasoning // PROFILE.block_size),
            reasoning_tokens=reasoning,
            answer_tokens=answer,
            id_source=statements_pb2.ID_SOURCE_SAMPLED,
            usage=usage,
            flip_anchor=draw.flip_anchor(bytes(32)),
            started_at=stamp(at),
            ended_at=stamp(end),
        )
        edit(commitment)
        listed = ListedKey(self.signer.public, NOON - timedelta(days=40), NOON + timedelta(days=40))
        key_set = sign_key_set(self.name, [listed], root=self.root, issued_at=NOON, sequence=1)
        payload = commitment.SerializeToString(deterministic=True)
        return receipt_pb2.Receipt(
            format=RECEIPT_FORMAT,
            key_set=key_set,
            commitment=envelope.sign(payload, envelope.COMMITMENT, self.signer),
            client_nonce=nonce_bytes,
            request=body,
            answer=text,
            billed=commitment.usage,
            sent_at=stamp(at),
            answer_first_at=stamp(end),
            answer_last_at=stamp(end),
        )


def examiner(trust: Trust | None = None, verifiers: tuple[bytes, ...] = ()) -> Examiner:
    """Return an examiner of receipts under the small profile."""
    return Examiner(trust, {PROFILE.digest: PROFILE}, POLICY, verifiers)


def book(*facts: Facts) -> ReceiptBook:
    """Return a book of receipts."""
    found = ReceiptBook()
    for each in facts:
        found.add(each)
    return found


def wrapped(receipt: receipt_pb2.Receipt, response_id: str) -> dict[str, Any]:
    """Return a receipt as clients keep it, with the reply's id."""
    return {"response_id": response_id, "model": MODEL, "receipt": json.loads(to_json(receipt))}
