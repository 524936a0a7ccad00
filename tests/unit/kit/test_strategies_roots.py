"""Roots of either kind are believed as they are drawn, and no chain but the one drawn is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from coin_protocol.checks import Trust, rooted_keys, run_checks
from coin_protocol.keys import ECDSA_P256, ED25519
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet, pinned
from coin_protocol.receipt import read_receipt, to_json
from coin_protocol.root_certificate import MAX_ROOT_CHAIN, certified_key
from coin_protocol.testing import strategies as coin
from coin_protocol.testing.strategies import certifying
from coin_protocol.testing.strategies.keys import trust
from coin_protocol.testing.strategies.pool import POOL, pooled
from coin_protocol.testing.world import START, Audit, Reply
from coin_protocol.v1 import delivery_pb2, receipt_pb2

Chain = tuple[bytes, ...]

FEW = settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
SOME = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
CERTIFIED = st.just(value=True)
CHAINS = coin.roots(certified=CERTIFIED)
LONG = CHAINS.filter(lambda root: between(root.chain) >= 2)


def between(chain: Sequence[bytes]) -> int:
    """Count the certificates that are neither the leaf nor the authority's own."""
    (authority,) = certifying.domain(certifying.DOMAINS[0]).authorities
    own = authority.public_bytes(Encoding.DER)
    return len([each for each in chain[1:] if each != own])


def replies(root: st.SearchStrategy[coin.DrawnRoot]) -> st.SearchStrategy[Reply]:
    return coin.replies(world=coin.worlds(root=root), tokens=st.integers(0, 12))


def failure(reply: Reply, chain: Sequence[bytes], believed: Trust | None = None) -> tuple[str, str]:
    """Return the check that fails first, and why, of a reply that comes with another chain."""
    case = Audit(reply).case()
    receipt = receipt_pb2.Receipt()
    receipt.CopyFrom(case.receipt)
    receipt.ClearField("root_chain")
    receipt.root_chain.extend(chain)
    report = run_checks(replace(case, receipt=receipt, trust=believed or case.trust))
    assert report.failed is not None
    assert report.outcome == receipt_pb2.OUTCOME_FAIL
    assert report.fault == receipt_pb2.FAULT_UNATTRIBUTED
    return report.failed.code, report.detail


# Believed


@given(coin.audits(reply=replies(coin.roots())))
@SOME
def test_an_audit_under_a_root_of_either_kind_passes_every_check(audit: Audit) -> None:
    report = run_checks(audit.case())
    assert report.failed is None, (report.failed.code, report.detail)


@given(coin.signed_key_sets(certified=CERTIFIED) | coin.signed_key_sets())
@SOME
def test_a_key_set_under_a_root_of_either_kind_is_read(found: SignedKeySet) -> None:
    assert len(rooted_keys(found, trust())) >= 1
    assert len(found.root_chain) <= MAX_ROOT_CHAIN


@given(CHAINS)
@SOME
def test_a_chain_holds_where_its_domain_is_believed(root: coin.DrawnRoot) -> None:
    assert root.domain is not None
    root.domain.verify(root.chain, START)
    assert certified_key(root.chain, "root") == root.signer.public


@given(coin.deliveries(reply=replies(CHAINS)))
@FEW
def test_a_delivery_has_the_chain_of_its_key_set(delivery: delivery_pb2.Delivery) -> None:
    believed = [certifying.domain(name) for name in certifying.DOMAINS]
    served = SignedKeySet(delivery.key_set, tuple(delivery.root_chain))
    assert rooted_keys(served, Trust((), pinned("verifiers", ()), believed))


@given(replies(CHAINS))
@FEW
def test_a_certified_receipt_is_read_in_either_form(reply: Reply) -> None:
    receipt = reply.receipt
    assert receipt.root_chain
    assert read_receipt(receipt.SerializeToString()) == receipt
    assert read_receipt(to_json(receipt).encode()) == receipt


# Not believed


@given(replies(CHAINS))
@FEW
def test_without_its_chain_a_domain_is_not_shown(reply: Reply) -> None:
    code, why = failure(reply, ())
    assert code == "SIGNATURE"
    assert "comes without a certificate for" in why


@given(replies(CHAINS.filter(lambda root: between(root.chain) >= 1)), st.data())
@FEW
def test_without_one_of_the_certificates_between_there_is_no_path(
    reply: Reply, data: st.DataObject
) -> None:
    chain = list(reply.receipt.root_chain)
    del chain[data.draw(st.integers(1, between(chain)))]
    code, why = failure(reply, chain)
    assert code == "SIGNATURE"
    assert why.startswith("no path for")


@given(replies(LONG), st.data())
@FEW
def test_certificates_out_of_order_are_refused(reply: Reply, data: st.DataObject) -> None:
    leaf, *rest = reply.receipt.root_chain
    count = between([leaf, *rest])
    moved = data.draw(st.permutations(rest[:count]))
    assume(moved != rest[:count])
    code, why = failure(reply, [leaf, *moved, *rest[count:]])
    assert code == "SIGNATURE"
    assert "out of order" in why


@given(replies(LONG), st.data())
@FEW
def test_a_chain_that_does_not_begin_with_its_leaf_names_another_key(
    reply: Reply, data: st.DataObject
) -> None:
    chain = list(reply.receipt.root_chain)
    first = data.draw(st.integers(1, len(chain) - 1))
    chain.insert(0, chain.pop(first))
    code, why = failure(reply, chain)
    assert code == "SIGNATURE"
    assert "signed" in why or "signature" in why


@given(replies(CHAINS))
@FEW
def test_a_reader_who_pins_keys_alone_asks_for_no_chain(reply: Reply) -> None:
    # Not the key of a certificate, which may be pinned as well.
    believed = Trust([pooled(ROOT_KEY_NAME, POOL).public], reply.world.trust.verifiers)
    code, why = failure(reply, reply.receipt.root_chain, believed)
    assert code == "SIGNATURE"
    assert "no pinned root key" in why


@given(replies(coin.roots(certified=CERTIFIED, at=START - timedelta(days=5_000))))
@FEW
def test_a_certificate_that_had_ended_vouches_for_nothing(reply: Reply) -> None:
    code, why = failure(reply, reply.receipt.root_chain)
    assert code == "SIGNATURE"
    assert why.startswith("no path for")


# What is drawn


@pytest.mark.parametrize(
    "wanted",
    [
        lambda chain: len(chain) == 1,
        lambda chain: between(chain) == certifying.MOST_BETWEEN,
        lambda chain: len(chain) == between(chain) + 2,
        lambda chain: certified_key(chain, "root").algorithm == ECDSA_P256,
        lambda chain: certified_key(chain, "root").algorithm == ED25519,
    ],
    ids=["the leaf alone", "many between", "the authority's own", "ECDSA", "Ed25519"],
)
def test_every_kind_of_chain_is_drawn(wanted: Callable[[Chain], bool]) -> None:
    found: list[coin.DrawnRoot] = []

    @given(CHAINS)
    @settings(max_examples=200, database=None, derandomize=True)
    def note(root: coin.DrawnRoot) -> None:
        found.append(root)

    note()
    assert any(wanted(root.chain) for root in found)


def test_before_there_were_certificates_roots_are_pinned() -> None:
    @given(coin.roots(at=certifying.FIRST - timedelta(days=300_000)))
    @FEW
    def holds(root: coin.DrawnRoot) -> None:
        assert root == certifying.PINNED

    holds()


def test_certificates_are_the_same_in_every_run() -> None:
    (authority,) = certifying.domain("acme.example").authorities
    found = sha256(authority.public_bytes(Encoding.DER)).hexdigest()
    assert found == "8863e95b9873ba54d7a94789f9085867573b98dc97d9c974835bd30f55c5ee64"
