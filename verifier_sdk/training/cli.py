"""`coin train` and `coin eval`: a judge of one's own, and what a judge can and cannot see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coin_protocol.cli.common import (
    ERR,
    OUT,
    JsonOption,
    PolicyOption,
    ProfileOption,
    load_policy,
    load_profile,
    print_json,
    quiet_models,
)
from coin_protocol.errors import InvalidInputError
from coin_protocol.files import make_folder

if TYPE_CHECKING:
    from verifier_sdk.lab import Trace
    from verifier_sdk.training.workshop import Progress, Workshop

DataOption = Annotated[
    list[Path],
    typer.Option("--data", help="Traces as JSON Lines, gzipped if it ends in .gz; repeatable."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Folder that embeddings are kept in; an interrupted run goes on there."),
]
SeedOption = Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)]


class Split(StrEnum):
    """Which questions are evaluated."""

    TEST = "test"
    ALL = "all"


def train(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for the judge and its model card.")],
    seed: SeedOption = 1,
    cache: CacheOption = None,
    profile: ProfileOption = "default",
    policy: PolicyOption = "default",
    *,
    small: Annotated[
        bool, typer.Option("--small", help="A twentieth of the work, to try it out.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train and calibrate a judge on traces, of questions of every kind that it will see.

    With a fresh cache and no interruption, the same traces and seed give the same file on one
    machine.
    """
    with _progress() as progress:
        from verifier_sdk.lab import split as split_traces
        from verifier_sdk.training.background import readers_in_background
        from verifier_sdk.training.card import write_judge
        from verifier_sdk.training.pipeline import Size, train
        from verifier_sdk.training.workshop import kept_folder

        make_folder(out)
        workshop, traces = _workshop(data, cache, profile, policy, progress)
        size = Size.small() if small else Size()
        kept = cache or kept_folder()
        trained = train(
            workshop,
            traces,
            size=size,
            seed=seed,
            progress=progress,
            kept=kept,
            beside=readers_in_background(
                workshop.models.profile,
                split_traces(traces)["train"],
                size=size,
                kept=kept,
                progress=progress,
            ),
        )
        file = write_judge(out, trained, workshop, traces, data=data, seed=seed)
    document = {"judge": str(out), "sha256": file.digest.hex(), "bytes": len(file.raw)}
    if as_json:
        print_json(document)
    else:
        OUT.print(
            f"judge written to {out}, SHA-256 {file.digest.hex()}, {len(file.raw)} bytes\n"
            "Name that digest in your policy's semantic_model_sha256.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def evaluate(  # noqa: PLR0913, PLR0917 - the options of a command
    data: DataOption,
    report: Annotated[Path, typer.Option(help="Folder for report.json, report.md and plots.")],
    split: Annotated[
        Split, typer.Option(help="test: questions that `coin train` leaves out; all: every one.")
    ] = Split.TEST,
    model: Annotated[
        Path | None, typer.Option(help="Judge to evaluate; by default the one that ships.")
    ] = None,
    sampled: Annotated[
        float,
        typer.Option(
            help="Share of attacks, rates, placements and sizes that a trace plays.",
            min=0.0,
            max=1.0,
        ),
    ] = 0.05,
    per_question: Annotated[int, typer.Option(help="Traces of one question at most.", min=1)] = 2,
    adaptive: Annotated[
        int, typer.Option(help="Traces that the adaptive attacker plays, minutes each.", min=0)
    ] = 12,
    seed: SeedOption = 1,
    cache: CacheOption = None,
    profile: ProfileOption = "default",
    policy: PolicyOption = "default",
    *,
    as_json: JsonOption = False,
) -> None:
    """Measure what a judge detects, and whom it accuses falsely, on traces of your own."""
    with _progress() as progress:
        from verifier_sdk.lab import split as split_traces
        from verifier_sdk.semantic.baseline import DeepSetsJudge
        from verifier_sdk.semantic.cosine import CosineJudge
        from verifier_sdk.semantic.learned import LearnedJudge
        from verifier_sdk.semantic.model_file import ModelFile
        from verifier_sdk.training.adaptive import Oracle
        from verifier_sdk.training.compare import Comparison, extras
        from verifier_sdk.training.evaluate import Scope, evaluate
        from verifier_sdk.training.plans import chosen
        from verifier_sdk.training.report import write_report

        make_folder(report)
        file = ModelFile.shipped() if model is None else ModelFile.from_file(model)
        workshop, traces = _workshop(data, cache, profile, policy, progress)
        rules = load_policy(policy).message
        file.require_rounds(rules.rounds)
        judge = LearnedJudge.load(
            file, workshop.models.profile, workshop.models.tokenizer, rules.learned_rules
        )
        # Attackers who have the verifier's own judge use it.
        workshop.library = replace(workshop.library, suspicion=Oracle(workshop, judge))
        if split is Split.TEST:
            traces = split_traces(traces)["test"]
        lengths = [len(workshop.library.ids(trace)) for trace in traces]
        picked = chosen(traces, lengths, least=1, per_question=per_question, seed=seed)
        if not picked:
            msg = "no question of the traces is among those of the test split: use --split all"
            raise InvalidInputError(msg)
        others = Comparison(
            {
                "deepsets": DeepSetsJudge.read(file.tensors, judge.heads),
                "rules": CosineJudge(rules.cosine_rules),
            }
        )
        scope = Scope(sampled=sampled, seed=seed, costly=adaptive)
        results = list(evaluate(workshop, judge, picked, scope, progress, observe=others.observe))
        document = write_report(
            results,
            report,
            extras(
                file, data, others,
                split=split, seed=seed, sampled=sampled, traces=len(picked),
            ),
            calibration_sessions=file.calibration_questions,
        )  # fmt: skip
    if as_json:
        print_json({name: document[name] for name in ("targets", "false_alarms")})
    else:
        OUT.print(f"report written to {report}", markup=False, highlight=False, soft_wrap=True)


def _workshop(
    data: list[Path], cache: Path | None, profile: str, policy: str, progress: Progress
) -> tuple[Workshop, list[Trace]]:
    from coin_protocol.models import Models
    from verifier_sdk.lab import read_traces
    from verifier_sdk.training.workshop import Workshop, kept_folder

    traces = read_traces(data)
    models = Models(
        load_profile(profile), progress=lambda *at: progress("building the token table", *at)
    )
    folder = cache or kept_folder()
    make_folder(folder)
    return Workshop.opened(models, traces, load_policy(policy).message.rounds, folder), traces


@contextmanager
def _progress() -> Iterator[Progress]:
    """Give a progress callback that draws one bar for each thing that is done."""
    quiet_models()
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=ERR) as bars:

        def show(what: str, done: int, total: int) -> None:
            if total <= 0:
                return
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show
