"""Every liar, the threat that it plays, and what must find it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from coin_protocol.keys import ListedKey, VerificationKey
from coin_protocol.testing.adversaries import (
    answering,
    binding,
    content,
    counting,
    refusing,
    timing,
)
from provider_sdk.provider import Provider
from provider_sdk.replay import Replay

_DAY: Final = timedelta(days=1)
_ENDED: Final = timedelta(hours=1)


class Threat(StrEnum):
    """A row of the protocol's section 1 that a provider may try, in its words there."""

    BILL = "bills more than it committed to"
    SIZE = "signs a size larger than its tree"
    REPEATS = "repeats leaves or blocks"
    REPLAY = "replays another session's commitment"
    ROWS = "sends token vectors that no model made"
    EMBEDDINGS = "sends block vectors that score well"
    FORGERY = "forges after it saw the challenge"
    DRAW = "opens what it likes, or picks its own randomness"
    LINKS = "tries links of its flip chain, and takes the one whose draw suits it"
    KEYS = "signs with a key that has ended, or dates back"
    SILENCE = "refuses or delays"
    AFTERWARDS = "commits after the answer was given"
    REWRITES = "rewrites a reply between checkpoint and bill"
    SPLITS = "splits text into more tokens than its tokenizer would"
    FILLER = "fills in copied, retrieved or cheaply generated text"
    TWICE = "signs two commitments to one session"
    UNLISTED = ""
    """The section has no row for it."""


class Found(StrEnum):
    """How a lie is found out."""

    CHECK = "check"
    """A deterministic check fails: `Adversary.codes`."""
    GRADED = "graded"
    """No check fails: it is for the judge to weigh, who may be wrong."""
    EVIDENCE = "evidence"
    """Each audit by itself passes: two receipts together are evidence."""
    UNTIMED = "untimed"
    """No check fails, and the verdict has no `timed` tier."""
    UNDECIDED = "undecided"
    """Taken at the provider's word: the audit ends INCONCLUSIVE."""


def valid(key: VerificationKey, now: datetime) -> ListedKey:
    """List a key as good from yesterday to tomorrow."""
    return ListedKey(key, now - _DAY, now + _DAY)


def ended(key: VerificationKey, now: datetime) -> ListedKey:
    """List a key whose window ended an hour ago."""
    return ListedKey(key, now - _DAY, now - _ENDED)


def revoked(key: VerificationKey, now: datetime) -> ListedKey:
    """List a key that was revoked an hour ago."""
    return ListedKey(key, now - _DAY, now + _DAY, revoked_at=now - _ENDED)


@dataclass(frozen=True, slots=True)
class Adversary:
    """A lie, and how it must be found out.

    Attributes:
        name: Of its replay, in a server that has several.
        title: For people.
        caught_by: Code of the check that must fail; empty where none does.
        provider: Lies in commitments and answers.
        replay: Lies while it replies.
        threat: What it plays.
        found: How it is found out.
        or_by: Codes of checks that may fail instead: before `caught_by` where the draw falls on the
            lie, or of a verifier that takes what ours sends back.
        lists: How the provider's key set must list its key, given the time now.
    """

    name: str
    title: str
    caught_by: str
    provider: type[Provider] = Provider
    replay: type[Replay] = Replay
    threat: Threat = Threat.UNLISTED
    found: Found = Found.CHECK
    or_by: tuple[str, ...] = ()
    lists: Callable[[VerificationKey, datetime], ListedKey] = valid

    @property
    def codes(self) -> frozenset[str]:
        """The checks of which one must fail; none where it is found out otherwise."""
        return frozenset({self.caught_by, *self.or_by} - {""})


ADVERSARIES: Final = (
    Adversary(
        "over-reported-bill",
        "count over-reported in the bill",
        "BILL",
        counting.OverReportedBill,
        threat=Threat.BILL,
    ),
    Adversary(
        "size-beyond-tree",
        "signed size larger than the tree",
        "SIZES",
        counting.SizeBeyondTree,
        threat=Threat.SIZE,
    ),
    Adversary(
        "leaves-repeated",
        "leaves repeated",
        "LEAF_REPEATED",
        counting.LeavesRepeated,
        threat=Threat.REPEATS,
    ),
    Adversary(
        "made-up-rows",
        "token rows that no model produced",
        "TOKEN_ROW",
        content.MadeUpRows,
        threat=Threat.ROWS,
    ),
    Adversary(
        "copied-embedding",
        "block embedding copied from the answer's",
        "WHOLE_EMBEDDING",
        content.CopiedEmbedding,
        threat=Threat.EMBEDDINGS,
    ),
    Adversary(
        "replayed-commitment",
        "another session's commitment replayed",
        "CLIENT_NONCE",
        replay=binding.ReplayedCommitment,
        threat=Threat.REPLAY,
    ),
    Adversary(
        "refused-opening",
        "opening refused",
        "OPENING_PRESENT",
        refusing.RefusedOpening,
        threat=Threat.SILENCE,
    ),
    Adversary(
        "tokens-after-answer",
        "tokens committed after the answer",
        "ARRIVAL_TIME",
        replay=timing.TokensAfterAnswer,
        threat=Threat.AFTERWARDS,
    ),
)
"""Those that the demo plays, in its order."""

TOKEN_BLOCK_ADVERSARIES: Final = (
    Adversary(
        "token-blocks-left-out",
        "token blocks left out",
        "OPENING_PRESENT",
        answering.TokenBlocksLeftOut,
        threat=Threat.SILENCE,
    ),
    Adversary(
        "kinder-tokens",
        "kinder tokens opened than those drawn",
        "DRAW",
        answering.KinderTokens,
        threat=Threat.DRAW,
    ),
    Adversary(
        "plausible-tokens",
        "other tokens shown than committed",
        "INCLUSION_PROOF",
        answering.PlausibleTokens,
        threat=Threat.FORGERY,
    ),
)
"""Those that cheat where tokens alone are opened."""

_BILL_AND_SIZE: Final = (
    Adversary(
        "reasoning-billed-twice",
        "reasoning billed inside the completion and beside it",
        "BILL",
        counting.ReasoningBilledTwice,
        threat=Threat.BILL,
    ),
    Adversary(
        "told-otherwise",
        "another bill told than signed",
        "BILL",
        replay=counting.ToldOtherwise,
        threat=Threat.BILL,
    ),
    Adversary(
        "size-inside-block",
        "more tokens counted in a block than it has leaves",
        "BLOCK_COUNT",
        counting.SizeInsideBlock,
        threat=Threat.SIZE,
        or_by=("INCLUSION_PROOF",),
    ),
    Adversary(
        "leaf-repeated-in-block",
        "one leaf repeated inside a block",
        "LEAF_REPEATED",
        counting.LeafRepeatedInBlock,
        threat=Threat.REPEATS,
        or_by=("INCLUSION_PROOF",),
    ),
)

_BOUND_TO_ANOTHER: Final = (
    Adversary(
        "another-request",
        "commitment to another request",
        "REQUEST_DIGEST",
        binding.AnotherRequest,
        threat=Threat.REPLAY,
    ),
    Adversary(
        "another-answer",
        "commitment to another answer",
        "ANSWER_DIGEST",
        replay=binding.AnotherAnswer,
        threat=Threat.REPLAY,
    ),
    Adversary(
        "foreign-checkpoint",
        "checkpoints of another tree",
        "CHECKPOINT_PREFIX",
        binding.ForeignCheckpoint,
        threat=Threat.REWRITES,
    ),
    Adversary(
        "rewritten-reply",
        "tokens rewritten after the checkpoints",
        "CHECKPOINT_PREFIX",
        binding.RewrittenReply,
        threat=Threat.REWRITES,
    ),
    Adversary(
        "foreign-manifest",
        "manifest of another tree",
        "MANIFEST_ROOT",
        binding.ForeignManifest,
        threat=Threat.FORGERY,
    ),
    Adversary(
        "foreign-fingerprints",
        "fingerprints of another commitment",
        "OPENING_PRESENT",
        binding.ForeignFingerprints,
        threat=Threat.FORGERY,
        or_by=("FINGERPRINTS",),
    ),
    Adversary(
        "fewer-fingerprints",
        "fingerprints of all blocks but the last",
        "FINGERPRINTS",
        binding.FewerFingerprints,
        threat=Threat.FORGERY,
    ),
    Adversary(
        "two-commitments",
        "two commitments to one session",
        "",
        binding.TwoCommitments,
        threat=Threat.TWICE,
        found=Found.EVIDENCE,
    ),
)

_KEYS_AND_NAMES: Final = (
    Adversary("strangers-key", "signed with an unlisted key", "SIGNATURE", binding.StrangersKey),
    Adversary("anothers-name", "in another provider's name", "STATEMENT", binding.AnothersName),
    Adversary(
        "key-ended",
        "signed with a key that has ended",
        "KEY_WINDOW",
        threat=Threat.KEYS,
        lists=ended,
    ),
    Adversary(
        "dated-back",
        "dated back to before the key was revoked",
        "KEY_WINDOW",
        binding.DatedBack,
        threat=Threat.KEYS,
        lists=revoked,
    ),
    Adversary("another-profile", "under another profile", "PROFILE", binding.AnotherProfile),
)

_CONTENT: Final = (
    Adversary(
        "unnormed-embedding",
        "block embeddings that are not of unit norm",
        "WINDOW_EMBEDDING",
        content.UnnormedEmbedding,
        threat=Threat.EMBEDDINGS,
    ),
    Adversary(
        "split-tokens",
        "tokens split",
        "",
        content.SplitTokens,
        threat=Threat.SPLITS,
        found=Found.GRADED,
    ),
    Adversary(
        "copied-text",
        "its own text copied",
        "",
        content.CopiedText,
        threat=Threat.FILLER,
        found=Found.GRADED,
    ),
    Adversary(
        "retrieved-text",
        "reasoning about other questions filled in",
        "",
        replay=content.RetrievedText,
        threat=Threat.FILLER,
        found=Found.GRADED,
    ),
    Adversary(
        "cheap-text",
        "random tokens filled in",
        "",
        content.CheapText,
        threat=Threat.FILLER,
        found=Found.GRADED,
    ),
)

_OPENINGS: Final = (
    Adversary(
        "kindest-link",
        "the link of the chain picked that draws no false block",
        "FLIP",
        answering.KindestLink,
        threat=Threat.LINKS,
    ),
    Adversary(
        "swapped-token",
        "another last token shown than committed",
        "INCLUSION_PROOF",
        answering.SwappedToken,
        threat=Threat.FORGERY,
    ),
    Adversary(
        "swapped-embedding",
        "another embedding shown than committed",
        "INCLUSION_PROOF",
        answering.SwappedEmbedding,
        threat=Threat.FORGERY,
    ),
    Adversary(
        "forged-proof",
        "paths to the root made up",
        "INCLUSION_PROOF",
        answering.ForgedProof,
        threat=Threat.FORGERY,
    ),
    Adversary(
        "whole-text-altered",
        "another text shown of a block opened whole",
        "WHOLE_TEXT",
        answering.WholeTextAltered,
        threat=Threat.FORGERY,
    ),
    Adversary(
        "whole-ids-altered",
        "other ids shown of a block opened whole",
        "WHOLE_LEAVES",
        answering.WholeIdsAltered,
        threat=Threat.FORGERY,
    ),
    Adversary(
        "whole-salts-altered",
        "other salts shown of a block opened whole",
        "WHOLE_LEAVES",
        answering.WholeSaltsAltered,
        threat=Threat.FORGERY,
    ),
    Adversary(
        "whole-embedding-swapped",
        "another embedding shown of a block opened whole",
        "INCLUSION_PROOF",
        answering.WholeEmbeddingSwapped,
        threat=Threat.FORGERY,
    ),
    Adversary(
        "kinder-blocks",
        "kinder blocks opened than those drawn",
        "DRAW",
        answering.KinderBlocks,
        threat=Threat.DRAW,
    ),
    Adversary(
        "made-up-flip",
        "randomness of its own",
        "FLIP",
        answering.MadeUpFlip,
        threat=Threat.DRAW,
    ),
    Adversary(
        "flip-reused",
        "one link of the chain for every challenge",
        "FLIP",
        answering.FlipReused,
        threat=Threat.DRAW,
    ),
)

_SILENCE: Final = (
    Adversary(
        "manifest-withheld",
        "manifest withheld",
        "OPENING_PRESENT",
        refusing.ManifestWithheld,
        threat=Threat.SILENCE,
    ),
    Adversary(
        "answers-late",
        "answered past the deadline",
        "OPENING_PRESENT",
        refusing.AnswersLate,
        threat=Threat.SILENCE,
    ),
    Adversary(
        "late-dated-back",
        "answered past the deadline and dated back",
        "OPENING_PRESENT",
        refusing.LateDatedBack,
        threat=Threat.SILENCE,
    ),
    Adversary(
        "unsigned-answer",
        "answered without a signature",
        "OPENING_PRESENT",
        refusing.UnsignedAnswer,
        threat=Threat.SILENCE,
    ),
    Adversary(
        "made-up-refusal",
        "refused for a challenge of its own",
        "OPENING_PRESENT",
        refusing.MadeUpRefusal,
        threat=Threat.SILENCE,
    ),
    Adversary(
        "strangers-refusal",
        "refused for a challenge of a made-up verifier",
        "",
        refusing.StrangersRefusal,
        threat=Threat.SILENCE,
        found=Found.UNDECIDED,
    ),
)

_TIMING: Final = (
    Adversary(
        "commits-quietly",
        "tokens committed after the answer, without checkpoints",
        "",
        replay=timing.CommitsQuietly,
        threat=Threat.AFTERWARDS,
        found=Found.UNTIMED,
    ),
    Adversary(
        "bunched-checkpoints",
        "checkpoints kept back until the answer",
        "",
        replay=timing.BunchedCheckpoints,
        threat=Threat.AFTERWARDS,
        found=Found.UNTIMED,
    ),
)

ALL_ADVERSARIES: Final = (
    *ADVERSARIES,
    *TOKEN_BLOCK_ADVERSARIES,
    *_BILL_AND_SIZE,
    *_BOUND_TO_ANOTHER,
    *_KEYS_AND_NAMES,
    *_CONTENT,
    *_OPENINGS,
    *_SILENCE,
    *_TIMING,
)
"""Every liar whose end is known."""
