"""Mutations of signatures, those of key sets among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from coin_protocol import envelope
from coin_protocol.keyset import ROOT_KEY_NAME
from coin_protocol.limits import MAX_SIGNATURES
from coin_protocol.testing.forgeries import change, put
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Party,
    Site,
    Spot,
    altered,
    anywhere,
    statements,
)
from coin_protocol.testing.mutations.plans import Plan, key_set, signed
from coin_protocol.testing.mutations.statements import KINDS
from coin_protocol.testing.world import PROVIDER, VERIFIER, World
from coin_protocol.v1 import envelope_pb2, receipt_pb2

_UNATTRIBUTED: Final = receipt_pb2.FAULT_UNATTRIBUTED

Envelope = envelope_pb2.Envelope


def _edited(edit: Callable[[Spot, Envelope], object]) -> Callable[[Spot], Lie]:
    """Return what edits an envelope after it was signed."""

    def copy(at: Spot, found: Envelope) -> Envelope:
        other = Envelope.FromString(found.SerializeToString())
        edit(at, other)
        return other

    return altered(copy)


def _payload_altered(at: Spot, found: Envelope) -> None:
    found.payload = at.flip(found.payload)


def _payload_cut(at: Spot, found: Envelope) -> None:
    found.payload = found.payload[: at.random.randrange(len(found.payload))]


def _signature_altered(at: Spot, found: Envelope) -> None:
    found.signatures[0].sig = at.flip(found.signatures[0].sig)


def _unsigned(at: Spot, found: Envelope) -> None:
    del at, found.signatures[:]


def _crowded(at: Spot, found: Envelope) -> None:
    del at
    for _ in range(MAX_SIGNATURES):
        found.signatures.add().CopyFrom(found.signatures[0])


def _signed_again(name: str, seed: str = "") -> Callable[[Spot, Envelope], Envelope]:
    """Return what has a party, of another world where a seed is given, sign instead."""

    def again(at: Spot, found: Envelope) -> Envelope:
        world = replace(at.plan.world, seed=f"{at.plan.seed}{seed}")
        return envelope.sign(found.payload, found.payload_type, world.signer(name))

    return again


def _strangers_under_known_id(at: Spot, found: Envelope) -> None:
    forged = _signed_again(PROVIDER, " stranger")(at, found)
    found.signatures[0].sig = forged.signatures[0].sig


def _of_another_type(at: Spot, found: Envelope) -> Envelope:
    others = [kind for kind in KINDS if kind != found.payload_type]
    return signed(at.plan, found.payload, at.random.choice(others), PROVIDER)


def _renamed_type(at: Spot, found: Envelope) -> None:
    """Say what the reader expects of a statement that was signed as something else."""
    found.signatures[0].sig = _of_another_type(at, found).signatures[0].sig


def _without_its_type(at: Spot, found: Envelope) -> None:
    found.signatures[0].sig = at.plan.world.signer(PROVIDER).sign(found.payload)


def _of_the_commitment(at: Spot, found: Envelope) -> None:
    found.signatures[0].sig = at.plan.honest.receipt.commitment.signatures[0].sig


def _not_the_commitment(plan: Plan) -> list[Site]:
    return [site for site in statements(plan) if site.path != "commitment"]


def _of_a_strangers_root(at: Spot) -> Lie:
    stranger = World(seed=f"{at.plan.seed} stranger")
    return Lie(receipt=put("key_set", key_set(at.plan, root_of=stranger)))


def _signed_by_the_provider(at: Spot) -> Lie:
    """Have the provider's own key vouch for itself."""
    payload = at.plan.honest.receipt.key_set.payload
    found = signed(at.plan, payload, envelope.KEY_SET, PROVIDER)
    return Lie(receipt=put("key_set", found))


def _torn_key_set(at: Spot) -> Lie:
    payload = at.plan.honest.receipt.key_set.payload + b"\xff"
    found = signed(at.plan, payload, envelope.KEY_SET, ROOT_KEY_NAME)
    return Lie(receipt=put("key_set", found))


# fmt: off
SIGNATURES: Final = (
    Mutation("payload-altered", "One bit of a signed statement is flipped.",
             statements, _edited(_payload_altered),
             "SIGNATURE", Party.NETWORK, _UNATTRIBUTED),
    Mutation("payload-cut-short", "A signed statement lost its end on the way.",
             statements, _edited(_payload_cut), "SIGNATURE", Party.NETWORK, _UNATTRIBUTED),
    Mutation("signature-altered", "One bit of a signature is flipped.",
             statements, _edited(_signature_altered), "SIGNATURE", Party.NETWORK, _UNATTRIBUTED),
    Mutation("signature-left-out", "A statement carries no signature.",
             statements, _edited(_unsigned),
             "SIGNATURE", Party.CLIENT, _UNATTRIBUTED),
    Mutation("signed-by-the-verifier", "A statement of the provider is signed by the verifier.",
             statements, altered(_signed_again(VERIFIER)),
             "SIGNATURE", Party.CLIENT, _UNATTRIBUTED),
    Mutation("signed-by-an-unlisted-key",
             "A statement is signed by a key of the provider's name that its key set lacks.",
             statements, altered(_signed_again(PROVIDER, " stranger")),
             "SIGNATURE", Party.CLIENT, _UNATTRIBUTED),
    Mutation("signed-by-the-root", "A statement is signed by the root, which signs key sets only.",
             statements, altered(_signed_again(ROOT_KEY_NAME)),
             "SIGNATURE", Party.PROVIDER, _UNATTRIBUTED),
    Mutation("strangers-signature-under-the-key-id",
             "A stranger's signature names the id of the provider's key.",
             statements, _edited(_strangers_under_known_id),
             "SIGNATURE", Party.CLIENT, _UNATTRIBUTED),
    Mutation("of-another-type", "A statement is shown and signed as one of another type.",
             statements, altered(_of_another_type), "SIGNATURE", Party.PROVIDER, _UNATTRIBUTED),
    Mutation("signed-as-another-type",
             "A statement that was signed as one of another type is shown as one of its own.",
             statements, _edited(_renamed_type), "SIGNATURE", Party.PROVIDER, _UNATTRIBUTED),
    Mutation("signed-without-its-type",
             "The signature covers the payload alone, so that it would do for any type.",
             statements, _edited(_without_its_type), "SIGNATURE", Party.PROVIDER, _UNATTRIBUTED),
    Mutation("signature-of-another-statement",
             "A statement carries the commitment's signature.",
             _not_the_commitment, _edited(_of_the_commitment),
             "SIGNATURE", Party.CLIENT, _UNATTRIBUTED),
    Mutation("signatures-crowded", "An envelope carries more signatures than are read.",
             statements, _edited(_crowded), "SIGNATURE", Party.PROVIDER, _UNATTRIBUTED),
    Mutation("key-set-of-another-root", "The key set is signed by a root that nobody pinned.",
             anywhere, _of_a_strangers_root, "SIGNATURE", Party.CLIENT, _UNATTRIBUTED),
    Mutation("key-set-signed-by-its-own-key", "The listed key vouches for itself.",
             anywhere, _signed_by_the_provider, "SIGNATURE", Party.PROVIDER, _UNATTRIBUTED),
    Mutation("key-set-altered", "One bit of the key set is flipped.",
             anywhere, lambda at: Lie(receipt=change("key_set.payload", at.flip)),
             "SIGNATURE", Party.NETWORK, _UNATTRIBUTED),
    Mutation("key-set-torn", "The root signed a key set that does not parse.",
             anywhere, _torn_key_set, "SIGNATURE", Party.PROVIDER, _UNATTRIBUTED),
    Mutation("session-signed-by-an-unlisted-key",
             "Another provider's whole reply comes with this one's key set.",
             anywhere,
             lambda at: Lie(
                 world=lambda world: replace(world, seed=f"{world.seed} stranger"),
                 receipt=put("key_set", at.plan.honest.receipt.key_set), ends=0,
                 case=lambda case: replace(case, trust=at.plan.world.trust)),
             "SIGNATURE", Party.CLIENT, _UNATTRIBUTED),
)
# fmt: on
