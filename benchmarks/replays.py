"""Verdicts that come out otherwise on another machine, and what replaying one costs.

python -m benchmarks.replays [AUDITS]

Sample traces, honest and with filler, are committed to and audited with the profile's models. Then
each bundle is replayed in processes that multiply, embed and vectorise as other processors do, and
with other numbers of threads. A verdict counts where any bit of it differs. Plain sums and products
are computed beside it: where they came out alike in all settings, none of this would show anything.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from benchmarks._common import real_table, report, skip
from coin_protocol.checks import Trust
from coin_protocol.cli.common import quiet_models
from coin_protocol.clock import wall_time
from coin_protocol.embedding import embed_texts
from coin_protocol.keys import ListedKey, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet, pinned, sign_key_set
from coin_protocol.models import Models
from coin_protocol.profile import Policy, Profile
from coin_protocol.receipt import read_bundle, write_file
from coin_protocol.signer import KeySigner, public_pem
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import envelope_pb2, receipt_pb2
from provider_sdk import Provider
from provider_sdk.replay import shipped_traces
from verifier_sdk import Auditor, ProviderClient, Recorder
from verifier_sdk.lab import ATTACKS, Library, Material, NotApplicableError, Trace, apply_attack
from verifier_sdk.replaying import replay_bundle
from verifier_sdk.semantic.choose import judge_for

_AUDITS: Final = 8
_WAIT: Final = 120.0
_PROVIDER, _VERIFIER = "provider", "verifier"
_PROFILES: Final = ("default", "demo")
_SECONDS_PER_BLOCK: Final = 0.06
"""More than the policy's greatest rate of decoding takes for 256 tokens."""

_SETTINGS: Final[dict[str, dict[str, str]]] = {
    "as it is": {},
    "one thread": {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    "two threads": {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"},
    **{
        f"OpenBLAS for {kind}": {"OPENBLAS_CORETYPE": kind}
        for kind in ("Prescott", "Sandybridge", "Haswell", "Zen", "SkylakeX")
    },
    "torch without AVX": {"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41"},
    "torch with AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2"},
    "MKL for SSE4.2": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "MKL_CBWR": "COMPATIBLE"},
    "numpy without AVX-512": {"NPY_DISABLE_CPU_FEATURES": "AVX512"},
    "numpy without AVX": {"NPY_DISABLE_CPU_FEATURES": "AVX FMA"},
}


def main() -> None:
    """Audit, and replay in each setting."""
    quiet_models()
    count = int(sys.argv[1]) if len(sys.argv) > 1 else _AUDITS
    if real_table(Profile.shipped("default")) is None:
        skip("replays", "no cached token table: run `coin table build` first")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(_audit(folder, count))
        seconds, plain = list[float](), set[str]()
        for setting, variables in _SETTINGS.items():
            found = _replayed(folder, variables)
            seconds.append(found["seconds"])
            plain.add(found["plain"])
            what = f"replays.differing.{setting.replace(' ', '_')}"
            report(what, found["differing"], unit="verdicts", better="lower", limit=0)
    report("replays.plain_results", len(plain), unit="count", better="higher", limit=2)
    report("replays.seconds", min(seconds), unit="s", better="lower")


def _replayed(folder: Path, variables: dict[str, str]) -> dict[str, Any]:
    """Replay all bundles in a process with these settings."""
    settings = dict(variables)
    if "NPY_DISABLE_CPU_FEATURES" in settings:
        settings["NPY_DISABLE_CPU_FEATURES"] = _features(settings["NPY_DISABLE_CPU_FEATURES"])
    done = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-m", "benchmarks.replays", "--replay", str(folder)],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _features(prefixes: str) -> str:
    """Return what numpy dispatches on of these kinds, here."""
    found = np.show_config(mode="dicts")
    names = found["SIMD Extensions"]["found"] if found is not None else []
    return " ".join(name for name in names if name.startswith(tuple(prefixes.split())))


def replay(folder: Path) -> None:
    """Replay the bundles of a folder; print how many differ, the seconds of one, and `plain`."""
    quiet_models()
    keys = {
        name: VerificationKey.from_pem(name, (folder / f"{name}.pem").read_bytes())
        for name in (ROOT_KEY_NAME, _VERIFIER)
    }
    trust = Trust([keys[ROOT_KEY_NAME]], pinned("verifiers", [keys[_VERIFIER]]))
    policy = Policy.shipped()
    differing, seconds = 0, []
    for name in _PROFILES:
        models = Models(Profile.shipped(name))
        judge = judge_for(policy, models)
        _ = models.embedder
        for file in sorted(folder.glob(f"{name}-*.binpb")):
            bundle = read_bundle(file.read_bytes())
            start = time.perf_counter()
            found = replay_bundle(bundle, trust=trust, models=models, policy=policy, judge=judge)
            seconds.append(time.perf_counter() - start)
            if not found.judge:
                msg = f"{file.name}: wanted an audit with graded evidence"
                raise RuntimeError(msg)
            if found.difference is not None:
                differing += 1
                sys.stderr.write(f"{file.name}: {found.difference}\n")
    told = {"differing": differing, "seconds": float(np.median(seconds)), "plain": plain_result()}
    print(json.dumps(told))


def plain_result() -> str:
    """Return the digest of what numpy and torch compute as this processor does."""
    import torch

    rows = np.random.default_rng(1).random((64, 384))
    same = torch.from_numpy(rows)
    parts = rows @ rows.T, np.exp(rows), (same @ same.T).numpy(), torch.exp(same).numpy()
    return sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


# Audits to replay


async def _audit(folder: Path, count: int) -> None:
    """Leave bundles of so many audits, and the keys that their readers pin."""
    now = datetime.now(UTC)
    signers = [KeySigner.generate(name) for name in (ROOT_KEY_NAME, _PROVIDER, _VERIFIER)]
    root, signer, verifier = signers
    for one in (root, verifier):
        (folder / f"{one.public.name}.pem").write_bytes(public_pem(one.public))
    listed = ListedKey(signer.public, now - timedelta(days=1), now + timedelta(days=1))
    key_set = sign_key_set(_PROVIDER, [listed], root=root, issued_at=now, sequence=1)
    verifiers = pinned("verifiers", [verifier.public])
    trust = Trust([root.public], verifiers)
    for name in _PROFILES:
        models = Models(Profile.shipped(name))
        auditor = Auditor(
            name=_VERIFIER, signer=verifier, trust=trust, models=models, policy=Policy.shipped()
        )
        replies = islice(_replies(models), -(-count // len(_PROFILES)))
        for number, (trace, ids) in enumerate(replies):
            with Provider(
                name=_PROVIDER, signer=signer, key_set=key_set, models=models, verifiers=verifiers
            ) as provider:
                receipt = _reply(provider, trace, ids)
                client = cast("ProviderClient", _InProcess(provider))
                bundle = await auditor.audit(receipt, client)
            write_file(folder / f"{name}-{number:03}.binpb", bundle)


def _replies(models: Models) -> Iterator[tuple[Trace, npt.NDArray[np.uint32]]]:
    """Yield traces and what is committed for them: in turns the reasoning, and with filler."""
    traces = [
        Trace(one.id, one.id, one.domain, "a", one.question, one.reasoning, one.answer)
        for one in shipped_traces()
    ]
    library = Library(
        traces, models.tokenizer, lambda texts: embed_texts(models.embedder, texts).astype("f4")
    )
    attacks = [name for name, found in sorted(ATTACKS.items()) if not found.costly]
    for number, trace in enumerate(traces * len(attacks)):
        yield trace, library.ids(trace)
        name = attacks[number % len(attacks)]
        material = Material(trace, library.ids(trace), library.tokenizer, library, 1)
        placement = ATTACKS[name].placements[0]
        try:
            found = apply_attack(name, material, rate=0.5, placement=placement, block_size=256)
        except NotApplicableError:
            continue
        yield trace, found.ids


def _reply(provider: Provider, trace: Trace, ids: npt.NDArray[np.uint32]) -> receipt_pb2.Receipt:
    """Return what a client keeps of a reply that is decoded as fast as may be."""
    request = trace.question.encode()
    recorder = Recorder(request=request)
    session = provider.open_session(
        model="model", request=request, client_nonce=recorder.client_nonce
    )
    for start in range(0, len(ids), provider.profile.block_size):
        time.sleep(_SECONDS_PER_BLOCK)
        for checkpoint in session.append(ids[start : start + provider.profile.block_size]):
            recorder.checkpoint(checkpoint)
    recorder.answer_delta(trace.answer)
    usage = usage_for(prompt_tokens=1, reasoning_tokens=len(ids), answer_tokens=1, counting=INSIDE)
    commitment = session.finish(answer=trace.answer.encode(), answer_tokens=1, usage=usage)
    return recorder.finish(commitment=commitment, key_set=provider.key_set, billed=usage)


@dataclass(frozen=True)
class _InProcess:
    """What an auditor asks a provider, without a network."""

    provider: Provider

    async def served_key_set(self, *, within: float = 0.0) -> SignedKeySet:  # noqa: ARG002 - it never changes
        """Return the key set."""
        return SignedKeySet(self.provider.key_set, ())

    async def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        """Return manifest and fingerprints, once they are made."""
        self.provider.wait_ready(commitment_sha256, _WAIT)
        return self.provider.manifest(commitment_sha256)

    async def challenge(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope, *, whole: bool
    ) -> receipt_pb2.Round:
        """Return what comes of a challenge."""
        entry = receipt_pb2.Round(challenge=challenge, sent_at=wall_time())
        answer = self.provider.answer_whole if whole else self.provider.answer
        entry.opening.CopyFrom(answer(commitment_sha256, challenge))
        entry.received_at.CopyFrom(wall_time())
        return entry


if __name__ == "__main__":
    if sys.argv[1:2] == ["--replay"]:
        replay(Path(sys.argv[2]))
    else:
        main()
