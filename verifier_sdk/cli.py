"""`coin audit` and `coin ask`: one audit, and one question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coin_protocol.cli.common import (
    ERR,
    OUT,
    BearerOption,
    CaOption,
    JsonOption,
    OtherVerifiersOption,
    PolicyOption,
    ProfileOption,
    RootDomainOption,
    RootOption,
    TlsOption,
    as_document,
    client_tls,
    exit_code,
    load_policy,
    load_profile,
    load_trust,
    load_verifiers,
    print_json,
    printable_lines,
    quiet_models,
)
from coin_protocol.cli.offline import print_verdict
from coin_protocol.files import read_file
from coin_protocol.receipt import read_receipt, write_file
from coin_protocol.v1 import receipt_pb2

if TYPE_CHECKING:
    from coin_protocol.transport import ClientTls
    from verifier_sdk.auditor import Auditor

KeyOption = Annotated[Path, typer.Option("--key", help="Verifier's private key (PEM).")]
NameOption = Annotated[str, typer.Option(help="Verifier's name.")]
JudgeOption = Annotated[
    str,
    typer.Option(
        "--judge",
        help="policy: what the policy names; rules: its cosine rules; or a model file it names.",
    ),
]


def audit(  # noqa: PLR0913, PLR0917 - the options of a command
    receipt: Annotated[Path, typer.Argument(help="Receipt, protobuf or JSON form.")],
    provider: Annotated[str, typer.Option(help="HOST:PORT of the provider.")],
    key: KeyOption,
    name: NameOption,
    root: RootOption = None,
    root_domain: RootDomainOption = None,
    ca: CaOption = None,
    bundle_out: Annotated[
        Path | None,
        typer.Option(help="Write the bundle here; JSON if the name ends in .json."),
    ] = None,
    other_verifier: OtherVerifiersOption = None,
    profile: ProfileOption = "default",
    policy: PolicyOption = "default",
    judge: JudgeOption = "policy",
    reference_model: Annotated[
        str | None,
        typer.Option(
            help="Causal language model, by Hugging Face name or folder: notes its "
            "surprise at blocks opened whole."
        ),
    ] = None,
    tls: TlsOption = None,
    bearer: BearerOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one call.", min=0.1)] = 30.0,
    *,
    as_json: JsonOption = False,
) -> None:
    """Audit a receipt: challenge the provider, check what it opens, give a verdict."""
    kept = read_receipt(read_file(receipt))
    status = ERR.status("auditing")
    auditor = _auditor(
        name,
        key,
        (root, root_domain, ca, other_verifier),
        profile,
        policy,
        judge,
        reference_model,
        on_round=lambda _, number: status.update(f"round {number}"),
    )
    with status:
        bundle = asyncio.run(_audit(auditor, kept, provider, client_tls(tls, bearer), timeout))
    if bundle_out is not None:
        write_file(bundle_out, bundle)
    verdict = receipt_pb2.Verdict.FromString(bundle.verdict.payload)
    if as_json:
        print_json(as_document(verdict))
    else:
        print_verdict(verdict)
    raise typer.Exit(exit_code(verdict.outcome))


def ask(
    question: Annotated[str, typer.Argument(help="A trace's id or question, like math-01.")],
    provider: Annotated[str, typer.Option(help="HOST:PORT of `coin provider replay`.")],
    out: Annotated[Path, typer.Option(help="Receipt to write; JSON if it ends in .json.")],
    model: Annotated[str, typer.Option(help="Name of the replayed model.")] = "replay",
    tls: TlsOption = None,
    bearer: BearerOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Ask a provider that replays traces, print the answer, keep the receipt."""
    receipt = asyncio.run(_ask(provider, model, question, client_tls(tls, bearer)))
    write_file(out, receipt)
    answer = receipt.answer.decode(errors="replace")
    if as_json:
        print_json({"receipt": str(out), "answer": answer})
    else:
        OUT.print(printable_lines(answer), markup=False, highlight=False)


async def _ask(
    target: str, model: str, question: str, tls: ClientTls | None
) -> receipt_pb2.Receipt:
    from coin_protocol.transport import open_channel
    from verifier_sdk.replay_client import ask_replay

    async with open_channel(target, tls) as channel:
        return await ask_replay(channel, model=model, question=question)


async def _audit(
    auditor: Auditor,
    receipt: receipt_pb2.Receipt,
    target: str,
    tls: ClientTls | None,
    seconds: float,
) -> receipt_pb2.Bundle:
    from verifier_sdk.client import ProviderClient

    async with ProviderClient(target, tls=tls, timeout=seconds) as client:
        return await auditor.audit(receipt, client)


def _auditor(
    name: str,
    key: Path,
    believed: tuple[list[Path] | None, list[str] | None, Path | None, list[str] | None],
    profile: str,
    policy: str,
    judge: str,
    reference: str | None = None,
    *,
    on_round: Callable[[str, int], None] | None = None,
) -> Auditor:
    quiet_models()
    from coin_protocol.models import Models
    from coin_protocol.signer import signer_from_uri
    from verifier_sdk.auditor import Auditor
    from verifier_sdk.semantic.choose import judge_for
    from verifier_sdk.semantic.cosine import CosineJudge
    from verifier_sdk.semantic.reader import ReferenceModel

    signer = signer_from_uri(f"file:{key}", name)
    roots, domains, authorities, others = believed
    models = Models(load_profile(profile))
    # Load now, not in the first audit.
    _ = models.tokenizer, models.embedder
    rules = load_policy(policy)
    path = None if judge in ("policy", "rules") else Path(judge)
    chosen = (
        CosineJudge(rules.message.cosine_rules)
        if judge == "rules"
        else judge_for(rules, models, path)
    )
    return Auditor(
        name=name,
        signer=signer,
        trust=load_trust(roots, domains, authorities, load_verifiers(signer.public, others)),
        models=models,
        policy=rules,
        judge=chosen,
        reference=None if reference is None else ReferenceModel(reference),
        on_round=on_round,
    )
