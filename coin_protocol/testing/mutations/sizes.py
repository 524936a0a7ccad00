"""Mutations of what binds a reply together: manifest, sizes, checkpoints and fingerprints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from coin_protocol import merkle
from coin_protocol.commitment import CommitmentBuilder
from coin_protocol.embedding import quantised_windows, window_texts
from coin_protocol.encoding import digest
from coin_protocol.opening import Opener
from coin_protocol.testing.forgeries import change, put, recommitted
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Site,
    Spot,
    checkpoints,
    has_manifest,
    where,
)
from coin_protocol.testing.mutations.plans import Plan, sized
from coin_protocol.testing.small import VOCABULARY
from coin_protocol.testing.world import Edit
from coin_protocol.v1 import receipt_pb2, statements_pb2

_UNATTRIBUTED: Final = receipt_pb2.FAULT_UNATTRIBUTED

Entry = statements_pb2.BlockEntry
Entries = Sequence[Entry]


def _entry(tokens: int, root: bytes) -> Entry:
    return Entry(token_count=tokens, token_root=root)


# The manifest. A lie of it is told to whoever asks.


def _manifest(how: Callable[[Spot, list[Entry]], Entries]) -> Callable[[Spot], Lie]:
    """Return what has the provider show other blocks than those it committed to."""
    return lambda at: Lie(manifest=change("blocks", lambda found: [*how(at, [*found])]))


def _root_altered(at: Spot, entries: list[Entry]) -> Entries:
    chosen = at.random.randrange(len(entries))
    root = at.flip(entries[chosen].token_root)
    entries[chosen] = _entry(entries[chosen].token_count, root)
    return entries


def _one_dropped(at: Spot, entries: list[Entry]) -> Entries:
    del entries[at.random.randrange(len(entries))]
    return entries


def _one_added(at: Spot, entries: list[Entry]) -> Entries:
    return [*entries, _entry(at.plan.block_size, at.made_up(32))]


def _two_exchanged(at: Spot, entries: list[Entry]) -> Entries:
    return at.exchange(entries)


def _token_moved(at: Spot, entries: list[Entry]) -> Entries:
    """Count a token in another block than its own: the sum stays."""
    giver, taker = at.random.sample(range(len(entries)), 2)
    entries[giver] = _entry(entries[giver].token_count - 1, entries[giver].token_root)
    entries[taker] = _entry(entries[taker].token_count + 1, entries[taker].token_root)
    return entries


def _two_merged(at: Spot, entries: list[Entry]) -> Entries:
    """Show two blocks as one, under the node over both."""
    first = at.random.randrange(len(entries) - 1)
    left, right = entries[first : first + 2]
    node = merkle.node_hash(left.token_root, right.token_root)
    merged = _entry(left.token_count + right.token_count, node)
    return [*entries[:first], merged, *entries[first + 2 :]]


def _of_a_sibling(at: Spot) -> Lie:
    return Lie(case=lambda case: replace(case, manifest=at.plan.sibling.manifest))


def _blocks(least: int) -> Callable[[Plan], bool]:
    """Return whether the manifest shows so many blocks at least."""
    return lambda plan: plan.manifest and plan.blocks >= least


def _droppable(plan: Plan) -> bool:
    """Whether a block less leaves some, where challenges need some."""
    return plan.manifest and plan.blocks > (1 if plan.steps else 0)


# Sizes. The liar's tree has them, or its commitment alone.


def _signs_more(at: Spot) -> Lie:
    """Sign and bill blocks that the tree lacks, all of them full."""
    plan, extra = at.plan, at.random.randint(1, 9)
    return Lie(commitment=sized(plan, plan.tokens + extra * plan.block_size, plan.blocks + extra))


def _signs_tokens(at: Spot) -> Lie:
    plan, extra = at.plan, at.random.randint(1, 9)
    return Lie(commitment=sized(plan, plan.tokens + extra, plan.blocks))


def _signs_fewer(at: Spot) -> Lie:
    plan, less = at.plan, at.random.randint(1, at.plan.tokens)
    return Lie(commitment=sized(plan, plan.tokens - less, plan.blocks))


def _signs_blocks(at: Spot) -> Lie:
    return Lie(commitment=change("block_count", lambda count: count + at.random.randint(1, 9)))


def _of_tree(
    entries_of: Callable[[Spot, list[Entry]], Entries],
) -> Callable[[Spot], Lie]:
    """Return what has a provider commit to a tree over other blocks, and sign its sizes.

    Its checkpoints are of that tree, as far as it has them. Nobody has asked it anything yet.
    """

    def lie(at: Spot) -> Lie:
        entries = entries_of(at, [*at.plan.opener.tree.entries])
        tokens = sum(entry.token_count for entry in entries)
        return Lie(
            opener=lambda honest: recommitted(honest, entries),
            commitment=sized(at.plan, tokens, len(entries)),
            ends=0,
        )

    return lie


def _short_inside(at: Spot, entries: list[Entry]) -> Entries:
    place = at.random.randrange(len(entries) - 1)
    return [*entries[:place], entries[-1], *entries[place:-1]]


def _last_overfull(at: Spot, entries: list[Entry]) -> Entries:
    extra = at.plan.block_size + at.random.randint(1, 9)
    return [*entries[:-1], _entry(extra, entries[-1].token_root)]


def _empty_block(at: Spot, entries: list[Entry]) -> Entries:
    """Put a block of no tokens somewhere."""
    place = at.random.randint(0, len(entries))
    return [*entries[:place], _entry(0, merkle.EMPTY_ROOT), *entries[place:]]


def _uneven(at: Spot, entries: list[Entry]) -> Entries:
    """Move a token of the tree from one block to another: the sum is right, blocks are not."""
    return _token_moved(at, entries)


def _ends_short(plan: Plan) -> bool:
    return plan.manifest and plan.blocks > 1 and plan.last < plan.block_size


def _tokens_to_miss(plan: Plan) -> bool:
    return plan.manifest and plan.tokens > 0


# Checkpoints. Sites give one; what is edited is that one alone.


def _checkpoint(
    edit: Callable[[Spot, statements_pb2.Checkpoint], object],
) -> Callable[[Spot], Lie]:
    def lie(at: Spot) -> Lie:
        def one(message: statements_pb2.Checkpoint) -> None:
            if message.block_count == at.site.index:
                edit(at, message)

        return Lie(checkpoint=one)

    return lie


def _other_root(at: Spot, message: statements_pb2.Checkpoint) -> None:
    message.token_root = at.flip(message.token_root)


def _other_session(at: Spot, message: statements_pb2.Checkpoint) -> None:
    message.session_id = at.made_up(16)


def _other_profile(at: Spot, message: statements_pb2.Checkpoint) -> None:
    message.profile_sha256 = at.made_up(32)


def _other_nonce(at: Spot, message: statements_pb2.Checkpoint) -> None:
    message.client_nonce = at.made_up(32)


def _inside_a_block(at: Spot, message: statements_pb2.Checkpoint) -> None:
    message.token_count += at.random.randint(1, 9)


def _past_the_end(at: Spot, message: statements_pb2.Checkpoint) -> None:
    message.block_count = at.plan.full_blocks + at.random.randint(1, 9)
    message.token_count = message.block_count * at.plan.block_size


def _other_prefix(at: Spot, message: statements_pb2.Checkpoint) -> None:
    """Give the root of another number of blocks of the very tree."""
    others = [count for count in range(1, at.plan.blocks + 1) if count != message.block_count]
    message.token_root = at.plan.honest.block_tree.root(at.random.choice(others))


def _sibling_checkpoint(at: Spot) -> Lie:
    """Put a checkpoint of another session in the receipt, signed as it was."""
    other = at.plan.sibling.receipt.checkpoints[_kept_at(at)].checkpoint
    return Lie(receipt=put(f"{at.site.path}.checkpoint", other))


def _kept_at(at: Spot) -> int:
    return int(at.site.path.rpartition(".")[2])


def _rewritten(at: Spot) -> Lie:
    """Change a token after a checkpoint counted it, and commit to the new reasoning."""
    ids = _ids(at.plan)
    place = at.random.randrange(at.site.index * at.plan.block_size)
    ids[place] = (ids[place] + at.random.randrange(1, VOCABULARY)) % VOCABULARY
    return Lie(opener=_regenerated(at.plan, ids))


def _cut_off(at: Spot) -> Lie:
    """Commit to less reasoning than a checkpoint has counted."""
    left = at.random.randrange(at.site.index * at.plan.block_size)
    return Lie(opener=_regenerated(at.plan, _ids(at.plan)[:left]), ends=None if left else 0)


def _ids(plan: Plan) -> list[int]:
    found: list[int] = plan.opener.tree.token_ids.slice(0, plan.tokens).tolist()
    return found


def _regenerated(plan: Plan, ids: Sequence[int]) -> Callable[[Opener], Opener]:
    """Return what has a provider keep other ids under the same secret."""

    def forge(honest: Opener) -> Opener:
        models, size = plan.world.models, plan.block_size
        builder = CommitmentBuilder(
            honest.session, block_size=size, fingerprints=honest.table.fingerprints
        )
        builder.append(ids)
        spec = plan.profile.message.embedding
        windows = [
            quantised_windows(
                models.embedder, spec, window_texts(models.tokenizer, spec, ids[at : at + size])
            )
            for at in range(0, len(ids), size)
        ]
        return Opener(honest.session, builder.finish(), windows, size, honest.table)

    return forge


def _where_prefixes_are_known(plan: Plan) -> list[Site]:
    return checkpoints(plan) if plan.manifest else []


def _several_prefixes(plan: Plan) -> list[Site]:
    return _where_prefixes_are_known(plan) if plan.blocks > 1 else []


# Fingerprints.


def _fingerprints(edit: Callable[[Spot], Edit[Any]]) -> Callable[[Spot], Lie]:
    return lambda at: Lie(fingerprints=edit(at))


def _of_an_earlier_commitment(at: Spot) -> Lie:
    """Sign the commitment a second time, changed, after its fingerprints were made."""
    first = digest(at.plan.honest.receipt.commitment.payload)
    return Lie(
        commitment=put("model", "another model"), fingerprints=put("commitment_sha256", first)
    )


def _sibling_fingerprints(at: Spot) -> Lie:
    return Lie(receipt=put("fingerprints", at.plan.sibling.receipt.fingerprints))


def _covering_more(at: Spot) -> Edit[Any]:
    return change("size", lambda size: size + at.random.randint(1, 9))


def _covering_fewer(at: Spot) -> Edit[Any]:
    return change("size", at.random.randrange)


def _ready(plan: Plan) -> bool:
    return plan.ready


def _ready_blocks(plan: Plan) -> bool:
    return plan.ready and plan.blocks > 0


# fmt: off
MANIFESTS: Final = (
    Mutation("manifest-root-altered", "The manifest shows another root of a block.",
             where(_blocks(1)), _manifest(_root_altered), "MANIFEST_ROOT"),
    Mutation("manifest-block-dropped", "The manifest leaves out a block.",
             where(_droppable), _manifest(_one_dropped), "MANIFEST_ROOT"),
    Mutation("manifest-block-added", "The manifest shows a block more.",
             where(has_manifest), _manifest(_one_added), "MANIFEST_ROOT"),
    Mutation("manifest-blocks-exchanged", "Two blocks of the manifest have changed places.",
             where(_blocks(2)), _manifest(_two_exchanged), "MANIFEST_ROOT"),
    Mutation("manifest-token-moved", "The manifest counts a token in another block than its own.",
             where(_blocks(2)), _manifest(_token_moved), "MANIFEST_ROOT"),
    Mutation("manifest-blocks-merged", "The manifest shows two blocks as one, by an inner node.",
             where(_blocks(2)), _manifest(_two_merged), "MANIFEST_ROOT"),
    Mutation("manifest-of-another-commitment", "The manifest names a commitment of nobody's.",
             where(has_manifest), lambda at: Lie(manifest=put("commitment_sha256", at.made_up(32))),
             "MANIFEST_ROOT", fault=_UNATTRIBUTED),
    Mutation("manifest-of-another-session", "The provider shows another session's manifest.",
             where(has_manifest), _of_a_sibling, "MANIFEST_ROOT", fault=_UNATTRIBUTED),
)

SIZES: Final = (
    Mutation("size-beyond-tree", "Whole blocks are signed and billed that the tree lacks.",
             where(has_manifest), _signs_more, "SIZES"),
    Mutation("tokens-beyond-tree", "More tokens are signed and billed, in as many blocks.",
             where(has_manifest), _signs_tokens, "SIZES"),
    Mutation("tokens-below-tree", "Fewer tokens are signed and billed than the tree has.",
             where(_tokens_to_miss), _signs_fewer, "SIZES"),
    Mutation("blocks-beyond-tree", "More blocks are signed than the tree has, of as many tokens.",
             where(has_manifest), _signs_blocks, "SIZES"),
    Mutation("short-block-inside", "The short block stands before another one.",
             where(_ends_short), _of_tree(_short_inside), "SIZES"),
    Mutation("last-block-overfull", "The last block counts more tokens than a block holds.",
             where(_blocks(1)), _of_tree(_last_overfull), "SIZES"),
    Mutation("empty-block", "The tree has a block without tokens.",
             where(has_manifest), _of_tree(_empty_block), "SIZES"),
    Mutation("blocks-uneven", "A block of the tree counts a token more, another one fewer.",
             where(_blocks(2)), _of_tree(_uneven), "SIZES"),
)

CHECKPOINTS: Final = (
    Mutation("checkpoint-of-another-tree", "A checkpoint's root is that of no prefix.",
             _where_prefixes_are_known, _checkpoint(_other_root), "CHECKPOINT_PREFIX"),
    Mutation("checkpoint-of-another-prefix", "A checkpoint's root is of fewer blocks, or more.",
             _several_prefixes, _checkpoint(_other_prefix), "CHECKPOINT_PREFIX"),
    Mutation("checkpoint-naming-another-session", "A checkpoint names a session of nobody's.",
             checkpoints, _checkpoint(_other_session), "CHECKPOINT_PREFIX", fault=_UNATTRIBUTED),
    Mutation("checkpoint-naming-another-profile", "A checkpoint names another profile.",
             checkpoints, _checkpoint(_other_profile), "CHECKPOINT_PREFIX"),
    Mutation("checkpoint-naming-another-nonce", "A checkpoint answers another client's nonce.",
             checkpoints, _checkpoint(_other_nonce), "CHECKPOINT_PREFIX"),
    Mutation("checkpoint-inside-a-block", "A checkpoint counts tokens of a block not full yet.",
             checkpoints, _checkpoint(_inside_a_block), "CHECKPOINT_PREFIX"),
    Mutation("checkpoint-past-the-end", "A checkpoint counts blocks that the reply has not.",
             checkpoints, _checkpoint(_past_the_end), "CHECKPOINT_PREFIX"),
    Mutation("checkpoint-of-another-session", "A checkpoint of another session is in the receipt.",
             checkpoints, _sibling_checkpoint, "CHECKPOINT_PREFIX", fault=_UNATTRIBUTED),
    Mutation("reply-rewritten-after-a-checkpoint",
             "The reasoning was changed after a checkpoint of it, before the commitment.",
             _where_prefixes_are_known, _rewritten, "CHECKPOINT_PREFIX"),
    Mutation("reply-cut-off-after-a-checkpoint",
             "The commitment covers less reasoning than a checkpoint has counted.",
             checkpoints, _cut_off, "CHECKPOINT_PREFIX"),
)

FINGERPRINTS: Final = (
    Mutation("fingerprints-of-another-commitment", "The fingerprints name nobody's commitment.",
             where(_ready), lambda at: Lie(fingerprints=put("commitment_sha256", at.made_up(32))),
             "FINGERPRINTS", fault=_UNATTRIBUTED),
    Mutation("fingerprints-of-an-earlier-commitment",
             "The commitment was signed a second time, after its fingerprints.",
             where(_ready), _of_an_earlier_commitment, "FINGERPRINTS", fault=_UNATTRIBUTED),
    Mutation("fingerprints-of-another-session", "The provider shows another session's statement.",
             where(_ready), _sibling_fingerprints, "FINGERPRINTS", fault=_UNATTRIBUTED),
    Mutation("fingerprints-of-more-blocks", "The fingerprints cover more blocks than there are.",
             where(_ready), _fingerprints(_covering_more), "FINGERPRINTS"),
    Mutation("fingerprints-of-fewer-blocks", "The fingerprints leave out blocks.",
             where(_ready_blocks), _fingerprints(_covering_fewer), "FINGERPRINTS"),
)
# fmt: on
