"""A verifier's log of commitments and verdicts: one RFC 9162 tree in SQL, under signed heads.

with writing(engine) as connection:      # with what is submitted, in one transaction
    enqueue(connection, CommitmentLeaf(provider, session_id, digest).to_bytes())
sequencer = Sequencer(engine, signer, origin="example.org/coin-log", head_file=path)
sequencer.run_once()                     # or `run`, on a thread
log = Log(engine)
head = log.head()                        # a C2SP checkpoint, with the cosignatures of witnesses
proof = log.inclusion(leaf_hash, head.size).proof
"""

from verifier_sdk.log.check import Checked, check_log
from verifier_sdk.log.errors import (
    LogDamagedError,
    LogForkError,
    NotLoggedYetError,
    NotSignedError,
    UnknownEntryError,
)
from verifier_sdk.log.heads import Head
from verifier_sdk.log.log import Inclusion, Log
from verifier_sdk.log.outbox import enqueue, enqueue_all, find_equivocation, waiting
from verifier_sdk.log.sequencer import Pass, Sequencer

__all__ = [
    "Checked",
    "Head",
    "Inclusion",
    "Log",
    "LogDamagedError",
    "LogForkError",
    "NotLoggedYetError",
    "NotSignedError",
    "Pass",
    "Sequencer",
    "UnknownEntryError",
    "check_log",
    "enqueue",
    "enqueue_all",
    "find_equivocation",
    "waiting",
]
