"""Write a trained judge with its model card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from coin_protocol.errors import InvalidInputError
from coin_protocol.files import replace_file
from verifier_sdk.lab import SPLITS, Trace, split
from verifier_sdk.semantic.model_file import SHIPPED, ModelFile, rounds_of, space_of
from verifier_sdk.training.pipeline import Trained
from verifier_sdk.training.workshop import Workshop

CARD = "judge.md"


def write_judge(
    folder: Path,
    trained: Trained,
    workshop: Workshop,
    traces: Sequence[Trace],
    *,
    data: Sequence[Path],
    seed: int,
) -> ModelFile:
    """Write `judge.safetensors` and its card `judge.md`.

    Raises:
        InvalidInputError: The folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file: give a folder"
        raise InvalidInputError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    header = space_of(workshop.models.profile.message)
    header["rounds"] = rounds_of(workshop.rounds)
    header["calibration_questions"] = str(trained.questions)
    file = ModelFile.write(folder / SHIPPED, trained.tensors(), header)
    card = _card(file, workshop, traces, data, seed)
    replace_file(folder / CARD, card.encode())
    return file


def _card(
    file: ModelFile, workshop: Workshop, traces: Sequence[Trace], data: Sequence[Path], seed: int
) -> str:
    parts = split(traces)
    domains = sorted({trace.domain for trace in traces})
    rows = [
        f"| {name} | {len(parts[name])} | {len({trace.qid for trace in parts[name]})} | "
        + ", ".join(
            f"{domain} {count}" for domain, count in sorted(_questions(parts[name]).items())
        )
        + " |"
        for name in SPLITS
    ]
    files = [f"* `{path.name}`, SHA-256 `{file_digest(path)}`" for path in data]
    space = [f"| {name} | `{value}` |" for name, value in space_of(
        workshop.models.profile.message).items()]  # fmt: skip
    numbers = sum(tensor.size for tensor in file.tensors.values())
    return "\n".join(
        [
            "# Model card: the learned judge",
            "",
            (
                f"`{SHIPPED}`: {len(file.raw):,} bytes, {numbers:,} numbers in "
                f"{len(file.tensors)} tensors, SHA-256 `{file.digest.hex()}`."
            ),
            "",
            (
                "Judges whether the blocks that an audit opened are reasoning about the visible "
                "question and answer, or filler: matching heads over embeddings, readers of token "
                "runs and whole blocks, one detector a family of filler, and their calibration on "
                "honest sessions."
            ),
            "",
            "## Works for",
            "",
            "| | |",
            "|---|---|",
            *space,
            "",
            "Anything else is refused. Blocks of 256, 512 and 1,024 tokens.",
            "",
            "## Data",
            "",
            (
                f"{len(traces):,} reasoning traces of {len({trace.model for trace in traces})} "
                f"models on {len({trace.qid for trace in traces}):,} questions, split by "
                f"question; seed {seed}. The traces are not part of this project."
            ),
            "",
            *files,
            "",
            "| part | traces | questions | questions by domain |",
            "|---|---|---|---|",
            *rows,
            "",
            (
                f"Domains: {', '.join(domains)}. `train` made readers and heads, `detectors` the "
                "detectors, `calibration` their thresholds; `test` was used for nothing."
            ),
            "",
            "## Metrics",
            "",
            (
                "See `docs/detection.md`; `coin eval --data FILE --report DIR` measures them "
                "again, on these questions or on traces of your own."
            ),
            "",
            "## Limits",
            "",
            (
                "* Another model's real reasoning on the same question passes: no score of meaning "
                "tells who wrote a text."
            ),
            (
                "* Calibrated on the domains and models above. On others the rate of false alarms "
                "is not known: measure it before accusing anyone."
            ),
            "* Mostly English. Little Japanese, hardly anything else.",
            "* Few questions in code and science: their rates rest on few questions.",
            "",
        ]
    )


def _questions(traces: Sequence[Trace]) -> Counter[str]:
    return Counter(domain for _, domain in {(trace.qid, trace.domain) for trace in traces})


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        hasher = sha256()
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()
