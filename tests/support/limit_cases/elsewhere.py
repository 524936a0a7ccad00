"""Where a limit is imported and no case lifts it: another test has it, or nothing is read there."""

from __future__ import annotations

from typing import Final

Site = tuple[str, str]
"""Module and name of the limit."""

ELSEWHERE: Final[dict[Site, str]] = {
    ("coin_protocol.key_keeper", "CLOCK_SKEW_SECONDS"): "tests/unit/test_key_keeper.py::"
    "test_what_was_signed_by_a_clock_ahead_stays_good_through_the_shortest_overlap",
    ("coin_protocol.transport", "MAX_MESSAGE_BYTES"): "tests/security/test_grpc.py::"
    "test_a_message_that_inflates_past_the_limit_is_refused",
    (
        "coin_protocol.transport.guard",
        "MAX_NAME_BYTES",
    ): "tests/integration/test_challenge_service_tls.py::"
    "test_a_verifier_is_known_by_one_name_of_its_certificate",
    (
        "provider_sdk.gateway.commits",
        "MAX_TEXT_BYTES",
    ): "tests/integration/gateway/test_bad_input.py::"
    "test_a_request_above_the_protocols_limit_is_answered_without_receipt",
    (
        "provider_sdk.gateway.exchange",
        "MAX_TEXT_BYTES",
    ): "tests/integration/gateway/test_failures.py::"
    "test_a_required_receipt_that_cannot_be_is_refused_before_the_first_byte",
    ("verifier_sdk.collecting.hooks", "MAX_TEXT_BYTES"): "tests/unit/collecting/test_missing.py::"
    "test_a_request_past_the_limit_goes_out_and_is_told_of",
    ("verifier_sdk.memory.sql", "MAX_BLOCKS"): "tests/unit/memory/test_lookup.py::"
    "test_block_indices_that_cannot_be_are_refused",
    ("verifier_sdk.memory.sql", "HASH_BYTES"): "tests/unit/memory/test_lookup.py::"
    "test_a_commitment_that_is_no_digest_is_refused",
    ("verifier_sdk.node.http", "MAX_MESSAGE_BYTES"): "tests/integration/node/test_http.py::"
    "test_a_body_beyond_the_limit_is_not_read_to_its_end",
    ("verifier_sdk.web.site", "MAX_NAME_BYTES"): "tests/unit/web/test_audits_list.py::"
    "test_what_no_link_of_ours_asks_for_is_refused_in_words",
    ("verifier_sdk.witness.wire", "MAX_NOTE_BYTES"): "tests/unit/witness/test_wire.py::"
    "test_limits_of_a_request",
}
"""The test that holds the module to the limit."""

_DRAWN: Final = "as many random bytes are drawn"
_SLICED: Final = "what was checked is cut into parts of this size"
_TABLE: Final = "the width of a column; what is stored was checked"
_OPERATOR: Final = "a setting of the operator's own"

UNREAD: Final[dict[Site, str]] = {
    ("coin_protocol.conformance.challenging", "CHALLENGE_NONCE_BYTES"): _DRAWN,
    ("coin_protocol.conformance.malformed", "CHALLENGE_NONCE_BYTES"): _DRAWN,
    ("coin_protocol.checks.included", "HASH_BYTES"): _SLICED,
    ("coin_protocol.encoding", "HASH_BYTES"): "the layout of a token leaf",
    ("coin_protocol.encoding", "SESSION_ID_BYTES"): "the layout of a token leaf",
    ("coin_protocol.opening", "HASH_BYTES"): _SLICED,
    ("coin_protocol.opening", "TOKEN_SALT_BYTES"): _SLICED,
    ("provider_sdk.gateway.headers", "HASH_BYTES"): _DRAWN,
    ("provider_sdk.gateway.headers", "NONCE_MAX_BYTES"): "said where `delivery` refused",
    ("provider_sdk.gateway.headers", "NONCE_MIN_BYTES"): "said where `delivery` refused",
    ("provider_sdk.integrations.litellm", "HASH_BYTES"): _DRAWN,
    ("provider_sdk.integrations.tensorrt_llm", "HASH_BYTES"): _DRAWN,
    ("provider_sdk.ops.settings", "MAX_NAME_BYTES"): _OPERATOR,
    ("provider_sdk.recovery", "CLOCK_SKEW_SECONDS"): "secrets are kept so much longer",
    ("provider_sdk.session", "HASH_BYTES"): _DRAWN,
    ("provider_sdk.session", "SESSION_ID_BYTES"): _DRAWN,
    ("provider_sdk.store.sealed", "HASH_BYTES"): _SLICED,
    ("verifier_sdk.auditor", "CHALLENGE_NONCE_BYTES"): _DRAWN,
    ("verifier_sdk.log.http", "MAX_LOG_ENTRIES"): "whether an answer may be kept for ever",
    ("verifier_sdk.log.tables", "MAX_NOTE_NAME_BYTES"): _TABLE,
    ("verifier_sdk.log.tiles", "HASH_BYTES"): _SLICED,
    ("verifier_sdk.memory.queries", "HASH_BYTES"): _SLICED,
    ("verifier_sdk.memory.sql", "MAX_NAME_BYTES"): "names are cut to the width of a column",
    ("verifier_sdk.memory.tables", "HASH_BYTES"): _TABLE,
    ("verifier_sdk.memory.tables", "MAX_NAME_BYTES"): _TABLE,
    ("verifier_sdk.node.settings", "MAX_NAME_BYTES"): _OPERATOR,
    ("verifier_sdk.web.views.provider", "MAX_NAME_BYTES"): "no longer name is looked for; none is",
    ("verifier_sdk.witness.config", "MAX_NOTE_NAME_BYTES"): _OPERATOR,
    ("verifier_sdk.witness.wire", "HASH_BYTES"): "the length of a line of a proof",
}
"""Why nothing from outside is held against the limit there."""
