"""Mutations of blocks opened whole: their ids, salts, table entries and text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from coin_protocol.limits import TOKEN_SALT_BYTES
from coin_protocol.testing.forgeries import put
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Sites,
    Spot,
    where,
    whole_blocks,
)
from coin_protocol.testing.mutations.plans import Plan
from coin_protocol.testing.small import VOCABULARY
from coin_protocol.tokenizer import text_of
from coin_protocol.v1 import opening_pb2

Block = opening_pb2.WholeBlock
Table = opening_pb2.TableEntry


def _block(edit: Callable[[Spot, Block], object]) -> Callable[[Spot], Lie]:
    """Return a lie about one block opened whole."""
    return lambda at: at.edited(lambda block: edit(at, block))


# Ids and salts.


def _ids_exchanged(at: Spot, block: Block) -> None:
    put("token_ids", at.exchange(list(block.token_ids)))(block)


def _id_replaced(at: Spot, block: Block) -> None:
    """Show another id in some place, with its true entry of the table."""
    place = at.random.randrange(len(block.token_ids))
    other = (block.token_ids[place] + at.random.randrange(1, VOCABULARY)) % VOCABULARY
    block.token_ids[place] = other
    if other not in {known.token_id for known in block.vocabulary}:
        block.vocabulary.append(_entry(at.plan, other))


def _entry(plan: Plan, token_id: int) -> Table:
    table = plan.opener.table
    fingerprint = table.fingerprints[token_id].tobytes()
    return Table(token_id=token_id, fingerprint=fingerprint, proof=table.proof(token_id))


def _id_left_out(at: Spot, block: Block) -> None:
    """Show a token less, its salt left out as well."""
    place = at.random.randrange(len(block.token_ids))
    del block.token_ids[place]
    salts = _salts(block.token_salts)
    block.token_salts = b"".join((*salts[:place], *salts[place + 1 :]))


def _id_added(at: Spot, block: Block) -> None:
    """Show a token more, with a salt of its own."""
    block.token_ids.append(at.random.choice(block.token_ids))
    block.token_salts += at.made_up(TOKEN_SALT_BYTES)


def _salts(raw: bytes) -> list[bytes]:
    places = range(0, len(raw), TOKEN_SALT_BYTES)
    return [raw[place : place + TOKEN_SALT_BYTES] for place in places]


def _salt_altered(at: Spot, block: Block) -> None:
    block.token_salts = at.flip(block.token_salts)


def _salts_exchanged(at: Spot, block: Block) -> None:
    block.token_salts = b"".join(at.exchange(_salts(block.token_salts)))


def _salts_torn(at: Spot, block: Block) -> None:
    block.token_salts = block.token_salts[: at.random.randrange(len(block.token_salts))]


# Entries of the token table.


def _one_known(at: Spot, block: Block) -> Table:
    return at.random.choice(block.vocabulary)


def _entry_left_out(at: Spot, block: Block) -> None:
    del block.vocabulary[at.random.randrange(len(block.vocabulary))]


def _fingerprint_altered(at: Spot, block: Block) -> None:
    known = _one_known(at, block)
    known.fingerprint = at.flip(known.fingerprint)


def _entry_proof_altered(at: Spot, block: Block) -> None:
    known = _one_known(at, block)
    level = at.random.randrange(len(known.proof))
    known.proof[level] = at.flip(known.proof[level])


def _entry_of_another_id(at: Spot, block: Block) -> None:
    """Show for an id the entry of another one, which stands in the table."""
    known = _one_known(at, block)
    other = (known.token_id + at.random.randrange(1, VOCABULARY)) % VOCABULARY
    entry = _entry(at.plan, other)
    entry.token_id = known.token_id
    known.CopyFrom(entry)


def _entry_outside(at: Spot, block: Block) -> None:
    _one_known(at, block).token_id = VOCABULARY + at.random.randrange(9)


# Text.


def _text(how: Callable[[Spot, Block], str]) -> Callable[[Spot], Lie]:
    def edit(at: Spot, block: Block) -> None:
        block.text = how(at, block)

    return _block(edit)


def _spelled(plan: Plan, ids: Sequence[int]) -> str:
    return text_of(plan.world.models.tokenizer, ids)


def _backwards(at: Spot, block: Block) -> str:
    return _spelled(at.plan, list(block.token_ids)[::-1])


def _cut_short(at: Spot, block: Block) -> str:
    return block.text[: at.random.randrange(len(block.text))]


def _only_whole_characters(block: Block) -> str:
    return block.text.replace("\ufffd", "")


def _in_latin(plan: Plan, block: Block) -> str:
    tokenizer = plan.world.models.tokenizer
    return b"".join(map(tokenizer.token_bytes, block.token_ids)).decode("latin-1")


def _embeds(plan: Plan) -> bool:
    return plan.installed


def _reads(wanted: Callable[[Plan, Block], bool]) -> Sites:
    """Return the blocks opened whole whose text is wanted, where it is read."""
    return where(_embeds, whole_blocks(wanted))


_IDS_DIFFER: Final = whole_blocks(lambda _, block: len(set(block.token_ids)) > 1)
_SEVERAL: Final = whole_blocks(lambda _, block: len(block.token_ids) > 1)

# fmt: off
LEAVES: Final = (
    Mutation("whole-ids-exchanged", "Two ids of a block have changed places.",
             _IDS_DIFFER, _block(_ids_exchanged), "WHOLE_LEAVES"),
    Mutation("whole-id-replaced", "A block shows another id than the one committed.",
             whole_blocks(), _block(_id_replaced), "WHOLE_LEAVES"),
    Mutation("whole-token-left-out", "A block is shown without one of its tokens.",
             whole_blocks(), _block(_id_left_out), "WHOLE_LEAVES"),
    Mutation("whole-token-added", "A block is shown with a token more than it has.",
             whole_blocks(), _block(_id_added), "WHOLE_LEAVES"),
    Mutation("whole-salt-altered", "A block's salts are others by one bit.",
             whole_blocks(), _block(_salt_altered), "WHOLE_LEAVES"),
    Mutation("whole-salts-exchanged", "Two salts of a block have changed places.",
             _SEVERAL, _block(_salts_exchanged), "WHOLE_LEAVES"),
    Mutation("whole-salts-cut-short", "A part of a block's salts is shown.",
             whole_blocks(), _block(_salts_torn), "WHOLE_LEAVES"),
    Mutation("whole-entry-left-out", "A block does not show the table's entry of one of its ids.",
             whole_blocks(), _block(_entry_left_out), "WHOLE_LEAVES"),
    Mutation("whole-entry-altered", "The entry of one of a block's ids is another by one bit.",
             whole_blocks(), _block(_fingerprint_altered), "WHOLE_LEAVES"),
    Mutation("whole-entry-proof-altered", "A hash on an entry's path is another one by one bit.",
             whole_blocks(), _block(_entry_proof_altered), "WHOLE_LEAVES"),
    Mutation("whole-entry-of-another-id", "The entry of an id is that of another one.",
             whole_blocks(), _block(_entry_of_another_id), "WHOLE_LEAVES"),
    Mutation("whole-entry-outside", "An entry is of an id that the tokenizer has not.",
             whole_blocks(), _block(_entry_outside), "WHOLE_LEAVES"),
)

TEXTS: Final = (
    Mutation("text-left-out", "A block's ids are shown without their text.",
             _reads(lambda _, block: bool(block.text)), _text(lambda _, __: ""), "WHOLE_TEXT"),
    Mutation("text-made-up", "A block's text is another, and reads well.",
             where(_embeds, whole_blocks()),
             _text(lambda _, __: "Let me think about it step by step."), "WHOLE_TEXT"),
    Mutation("text-extended", "A block's text goes on after its ids.",
             where(_embeds, whole_blocks()),
             _text(lambda at, block: block.text + at.random.choice([" ", "\n", "x"])),
             "WHOLE_TEXT"),
    Mutation("text-cut-short", "A block's text ends before its ids do.",
             _reads(lambda _, block: bool(block.text)), _text(_cut_short), "WHOLE_TEXT"),
    Mutation("text-in-other-case", "A block's text has its letters in the other case.",
             _reads(lambda _, block: block.text.swapcase() != block.text),
             _text(lambda _, block: block.text.swapcase()), "WHOLE_TEXT"),
    Mutation("text-backwards", "A block's text is what its ids spell from the last one on.",
             _reads(lambda plan, block:
                    _spelled(plan, list(block.token_ids)[::-1]) != block.text),
             _text(_backwards), "WHOLE_TEXT"),
    Mutation("text-of-whole-characters", "What is cut in a block's text is left out of it.",
             _reads(lambda _, block: _only_whole_characters(block) != block.text),
             _text(lambda _, block: _only_whole_characters(block)), "WHOLE_TEXT"),
    Mutation("text-in-another-encoding", "A block's text is decoded as Latin-1.",
             _reads(lambda plan, block: _in_latin(plan, block) != block.text),
             _text(lambda at, block: _in_latin(at.plan, block)), "WHOLE_TEXT"),
)
# fmt: on
