"""What an audit of 10,000 hidden tokens costs a verifier, in CPU.

python -m benchmarks.audit_cost

The default profile, real models, the learned judge; the provider is a process of its own, asked
over gRPC. Two plans of one round each: `four_blocks` opens four blocks of sixteen tokens, `shipped`
the first round of the policy that ships (four blocks with their embedding and tokens of all others;
the default profile lets no block be opened whole). Prompt and answer are embedded once before, as
where they are kept; `embedding` is what that costs each time they are not. CPU is that of the whole
process. The floor of the checks is what they cannot do without: each distinct input hashed once, of
token table proofs too, and each signature verified once. `signature` is what one of those takes on
this machine: most of the floor.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol
from unittest.mock import patch

from threadpoolctl import threadpool_limits

from benchmarks._common import report, skip
from benchmarks.gateway_cost import running
from coin_protocol import checks
from coin_protocol.checks import Case, Report, Trust
from coin_protocol.cli.common import quiet_models
from coin_protocol.embedding import TextEmbedder
from coin_protocol.files import read_file
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned
from coin_protocol.models import Models
from coin_protocol.profile import Policy, Profile
from coin_protocol.signer import signer_from_uri
from coin_protocol.table import table_path
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import profile_pb2, receipt_pb2
from tests.support.parties import VERIFIER
from verifier_sdk import deciding
from verifier_sdk.auditor import Auditor
from verifier_sdk.client import ProviderClient
from verifier_sdk.semantic import Judge, Judgement, OpenedEvidence, Visible
from verifier_sdk.semantic.learned import LearnedJudge
from verifier_sdk.semantic.model_file import ModelFile
from verifier_sdk.semantic.visible import visible_of

_AUDITS: Final = 20
_WARM: Final = 2
_GOAL_MS: Final = 12.0
_CHECKS_TO_FLOOR: Final = 2.0


class Seen:
    """What prompts and answers look like to a judge, read and embedded once each."""

    def __init__(self) -> None:
        """Know none."""
        self._seen: dict[tuple[bytes, bytes], Visible] = {}
        self.spent = 0.0

    def of(
        self,
        receipt: receipt_pb2.Receipt,
        spec: profile_pb2.EmbeddingSpec,
        tokenizer: Tokenizer,
        embedder: TextEmbedder,
    ) -> Visible:
        """Return what is known, or look."""
        name = receipt.request, receipt.answer
        if name not in self._seen:
            start = time.process_time()
            self._seen[name] = visible_of(receipt, spec, tokenizer, embedder)
            self.spent = time.process_time() - start
        return self._seen[name]


@dataclass
class Spent:
    """CPU seconds of one audit, by what they went into.

    Attributes:
        total: Of the process.
        checks: Of that, the deterministic checks, all times that they run.
        judge: Of that, the judge.
    """

    total: float = 0.0
    checks: float = 0.0
    judge: float = 0.0

    @property
    def rest(self) -> float:
        """Talking, signing, drawing, reading prompt and answer."""
        return self.total - self.checks - self.judge


class Meter:
    """Stands before checks and judge, and notes what they take."""

    def __init__(self, judge: Judge) -> None:
        """Measure this judge."""
        self.spent = Spent()
        self.last: Case | None = None
        self._judge = judge

    def judge(self, evidence: OpenedEvidence) -> Judgement:
        """Judge."""
        start = time.thread_time()
        try:
            return self._judge.judge(evidence)
        finally:
            self.spent.judge += time.thread_time() - start

    def run_checks(self, case: Case) -> Report:
        """Check."""
        self.last = case
        start = time.thread_time()
        try:
            return checks.run_checks(case)
        finally:
            self.spent.checks += time.thread_time() - start


class _Hash(Protocol):
    def digest(self) -> bytes: ...


class Floor:
    """What checks of a case hash and verify, each once, from prepared bytes."""

    def __init__(self, case: Case) -> None:
        """Run all checks once, and note what they hash and verify."""
        hashed: dict[bytes, None] = {}
        verified: dict[tuple[bytes, bytes, bytes], Any] = {}

        def noting(data: bytes) -> _Hash:
            hashed[bytes(data)] = None
            return sha256(data)

        verify = VerificationKey.verify

        def noting_verify(key: VerificationKey, signature: bytes, data: bytes) -> None:
            verified[key.spki, signature, data] = key.key
            verify(key, signature, data)

        with _patched(noting, noting_verify):
            checks.run_checks(afresh(case))
        self._hashed = list(hashed)
        self._verified = [(key, signature, data) for (_, signature, data), key in verified.items()]

    @property
    def hashes(self) -> int:
        """Distinct inputs."""
        return len(self._hashed)

    @property
    def signatures(self) -> int:
        """Distinct signatures."""
        return len(self._verified)

    def run(self) -> None:
        """Hash and verify."""
        for data in self._hashed:
            sha256(data).digest()
        self.verify()

    def verify(self) -> None:
        """Verify, alone."""
        for key, signature, data in self._verified:
            key.verify(signature, data)


def afresh(case: Case) -> Case:
    """Return the case of which nothing was looked at yet."""
    return Case(
        receipt=case.receipt,
        trust=case.trust,
        profile=case.profile,
        policy=case.policy,
        manifest=case.manifest,
        rounds=case.rounds,
        whole_rounds=case.whole_rounds,
        installed=case.installed,
    )


@contextmanager
def _patched(hashing: Callable[[bytes], Any], verify: Callable[..., None]) -> Iterator[None]:
    """Have the core hash and verify by these."""
    users = [
        module
        for name, module in sys.modules.items()
        if name.startswith("coin_protocol.") and getattr(module, "sha256", None) is sha256
    ]
    with ExitStack() as stack:
        for module in users:
            stack.enter_context(patch.object(module, "sha256", hashing))
        stack.enter_context(patch.object(VerificationKey, "verify", verify))
        yield


def _four_blocks(policy: profile_pb2.Policy) -> None:
    policy.rounds.max_rounds = 1
    policy.rounds.blocks_first_round = 4
    policy.rounds.tokens_per_block = 16
    policy.rounds.token_blocks_first_round = 0
    policy.rounds.whole_blocks = 0


def _shipped(policy: profile_pb2.Policy) -> None:
    policy.rounds.max_rounds = 1


PLANS: Final = {"four_blocks": _four_blocks, "shipped": _shipped}


def _policy(edit: Callable[[profile_pb2.Policy], None]) -> Policy:
    message = profile_pb2.Policy()
    message.CopyFrom(Policy.shipped().message)
    edit(message)
    return Policy.from_bytes(message.SerializeToString(deterministic=True))


@dataclass
class Bench:
    """A verifier, and a provider to audit.

    Attributes:
        folder: With keys and receipts.
        port: Of the provider.
        models: Of the profile.
        judge: The learned one. It is calibrated for the policy that ships: for its cost, not for
            its verdict, it judges another plan, too.
        seen: Prompts and answers.
        receipts: Not audited yet.
    """

    folder: Path
    port: int
    models: Models
    judge: LearnedJudge
    seen: Seen
    receipts: list[receipt_pb2.Receipt] = field(default_factory=list)

    def auditor(self, policy: Policy, meter: Meter) -> Auditor:
        """Return an auditor under a policy."""
        signer = signer_from_uri(f"file:{self.folder / 'verifier.pem'}", VERIFIER)
        root = VerificationKey.from_pem(ROOT_KEY_NAME, read_file(self.folder / "root.pub.pem"))
        return Auditor(
            name=VERIFIER,
            signer=signer,
            trust=Trust([root], pinned("verifiers", [signer.public])),
            models=self.models,
            policy=policy,
            judge=meter,
        )

    async def audits(self, policy: Policy, count: int) -> tuple[list[Spent], Case, set[str]]:
        """Make audits one after another; return what each cost, the last case, the outcomes."""
        meter = Meter(self.judge)
        vars(deciding)["run_checks"] = meter.run_checks
        auditor, spent, outcomes = self.auditor(policy, meter), [], set()
        async with ProviderClient(f"127.0.0.1:{self.port}", tls=None) as client:
            for _ in range(count):
                receipt = self.receipts.pop()
                meter.spent = Spent()
                start = time.process_time()
                bundle = await auditor.audit(receipt, client)
                meter.spent.total = time.process_time() - start
                if not meter.spent.judge:
                    msg = "an audit ended before its judge was asked: it would be a cheap one"
                    raise RuntimeError(msg)
                spent.append(meter.spent)
                verdict = receipt_pb2.Verdict.FromString(bundle.verdict.payload)
                outcomes.add(receipt_pb2.Outcome.Name(verdict.outcome))
        assert meter.last is not None  # noqa: S101 - it was asked
        return spent[_WARM:], meter.last, outcomes


def _least(call: Callable[[], object], rounds: int = 15) -> float:
    taken = []
    for _ in range(rounds):
        start = time.thread_time()
        call()
        taken.append(time.thread_time() - start)
    return min(taken)


def _measure(bench: Bench) -> None:
    for name, edit in PLANS.items():
        policy = _policy(edit)
        spent, case, outcomes = asyncio.run(bench.audits(policy, _WARM + _AUDITS))
        floor = Floor(case)
        bare = _least(floor.run)

        def tell(what: str, seconds: float, limit: float | None = None, plan: str = name) -> None:
            report(
                f"audit_cost.{plan}.{what}", 1e3 * seconds, unit="ms", better="lower", limit=limit
            )

        goal = _GOAL_MS if name == "four_blocks" else None
        tell("cpu_p50", statistics.median(one.total for one in spent), goal)
        tell("cpu_least", min(one.total for one in spent))
        for part in ("checks", "judge", "rest"):
            tell(part, statistics.median(getattr(one, part) for one in spent))
        tell("floor", bare)
        least = min(one.checks for one in spent)
        report(
            f"audit_cost.{name}.checks_to_floor",
            least / bare,
            unit="ratio",
            better="lower",
            limit=_CHECKS_TO_FLOOR if goal else None,
        )
        report(f"audit_cost.{name}.hashes", floor.hashes, unit="count", better="lower")
        report(f"audit_cost.{name}.signatures", floor.signatures, unit="count", better="lower")
        report(
            f"audit_cost.{name}.signature",
            1e6 * _least(floor.verify) / floor.signatures,
            unit="us",
            better="lower",
        )
        sys.stderr.write(f"{name}: {', '.join(sorted(outcomes))}\n")
    report("audit_cost.embedding", 1e3 * bench.seen.spent, unit="ms", better="lower")


def main() -> None:
    """Start a provider, and audit it."""
    quiet_models()
    profile = Profile.shipped("default")
    if not table_path(profile.message).exists():
        skip("audit_cost", "no token table: run `coin table build`")
        return
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        folder, count = Path(name), len(PLANS) * (_WARM + _AUDITS)
        command = ("benchmarks._audits.provider", name, str(count))
        with running(*command) as (_, ready):
            bench = _bench(profile, folder, ready["port"], count)
            _measure(bench)


def _bench(profile: Profile, folder: Path, port: int, count: int) -> Bench:
    import torch

    # As in a worker on one of many cores.
    torch.set_num_threads(1)
    models = Models(profile)
    seen = Seen()
    vars(deciding)["visible_of"] = seen.of
    judge = LearnedJudge.load(
        ModelFile.shipped(), profile, models.tokenizer, Policy.shipped().message.learned_rules
    )
    bench = Bench(folder, port, models, judge, seen)
    for number in range(count):
        raw = (folder / f"{number}.receipt").read_bytes()
        bench.receipts.append(receipt_pb2.Receipt.FromString(raw))
    return bench


if __name__ == "__main__":
    main()
