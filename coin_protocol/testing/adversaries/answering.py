"""Lies in openings: other parts than those drawn, another draw, parts that were not committed."""

from __future__ import annotations

import secrets
from concurrent.futures import Future
from hashlib import sha256
from typing import Final

from coin_protocol import envelope
from coin_protocol.commitment import TokenTree
from coin_protocol.draw import DrawnBlock, drawn_whole_by, flip_for
from coin_protocol.limits import FLIP_CHAIN_LENGTH, HASH_BYTES
from coin_protocol.opening import Opener
from coin_protocol.testing.adversaries.content import answers_windows
from coin_protocol.tokenizer import text_of
from coin_protocol.v1 import envelope_pb2, opening_pb2
from provider_sdk.answering import Answerer, Challenge
from provider_sdk.provider import Provider
from provider_sdk.record import SessionRecord
from provider_sdk.session import Session

_FALSE_EVERY: Final = 3
"""Of so many blocks `KindestLink` makes the embedding of one up."""


class TokenBlocksLeftOut(Provider):
    """Opens the blocks drawn with their embedding, and none of the token blocks."""

    class answerer_class(Answerer):
        """Leaves out token blocks."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the opening without them."""
            opening = super().open(record, message, step)
            opening.ClearField("token_blocks")
            return opening


class KinderTokens(Provider):
    """Opens other tokens of a token block than those drawn; another block where all were drawn."""

    class answerer_class(Answerer):
        """Picks positions."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the opening with other positions."""
            opening, opener = super().open(record, message, step), self.opener(record)
            for block in opening.token_blocks:
                block.CopyFrom(opener.token_block(_kinder(opener, block)))
            return opening


def _kinder(opener: Opener, block: opening_pb2.TokenBlockOpening) -> DrawnBlock:
    """Choose as many tokens as were drawn of a block, as few of these as there can be."""
    index, drawn = block.block_index, {token.position for token in block.tokens}
    if len(drawn) == opener.tree.entries[index].token_count:
        index, drawn = max(index - 1, 0), set()
    first_others = sorted(range(opener.tree.entries[index].token_count), key=drawn.__contains__)
    return DrawnBlock(index, tuple(sorted(first_others[: len(block.tokens)])))


class KinderBlocks(Provider):
    """Opens other blocks with their embedding than those drawn."""

    class answerer_class(Answerer):
        """Picks blocks."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the opening with other blocks."""
            opening, opener = super().open(record, message, step), self.opener(record)
            drawn = {block.block_index for block in opening.blocks}
            kinder = [index for index in range(opener.tree.block_count) if index not in drawn]
            for block, index in zip(opening.blocks, kinder, strict=False):
                block.CopyFrom(opener.block(DrawnBlock(index, ())))
            return opening


class PlausibleTokens(Provider):
    """Shows another token than the committed one in each token block, with its true row."""

    class answerer_class(Answerer):
        """Swaps tokens."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the opening with other tokens."""
            opening = super().open(record, message, step)
            for block in opening.token_blocks:
                self.swap(block.tokens[0])
            return opening

        def swap(self, token: opening_pb2.TokenOpening) -> None:
            """Put another token in the place of one."""
            token.token_id = (token.token_id + 1) % self.profile.vocabulary_size
            token.row = self.table.row(token.token_id)
            token.table_proof[:] = self.table.proof(token.token_id)


class SwappedToken(Provider):
    """Shows another last token than the committed one, with its true row."""

    class answerer_class(PlausibleTokens.answerer_class):
        """Swaps the last token."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the opening with another token at its edge."""
            opening = Answerer.open(self, record, message, step)
            self.swap(opening.edge.last_token)
            return opening


def _other_windows(opener: Opener, index: int) -> list[bytes]:
    """Return the windows of a block backwards, where they differ; else the next block's."""
    own = list(opener.windows[index])
    return own[::-1] if own[::-1] != own else list(opener.windows[index - 1])


class SwappedEmbedding(Provider):
    """Shows other embeddings than those committed."""

    class answerer_class(Answerer):
        """Swaps embeddings."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the opening with other windows."""
            opening, opener = super().open(record, message, step), self.opener(record)
            for block in opening.blocks:
                block.windows[:] = _other_windows(opener, block.block_index)
            return opening


class ForgedProof(Provider):
    """Shows paths to the signed root that it made up."""

    class answerer_class(Answerer):
        """Makes up proofs."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the opening with other proofs."""
            opening = super().open(record, message, step)
            made_up = [sha256(node).digest() for node in opening.edge.block_proof]
            opening.edge.block_proof[:] = made_up
            for block in opening.blocks:
                block.block_proof[:] = made_up
            return opening


class MadeUpFlip(Provider):
    """Draws by randomness of its own instead of the link that it committed to."""

    class answerer_class(Answerer):
        """Makes up flips."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return what another flip draws."""
            own = opening_pb2.AnsweredChallenge(
                challenge=step.challenge,
                flip_index=step.flip_index,
                flip=secrets.token_bytes(HASH_BYTES),
            )
            return super().open(record, message, own)


class FlipReused(Provider):
    """Gives every challenge the first link of its chain."""

    class answerer_class(Answerer):
        """Uses one link."""

        def step(
            self, record: SessionRecord, challenge: envelope_pb2.Envelope, message: Challenge
        ) -> opening_pb2.AnsweredChallenge:
            """Give the first link."""
            del message
            return opening_pb2.AnsweredChallenge(
                challenge=challenge, flip_index=1, flip=flip_for(record.flip_secret, 1)
            )


class KindestLink(Provider):
    """Makes every third embedding up, and answers with the link that draws none of them whole.

    It shows what was answered before, and not what was given the links that it passed over.
    """

    class session_class(Session):
        """Makes embeddings up."""

        def block_windows(self, tree: TokenTree, answer: bytes) -> list[Future[list[bytes]]]:
            """Return the answer's embedding for some blocks."""
            windows = super().block_windows(tree, answer)
            for index in range(0, tree.block_count, _FALSE_EVERY):
                tokens = tree.entries[index].token_count
                windows[index] = self.provider.run_later(
                    answers_windows, self.provider, answer, tokens
                )
            return windows

    class answerer_class(Answerer):
        """Picks links."""

        def step(
            self, record: SessionRecord, challenge: envelope_pb2.Envelope, message: Challenge
        ) -> opening_pb2.AnsweredChallenge:
            """Give the link that draws the fewest false blocks."""
            step = super().step(record, challenge, message)
            if not isinstance(message, opening_pb2.WholeBlockChallenge):
                return step

            def false_ones(index: int) -> int:
                flip = flip_for(record.flip_secret, index)
                drawn = drawn_whole_by(message, flip, record.tree.block_count)
                return sum(block % _FALSE_EVERY == 0 for block in drawn)

            # The next link itself would be no lie.
            kindest = min(range(step.flip_index + 1, FLIP_CHAIN_LENGTH + 1), key=false_ones)
            step.flip_index, step.flip = kindest, flip_for(record.flip_secret, kindest)
            return step


class _AltersWhole(Provider):
    """Alters the blocks that it opens whole."""

    def answer_whole(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope
    ) -> envelope_pb2.Envelope:
        """Return the opening with altered blocks, signed."""
        opened = super().answer_whole(commitment_sha256, challenge)
        opening = opening_pb2.WholeBlockOpening.FromString(opened.payload)
        for block in opening.blocks:
            self.alter(block, self.answerer.opener(self.store.get(commitment_sha256)))
        return envelope.sign(opening.SerializeToString(), envelope.WHOLE_OPENING, self.signer)

    def alter(self, block: opening_pb2.WholeBlock, opener: Opener) -> None:
        """Alter a block."""
        raise NotImplementedError


class WholeTextAltered(_AltersWhole):
    """Shows another text of a block opened whole than its ids spell."""

    def alter(self, block: opening_pb2.WholeBlock, opener: Opener) -> None:
        """Alter the text."""
        del opener
        block.text = block.text[::-1] + "."


class WholeIdsAltered(_AltersWhole):
    """Shows other ids of a block opened whole, with the text and the table entries of these."""

    def alter(self, block: opening_pb2.WholeBlock, opener: Opener) -> None:
        """Alter the first id."""
        block.token_ids[0] = (block.token_ids[0] + 1) % self.profile.vocabulary_size
        block.text = text_of(self.tokenizer, block.token_ids)
        block.ClearField("vocabulary")
        for token_id in sorted(set(block.token_ids)):
            block.vocabulary.add(
                token_id=token_id,
                fingerprint=opener.table.fingerprints[token_id].tobytes(),
                proof=opener.table.proof(token_id),
            )


class WholeSaltsAltered(_AltersWhole):
    """Shows other salts of a block opened whole."""

    def alter(self, block: opening_pb2.WholeBlock, opener: Opener) -> None:
        """Alter the salts."""
        del opener
        block.token_salts = block.token_salts[::-1]


class WholeEmbeddingSwapped(_AltersWhole):
    """Shows other embeddings of a block opened whole than those committed."""

    def alter(self, block: opening_pb2.WholeBlock, opener: Opener) -> None:
        """Swap the embedding."""
        block.windows[:] = _other_windows(opener, block.block_index)
