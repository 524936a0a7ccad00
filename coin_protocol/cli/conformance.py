"""`coin conformance`: put cases to an implementation, somebody else's or one's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coin_protocol.cli.common import (
    BearerOption,
    CaOption,
    JsonOption,
    PolicyOption,
    ProfileOption,
    RootDomainOption,
    RootOption,
    TlsOption,
    client_tls,
    load_policy,
    load_profile,
    load_trust,
    quiet_models,
    read_named_files,
    table_models,
    tls_files,
)
from coin_protocol.conformance.case import CaseSource, Kind
from coin_protocol.conformance.judging import NotApplicable, Result, Told, run_live_cases
from coin_protocol.conformance.showing import Showing
from coin_protocol.errors import ConfigurationError, InvalidInputError, MissingDependencyError
from coin_protocol.files import read_file
from coin_protocol.keys import KeyRing, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned, pinned_verifiers

if TYPE_CHECKING:
    from grpc import aio

    from coin_protocol.conformance.own_providers import OwnSetting
    from coin_protocol.conformance.replies import Installed
    from coin_protocol.conformance.wire import Wire
    from coin_protocol.profile import Profile
    from coin_protocol.transport import ClientTls

TargetOption = Annotated[
    str | None, typer.Option(help="HOST:PORT of the implementation, reached over gRPC.")
]
CommandOption = Annotated[
    str | None,
    typer.Option(help="Program and arguments: a case on its input as JSON, the answer on output."),
]
LinesOption = Annotated[
    bool, typer.Option("--lines", help="The program stays: a case a line, an answer a line.")
]
TimeoutOption = Annotated[
    float, typer.Option(min=0.1, help="Seconds for one call, or for one answer of a program.")
]
CasesOption = Annotated[
    list[Path] | None,
    typer.Option(help="A folder of further cases of yours.", exists=True, file_okay=False),
]
OnlyOption = Annotated[
    list[str] | None, typer.Option(help="Name of a case, or a pattern such as 'evidence/*'.")
]
ListOption = Annotated[bool, typer.Option("--list", help="Show the cases and run none.")]
JunitOption = Annotated[Path | None, typer.Option(help="Write the report as JUnit XML as well.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(help="Does an implementation keep to the protocol?", no_args_is_help=True)
    group.command("provider")(provider)
    group.command("verifier")(verifier)
    app.add_typer(group, name="conformance")


def provider(  # noqa: PLR0913, PLR0917 - the options of a command
    target: TargetOption = None,
    command: CommandOption = None,
    root: RootOption = None,
    root_domain: RootDomainOption = None,
    ca: CaOption = None,
    key: Annotated[
        Path | None, typer.Option(help="Private key (PEM) of a verifier that the target knows.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="That verifier's name.")] = None,
    receipts: Annotated[
        list[Path] | None,
        typer.Option(help="Receipts of the target's replies: files, or folders of them."),
    ] = None,
    generate: Annotated[
        str | None,
        typer.Option(help="Have the target answer this question, where it replays traces."),
    ] = None,
    model: Annotated[str, typer.Option(help="Model that --generate asks.")] = "replay",
    profile: ProfileOption = "default",
    policy: PolicyOption = "rules",
    tls: TlsOption = None,
    bearer: BearerOption = None,
    timeout: TimeoutOption = 30.0,
    cases: CasesOption = None,
    only: OnlyOption = None,
    junit: JunitOption = None,
    *,
    lines: LinesOption = False,
    as_list: ListOption = False,
    as_json: JsonOption = False,
) -> None:
    """Drive a provider: its challenge service (--target), or a program (--command).

    Exit code 0: every case passed or was skipped. 1: a case failed. 3: nothing was decided.
    """
    showing = Showing(cases, only, junit, as_list=as_list, as_json=as_json)
    if _is_program(target, command, lines=lines):
        showing.put_to_program(Kind.PROVIDER_PROGRAM, command, timeout, lines=lines)
        return
    from coin_protocol.conformance.challenging import ProviderSetting
    from coin_protocol.conformance.provider import OPERATIONS, ProviderDriver

    chosen = showing.live(Kind.PROVIDER, OPERATIONS)
    if chosen is None:
        return
    reached_at = _wanted(target)
    from coin_protocol.conformance.asking import read_receipts
    from coin_protocol.signer import signer_from_uri

    if (key is None) != (name is None):
        msg = "--key and --name go together: the verifier that challenges"
        raise InvalidInputError(msg)
    signer = None if key is None or name is None else signer_from_uri(f"file:{key}", name)
    verifiers = pinned("verifiers", () if signer is None else [signer.public])
    loaded = load_profile(profile)
    files = client_tls(tls, bearer)
    setting = ProviderSetting(
        trust=load_trust(root, root_domain, ca, verifiers),
        profile=loaded,
        policy=load_policy(policy),
        signer=signer,
        name=name or "",
        installed=_models_of(loaded),
        receipts=read_receipts(receipts) if receipts else (),
        model=model,
        question=generate or "",
        anonymous=_anonymous(reached_at, files),
    )

    async def drive(told: Told) -> list[Result]:
        async with AsyncExitStack() as stack:
            wire = await _reached(reached_at, files, timeout, stack)
            return await run_live_cases(chosen, ProviderDriver(wire, setting).perform, told)

    showing.run_live(reached_at, Kind.PROVIDER, chosen, drive)


def verifier(  # noqa: PLR0913, PLR0917 - the options of a command
    target: TargetOption = None,
    command: CommandOption = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="Folder that `coin keys init --role provider` made, for this command's providers.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT at which the node calls those providers.")
    ] = "127.0.0.1:7950",
    provider_tls: Annotated[
        tuple[Path, Path, Path] | None,
        typer.Option(help="CERT KEY CA: PEM files of those providers for mutual TLS."),
    ] = None,
    verifier: Annotated[
        str | None, typer.Option(help="NAME=PUBLIC_KEY.pem of the node, as in its verdicts.")
    ] = None,
    traces: Annotated[
        Path | None,
        typer.Option(help="JSONL of traces that those providers replay; by default what ships."),
    ] = None,
    log_key: Annotated[
        str | None, typer.Option(help="Verifier key (vkey) of the node's log, or a file of it.")
    ] = None,
    profile: ProfileOption = "default",
    policy: PolicyOption = "default",
    tls: TlsOption = None,
    bearer: BearerOption = None,
    timeout: TimeoutOption = 30.0,
    audit_seconds: Annotated[
        float, typer.Option(min=1.0, help="Seconds for one audit of the node's.")
    ] = 120.0,
    cases: CasesOption = None,
    only: OnlyOption = None,
    junit: JunitOption = None,
    *,
    lines: LinesOption = False,
    as_list: ListOption = False,
    as_json: JsonOption = False,
) -> None:
    """Drive a verifier: a node (--target), or a program that checks evidence (--command).

    A node is given the replies of providers that this command runs, honest and lying; its settings
    must name them (docs/conformance.md). Exit codes as of `coin conformance provider`.
    """
    showing = Showing(cases, only, junit, as_list=as_list, as_json=as_json)
    if _is_program(target, command, lines=lines):
        showing.put_to_program(Kind.VERIFIER_PROGRAM, command, timeout, lines=lines)
        return
    from coin_protocol.conformance.verifier import OPERATIONS, VerifierDriver, VerifierSetting

    chosen = showing.live(Kind.VERIFIER, OPERATIONS, _lies(needed=keys is not None))
    if chosen is None:
        return
    reached_at = _wanted(target)
    from coin_protocol.cli.evidence import read_log_key

    if (keys is None) != (verifier is None):
        msg = "--keys (of the runner's providers) and --verifier (the node's key) go together"
        raise InvalidInputError(msg)
    verifiers = pinned_verifiers(read_named_files([] if verifier is None else [verifier]))
    loaded, rules = load_profile(profile), load_policy(policy)
    files = client_tls(tls, bearer)
    vkey = None if log_key is None else read_log_key(log_key)
    own = None
    if keys is not None:
        own = _own_setting(keys, loaded, rules.message.max_tokens_per_second, traces, verifiers)
    files_of_providers = tls_files(provider_tls)

    async def drive(told: Told) -> list[Result]:
        from coin_protocol.checks import Trust

        async with AsyncExitStack() as stack:
            wire = await _reached(reached_at, files, timeout, stack)
            providers = None
            if own is not None:
                from coin_protocol.conformance.own_providers import own_providers

                providers = await stack.enter_async_context(
                    own_providers(own, listen, files_of_providers)
                )
            setting = VerifierSetting(
                trust=Trust([] if keys is None else [_own_root(keys)], verifiers),
                profile=loaded,
                policy=rules,
                name="" if own is None else own.name,
                reply=None if providers is None else providers.reply,
                installed=_models_of(loaded),
                log_key=vkey,
                audit_seconds=audit_seconds,
                settle=(
                    f"The node's settings must name provider {own.name!r} with endpoint {listen} "
                    "and the root in --keys: see docs/conformance.md."
                    if own is not None
                    else ""
                ),
            )
            return await run_live_cases(chosen, VerifierDriver(wire, setting).perform, told)

    showing.run_live(reached_at, Kind.VERIFIER, chosen, drive)


def _is_program(target: str | None, command: str | None, *, lines: bool) -> bool:
    """Whether a program is driven, and no server.

    Raises:
        InvalidInputError: Both were named, or --lines without a program.
    """
    if target is not None and command is not None:
        msg = "give --target HOST:PORT or --command 'PROGRAM …', not both"
        raise InvalidInputError(msg)
    if lines and command is None:
        msg = "--lines goes with --command"
        raise InvalidInputError(msg)
    return command is not None


def _wanted(target: str | None) -> str:
    if target is None:
        msg = "say what to drive: --target HOST:PORT or --command 'PROGRAM …'"
        raise InvalidInputError(msg)
    return target


async def _reached(
    target: str, tls: ClientTls | None, seconds: float, stack: AsyncExitStack
) -> Wire:
    """Open a channel, and see that somebody answers.

    Raises:
        PeerUnavailableError: Nobody does.
        ConfigurationError: A file of TLS cannot be used, or the target needs one.
    """
    from coin_protocol.conformance.wire import Wire
    from coin_protocol.transport import open_channel

    channel = await stack.enter_async_context(open_channel(target, tls))
    wire = Wire(channel, target, seconds)
    await wire.reach()
    return wire


def _anonymous(target: str, tls: ClientTls | None) -> Callable[[], aio.Channel] | None:
    """Return what opens a channel that shows neither certificate nor token."""
    if tls is None:
        return None

    def opened() -> aio.Channel:
        import grpc
        from grpc import aio

        credentials = grpc.ssl_channel_credentials(tls.authorities.read_bytes())
        return aio.secure_channel(target, credentials)

    return opened


def _models_of(profile: Profile) -> Callable[[], Installed]:
    """Return what loads a profile's models when they are first needed."""
    kept: list[Installed] = []

    def installed() -> Installed:
        quiet_models()
        from coin_protocol.models import Models

        if not kept:
            models = Models(profile)
            try:
                kept.append((models.tokenizer, models.embedder))
            except ConfigurationError as error:
                msg = f"takes the profile's models: {error}"
                raise NotApplicable(msg) from error
            except ModuleNotFoundError as error:
                msg = f"takes the profile's models: {error.name} is missing; coin-audit[embedding]"
                raise NotApplicable(msg) from error
        return kept[0]

    return installed


def _lies(*, needed: bool) -> list[CaseSource]:
    """Return the cases of lying providers, where what they are made of is installed.

    Raises:
        MissingDependencyError: It is not, and they are needed.
    """
    try:
        from coin_protocol.conformance.own_providers import LiarCases
    except ModuleNotFoundError as error:
        if not needed:
            return []
        msg = (
            f"the runner's own providers need {error.name}: install coin-audit[provider], or "
            "leave out --keys to try the node's interface alone"
        )
        raise MissingDependencyError(msg) from error
    return [LiarCases()]


def _own_setting(
    keys: Path,
    profile: Profile,
    most_tokens_per_second: float,
    traces: Path | None,
    verifiers: KeyRing,
) -> OwnSetting:
    """Return what the runner's own providers are made of, loaded.

    Raises:
        InvalidInputError: The folder of keys, or the file of traces, cannot be read.
        ConfigurationError: The profile's models are not there.
    """
    from coin_protocol.conformance.own_providers import OwnSetting, read_samples
    from coin_protocol.key_folder import KeyFolder, file_uri
    from coin_protocol.rotation import RotatingSigner
    from coin_protocol.signer import signer_from_uri

    folder = KeyFolder(keys)
    owner = folder.read()[1].owner
    signer = RotatingSigner(keys, owner)
    samples = read_samples(traces)
    with table_models(profile) as models:
        _ = models.table, models.tokenizer, models.embedder
    return OwnSetting(
        name=owner,
        signer=signer,
        key_set=signer,
        root=None
        if not folder.root_path.exists()
        else signer_from_uri(file_uri(folder.root_path), ROOT_KEY_NAME),
        models=models,
        verifiers=verifiers,
        samples=samples,
        # Slow enough to be told from hashing, and no slower.
        tokens_per_second=most_tokens_per_second / 2,
    )


def _own_root(keys: Path) -> VerificationKey:
    """Return the root that the node must pin.

    Raises:
        InvalidInputError: It is not there.
    """
    from coin_protocol.key_folder import KeyFolder

    return VerificationKey.from_pem(ROOT_KEY_NAME, read_file(KeyFolder(keys).root_public_path))
