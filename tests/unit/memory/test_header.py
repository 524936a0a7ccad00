"""Headers and manifests are read as they were written, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import VerificationError
from verifier_sdk.memory.header import FORMAT, Header, Listed, Manifest, Mark

HEADER = Header(
    profile_sha256=bytes(32),
    dimension=96,
    first=1,
    last=900,
    blocks=800,
    vectors=700,
    flat_rows=64,
    oldest=Mark(3, b"\1" * 32),
    newest=Mark(900, b"\2" * 32),
    providers={"acme": (0, 500), 'na"me\nü': (500, 700)},
    rows_sha256=b"\3" * 32,
    lists_sha256=b"\4" * 32,
)
MANIFEST = Manifest(900, (Listed("1-900-abcdef", b"\5" * 32), Listed("x", b"\6" * 32)))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
FIELDS = list(json.loads(HEADER.to_json()))


@pytest.mark.parametrize("lists", [b"\4" * 32, None])
def test_a_header_is_read_as_it_was_written(lists: bytes | None) -> None:
    header = replace(HEADER, lists_sha256=lists)
    assert Header.from_json(header.to_json()) == header


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert Manifest.from_json(Manifest().to_json()) == Manifest()


@given(st.sampled_from(FIELDS), JSON)
def test_a_header_with_another_field_is_refused_or_says_what_it_holds(
    field: str, value: object
) -> None:
    found = json.loads(HEADER.to_json()) | {field: value}
    try:
        header = Header.from_json(json.dumps(found).encode())
    except VerificationError:
        return
    assert all(0 <= a < b <= header.vectors for a, b in header.providers.values())
    assert header.dimension > 0
    assert len(header.rows_sha256) == 32


@pytest.mark.parametrize("field", FIELDS)
def test_a_header_that_lacks_a_field_is_refused(field: str) -> None:
    found = json.loads(HEADER.to_json())
    del found[field]
    with pytest.raises(VerificationError):
        Header.from_json(json.dumps(found).encode())


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_else_is_refused(raw: bytes) -> None:
    with pytest.raises(VerificationError):
        Header.from_json(raw)
    with pytest.raises(VerificationError):
        Manifest.from_json(raw)


@given(JSON)
def test_a_manifest_of_other_things_is_refused(value: object) -> None:
    body = json.dumps({"format": FORMAT, "sealed": 1, "segments": value}).encode()
    raw = sha256(body).hexdigest().encode() + b"\n" + body
    if value in ([], {}, ""):
        assert Manifest.from_json(raw) == Manifest(1)
        return
    with pytest.raises(VerificationError):
        Manifest.from_json(raw)


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", ".", "manifest.json"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    raw = Manifest(1, (Listed(name, bytes(32)),)).to_json()
    with pytest.raises(VerificationError, match="name"):
        Manifest.from_json(raw)


def test_numbers_out_of_their_limits_are_refused() -> None:
    for wrong in (
        replace(HEADER, vectors=600),
        replace(HEADER, dimension=0),
        replace(HEADER, providers={"acme": (5, 5)}),
        replace(HEADER, providers={"acme": (-1, 5)}),
    ):
        with pytest.raises(VerificationError, match="limits"):
            Header.from_json(wrong.to_json())


def test_another_format_is_refused() -> None:
    raw = HEADER.to_json().replace(b'"format":1', b'"format":2')
    with pytest.raises(VerificationError, match="another format than 1"):
        Header.from_json(raw)
