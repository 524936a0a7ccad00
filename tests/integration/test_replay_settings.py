"""One bundle, replayed as other machines compute: the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from coin_protocol.testing.small import small_profile
from coin_protocol.v1 import profile_pb2
from tests.support.command import run_coin
from tests.support.files import AuditFiles, leave_files
from tests.support.judges import SPACE, learned_rules, rounds, write_model
from tests.support.parties import Parties, small_policy
from verifier_sdk.semantic.choose import judge_for

OLD = {
    "ATEN_CPU_CAPABILITY": "default",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Prescott",
    "OPENBLAS_NUM_THREADS": "1",
}
NEWER = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "2",
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[AuditFiles, Path]:
    """What an audit by a learned judge left behind, and the judge's file."""
    folder = tmp_path_factory.mktemp("judged")
    profile = small_profile(projection=SPACE, run_tokens=4)
    judge = folder / "judge.safetensors"
    model = write_model(judge, profile)

    def name(policy: profile_pb2.Policy) -> None:
        policy.semantic_model_sha256.append(model.digest)
        policy.learned_rules.CopyFrom(learned_rules())
        policy.rounds.CopyFrom(rounds())
        policy.rounds.whole_blocks = 2

    parties = Parties(profile=profile, policy=small_policy(name))
    found = judge_for(parties.policy, parties.models, judge)
    return leave_files(parties, folder, judge=found), judge


@pytest.mark.parametrize("machine", [OLD, NEWER], ids=["old", "newer"])
def test_a_verdict_has_the_same_bits_on_another_machine(
    judged: tuple[AuditFiles, Path], machine: dict[str, str]
) -> None:
    files, judge = judged
    named: list[str | Path] = [*files.bundle_options, "--judge", judge, "--json"]
    done = run_coin("bundle", "verify", files.bundle, *named, env=machine, small=True)
    assert done.code == 0, done.said
    assert done.document["same"] is True
    assert done.document["replayed"]["judge"] is True
    assert len(done.document["verdict"]["scores"]) > 10
    assert done.document["verdict"]["exposure"]["whole_blocks"] != "0"
