"""What every command shares: exit codes, errors as sentences, output for people or machines."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from coin_protocol.checks import Trust
from coin_protocol.errors import (
    CoinError,
    ConfigurationError,
    InvalidInputError,
    TryLaterError,
    VerificationError,
)
from coin_protocol.files import read_file
from coin_protocol.keys import KeyRing, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned
from coin_protocol.models import Models
from coin_protocol.profile import Policy, Profile
from coin_protocol.root_certificate import RootDomain
from coin_protocol.v1 import receipt_pb2

if TYPE_CHECKING:
    from coin_protocol.transport import ClientTls, TlsFiles

PASSED: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
UNDECIDED: Final = 3

OUT: Final = Console()
ERR: Final = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ProfileOption = Annotated[
    str,
    typer.Option("--profile", help="Profile file, or one that ships: default, demo."),
]
PolicyOption = Annotated[
    str, typer.Option("--policy", help="Policy file, or one that ships: default, rules.")
]
TlsOption = Annotated[
    tuple[Path, Path, Path] | None,
    typer.Option(
        "--tls",
        help="CERT KEY CA: PEM files for mutual TLS. Without them only loopback is used.",
    ),
]
BearerOption = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--bearer",
        help="CA TOKEN: in place of --tls, PEM certificates that the server's chain must end in "
        "and a file with your bearer token.",
    ),
]
RootOption = Annotated[
    list[Path] | None,
    typer.Option("--root", help="Provider's root public key (PEM) that you pin.", exists=True),
]
RootDomainOption = Annotated[
    list[str] | None,
    typer.Option(
        "--root-domain",
        help="Provider's domain, a certificate of which signs its keys, instead of --root.",
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        help="Authorities (PEM) that may vouch for --root-domain; by default the system's.",
        exists=True,
    ),
]
OtherVerifiersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--other-verifier",
        help="NAME=PUBLIC_KEY.pem of another verifier that audits this provider: a commitment "
        "that one unknown asked about before cannot pass.",
    ),
]


def load_profile(name: str) -> Profile:
    """Return a shipped profile by name, or one from a file."""
    return Profile.shipped(name) if name in ("default", "demo") else Profile.from_file(Path(name))


def load_policy(name: str) -> Policy:
    """Return a shipped policy by name, or one from a file."""
    return Policy.shipped(name) if name in ("default", "rules") else Policy.from_file(Path(name))


def load_trust(
    roots: list[Path] | None,
    domains: list[str] | None,
    authorities: Path | None,
    verifiers: KeyRing,
) -> Trust:
    """Return whom `--root`, `--root-domain` and `--ca` say to believe.

    Raises:
        InvalidInputError: They name neither a root nor a domain, or authorities for no domain.
        ConfigurationError: The system's authorities cannot be read.
    """
    if not roots and not domains:
        msg = "say whom to believe: --root FILE or --root-domain DOMAIN"
        raise InvalidInputError(msg)
    if authorities is not None and not domains:
        msg = "--ca goes with --root-domain"
        raise InvalidInputError(msg)
    return Trust(
        provider_roots=[
            VerificationKey.from_pem(ROOT_KEY_NAME, read_file(path)) for path in roots or ()
        ],
        verifiers=verifiers,
        provider_domains=[
            RootDomain.from_system(domain)
            if authorities is None
            else RootDomain.from_file(domain, authorities)
            for domain in domains or ()
        ],
    )


def load_verifiers(own: VerificationKey, others: list[str] | None) -> KeyRing:
    """Return a verifier's key and those that `--other-verifier` names.

    Raises:
        InvalidInputError: A value is not NAME=PATH, or a file is no public key.
    """
    return pinned("verifiers", [own, *load_other_verifiers(others)])


def load_other_verifiers(others: list[str] | None) -> list[VerificationKey]:
    """Return the keys that `--other-verifier` names; errors as `load_verifiers`."""
    named = read_named_files(others or [])
    return [VerificationKey.from_pem(name, pem) for name, pem in named.items()]


def read_named_files(values: list[str]) -> dict[str, bytes]:
    """Return the contents of files given as NAME=PATH.

    Raises:
        InvalidInputError: A value is not of this form, or the file cannot be read.
    """
    found = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not name or not separator:
            msg = f"wanted NAME=PATH; found {value!r}"
            raise InvalidInputError(msg)
        found[name] = read_file(Path(path))
    return found


def tls_files(paths: tuple[Path, Path, Path] | None) -> TlsFiles | None:
    """Return the TLS files of a `--tls` option."""
    from coin_protocol.transport import TlsFiles

    return None if paths is None else TlsFiles(*paths)


def client_tls(
    tls: tuple[Path, Path, Path] | None, bearer: tuple[Path, Path] | None
) -> ClientTls | None:
    """Return the files of a client's `--tls` or `--bearer` option.

    Raises:
        InvalidInputError: Both were given.
    """
    from coin_protocol.transport import BearerFiles

    if tls is not None and bearer is not None:
        msg = "give --tls (your certificate) or --bearer (your token), not both"
        raise InvalidInputError(msg)
    return tls_files(tls) if bearer is None else BearerFiles(*bearer)


def quiet_models() -> None:
    """Keep model libraries from printing, and from spinning beside a busy neighbour.

    Call before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@contextmanager
def table_models(profile: Profile, **paths: Path | None) -> Iterator[Models]:
    """Give the profile's models, showing a progress bar should the table have to be built."""
    quiet_models()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=ERR, transient=True)
    task = progress.add_task("building the token table (once for this machine)", total=None)

    def show(done: int, total: int) -> None:
        # Started here, so that nothing is drawn where the table is cached.
        progress.start()
        progress.update(task, completed=done, total=total)

    try:
        yield Models(profile, progress=show, **paths)
    finally:
        if progress.live.is_started:  # else it would still end a line
            progress.stop()


def printable(text: str) -> str:
    r"""Return what others wrote as one line that cannot command the terminal.

    A name or a reason with a line break would look like two lines of ours: it shows as `\n`.
    """
    return printable_lines(text).replace("\n", r"\n")


def printable_lines(text: str) -> str:
    """Return a whole text of others, its lines kept: for what is shown by itself alone."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def show_named(digest: bytes, document: dict[str, object], *, as_json: bool) -> None:
    """Print a message that is known by its digest."""
    if as_json:
        print_json({"sha256": digest.hex(), **document})
        return
    OUT.print(f"[bold]sha256[/] {digest.hex()}", soft_wrap=True)
    OUT.print_json(data=document)


def print_json(document: object) -> None:
    """Print one JSON object on one line."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def as_document(message: Message) -> dict[str, Any]:
    """Return a message as JSON-ready values, defaults included."""
    document: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def short_name(enum: str, prefix: str) -> str:
    """Return `pass` for `OUTCOME_PASS` with prefix `OUTCOME_`."""
    return enum.removeprefix(prefix).lower()


def outcome_name(outcome: receipt_pb2.Outcome.ValueType) -> str:
    """Return PASS, FAIL or INCONCLUSIVE."""
    return receipt_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_")


def tier_name(tier: receipt_pb2.Tier.ValueType) -> str:
    """Return the tier's name as the documents spell it."""
    return short_name(receipt_pb2.Tier.Name(tier), "TIER_")


def exit_code(outcome: receipt_pb2.Outcome.ValueType) -> int:
    """Return the exit code of an outcome."""
    return {
        receipt_pb2.OUTCOME_PASS: PASSED,
        receipt_pb2.OUTCOME_FAIL: FAILED,
    }.get(outcome, UNDECIDED)


def guarded(run: Callable[[], object]) -> int:
    """Run a command; every error becomes a sentence and an exit code, never a traceback.

    `COIN_DEBUG=1` shows tracebacks.
    """
    try:
        run()
    except CoinError as error:
        if os.environ.get("COIN_DEBUG"):
            raise
        ERR.print(f"[bold red]error:[/] {_plain(error)}", highlight=False, soft_wrap=True)
        return _code_of(error)
    except ModuleNotFoundError as error:
        msg = f"this command needs {error.name}: install coin-audit\\[provider,verifier]"
        ERR.print(f"[bold red]error:[/] {msg}", highlight=False, soft_wrap=True)
        return WRONG_USAGE
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        # typer ends with 1, a failed check, when whoever reads its output hangs up.
        cause = stop.__context__
        if isinstance(cause, OSError) and cause.errno == errno.EPIPE:
            return PASSED
        raise
    except Exception as error:
        # A bug of ours: it must not look like a failed check, nor like a decision.
        if os.environ.get("COIN_DEBUG"):
            raise
        ERR.print(
            f"[bold red]internal error:[/] {type(error).__name__}: {_plain(error)}\n"
            "Nothing was decided. Run again with COIN_DEBUG=1 and report what it prints.",
            highlight=False,
            soft_wrap=True,
        )
        return UNDECIDED
    return PASSED


def _code_of(error: CoinError) -> int:
    if isinstance(error, TryLaterError):
        return UNDECIDED
    if isinstance(error, VerificationError):
        return FAILED
    if isinstance(error, (InvalidInputError, ConfigurationError)):
        return WRONG_USAGE
    return UNDECIDED


def _plain(error: BaseException) -> str:
    from rich.markup import escape

    return escape(printable(str(error)))
