"""Every limit on input from outside, with its reason. Checked before memory is spent."""

from __future__ import annotations

from typing import Final

HASH_BYTES: Final = 32
"""SHA-256."""

SESSION_ID_BYTES: Final = 16
"""128 random bits: two sessions never share one, and the field is fixed in the leaf."""

NONCE_MIN_BYTES: Final = 16
"""Fewer bits could be guessed, and a commitment made before the request."""

NONCE_MAX_BYTES: Final = 64
"""Room for any digest that a client wants to use as nonce."""

CHALLENGE_NONCE_BYTES: Final = 32
"""As wide as the hash: no provider guesses what a verifier will draw (protocol, section 6)."""

TOKEN_SALT_BYTES: Final = 16
"""128 bits: nobody tries them all to guess the token beside an opened one."""

BLOCK_SALT_BYTES: Final = 32
"""As wide as the hash."""

FLIP_CHAIN_LENGTH: Final = 64
"""Challenges that one commitment can ever answer."""

MAX_BLOCK_SIZE: Final = 4096
"""Four times the largest block in use: bounds one opening."""

MAX_REASONING_TOKENS: Final = 1 << 24
"""Over a hundred times the longest reasoning on offer; keeps trees within u32 indices."""

MAX_BLOCKS: Final = 1 << 20
"""Blocks in one commitment."""

MAX_VOCABULARY: Final = 1 << 20
"""Four times the largest vocabulary in use."""

MAX_EMBEDDING_DIMENSION: Final = 8192
"""Twice the widest text embedding model in use."""

MAX_NAME_BYTES: Final = 256
"""Provider, model, verifier, key and owner names, in UTF-8."""

MAX_KEYS: Final = 1024
"""Keys in one key set: ten rotations a month for eight years."""

MAX_PROFILE_BYTES: Final = 1 << 20
"""A profile or a policy: over a thousand times the largest that ships."""

MAX_STATEMENT_BYTES: Final = 48 * 1024 * 1024
"""One signed statement: whole openings at the greatest session stay below it."""

MAX_TEXT_BYTES: Final = 16 * 1024 * 1024
"""Request, answer or summary in a receipt."""

MAX_FILE_BYTES: Final = 512 * 1024 * 1024
"""A receipt or bundle file."""

MAX_COLLECTED_BYTES: Final = 64 * 1024 * 1024
"""One receipt or bundle among many: the greatest request and answer fit in base64."""

MAX_NOTED_CHARACTERS: Final = 512
"""A reply's id, as it is noted beside its receipt."""

MAX_SMALL_FILE_PARTS: Final = 1 << 16
"""Objects, lists and commas in a JSON file, however short it is: milliseconds and megabytes."""

FILE_BYTES_A_PART: Final = 32
"""And one more for so many bytes: honest files are signatures and hashes, at twice as many bytes
a part. An empty object of three bytes costs 45 times as many, and microseconds, to parse."""

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""One gRPC message, sent or received; one receipt or reply over HTTP."""

MAX_SIGNATURES: Final = 16
"""Signatures on one envelope."""

MAX_CHECKPOINTS: Final = MAX_BLOCKS
"""At most one for each full block."""

CLOCK_SKEW_SECONDS: Final = 300
"""By how much honest clocks of two parties may differ: as the default policy."""

MAX_ROUNDS: Final = FLIP_CHAIN_LENGTH
"""Every round uses a link of the chain."""

MAX_CHOICES: Final = 1024
"""Choices of one reply: eight times what OpenAI allows."""

MAX_NOTE_BYTES: Final = 128 * 1024
"""A signed note: sixteen post-quantum signatures of 5 kB each, as C2SP asks for, and its text."""

MAX_NOTE_LINE_BYTES: Final = 8 * 1024
"""A line of a note: one such signature in base64."""

MAX_NOTE_SIGNATURES: Final = 100
"""Signatures on one note, as in Go's sumdb."""

MAX_NOTE_NAME_BYTES: Final = 255
"""Name of a note's key, and origin of a log: what a cosignature of any kind can name."""

MAX_LOG_LEAF_BYTES: Final = 512
"""Data of one leaf of a verifier's log: a commitment's with the longest name has 329."""

MAX_LOG_ENTRIES: Final = 1024
"""Entries that a log gives at a time."""

MAX_EVIDENCE_BYTES: Final = 16 * 1024 * 1024
"""An evidence file, in JSON: a key set of the most keys, with room for both statements."""
