"""The command line: usage, exit codes, sentences instead of tracebacks."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coin_protocol.cli.common import guarded, table_models
from coin_protocol.errors import (
    CoinError,
    ConfigurationError,
    ExposureCapError,
    InvalidInputError,
    LimitError,
    MissingDependencyError,
    NotReadyError,
    PeerUnavailableError,
    SignatureError,
    VerificationError,
)
from coin_protocol.limits import MAX_FILE_BYTES
from coin_protocol.profile import Policy, Profile
from coin_protocol.signer import KeySigner, public_pem
from coin_protocol.testing.small import small_profile
from tests.support.command import ROOT, Coin, run_coin
from tests.support.parties import WAIT_SECONDS, small_policy, strict

# Commands


def test_the_command_has_the_commands_of_all_packages(coin: Coin) -> None:
    done = coin("--help")
    assert done.code == 0
    for name in (
        *("keys", "table", "receipt", "bundle", "profile", "policy", "tokenizer"),
        *("provider", "verifier", "audit", "ask", "demo", "bill", "doctor", "evidence", "witness"),
        "conformance",
    ):
        assert f" {name} " in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        *(["keys", verb] for verb in ("init", "rotate", "revoke", "sign", "show")),
        ["table", "build"],
        ["receipt", "verify"],
        ["bundle", "verify"],
        ["profile", "show"],
        ["profile", "make"],
        ["tokenizer", "add"],
        ["policy", "show"],
        *(
            ["provider", verb]
            for verb in ("serve", "worker", "replay", "config", "token", "sealing-key")
        ),
        ["gateway"],
        *(
            ["verifier", verb]
            for verb in (
                *("serve", "worker", "migrate", "backup", "restore", "purge", "config"),
                *("token", "account", "log-key"),
            )
        ),
        *(["witness", verb] for verb in ("serve", "key", "init")),
        ["bill", "check"],
        *(["conformance", verb] for verb in ("provider", "verifier")),
        ["evidence", "verify"],
        ["doctor"],
        ["audit"],
        ["ask"],
        ["demo"],
    ],
    ids=" ".join,
)
def test_every_command_explains_itself(coin: Coin, arguments: list[str]) -> None:
    done = coin(*arguments, "--help")
    assert done.code == 0
    assert f"coin {' '.join(arguments)} [OPTIONS]" in done.said


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["receipt"],
        ["nothing"],
        ["receipt", "verify"],
        ["receipt", "verify", "file"],
        ["bundle", "verify", "file", "--root", "missing.pem", "--verifier-key", "missing.pem"],
        ["keys", "init", "folder"],
        ["keys", "init", "folder", "--name", "a", "--role", "king"],
        ["keys", "init", "folder", "--name", "a", "--algorithm", "rsa"],
        ["keys", "init", "folder", "--name", "a", "--days", "0"],
        ["keys", "rotate", "missing"],
        ["keys", "revoke", "missing"],
        ["keys", "show", "missing"],
        ["provider", "serve"],
        ["provider", "serve", "--keys", "missing", "--name", "a", "--verifier", "a"],
        ["provider", "serve", "--config", "missing.toml"],
        ["provider", "worker", "--keys", "missing", "--name", "a", "--database", "mysql://x"],
        ["provider", "replay"],
        ["provider", "replay", "--keys", "missing", "--name", "a", "--verifier", "a=b"],
        ["gateway"],
        ["conformance", "provider"],
        ["verifier", "serve"],
        ["verifier", "serve", "--key", "k", "--name", "a", "--timeout", "0"],
        ["audit", "receipt"],
        ["ask", "math-01"],
        ["demo", "--nothing"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_code_2(coin: Coin, arguments: list[str]) -> None:
    assert coin(*arguments).code == 2


def test_the_installed_command_and_the_module_are_the_same() -> None:
    module = run_coin("profile", "show", "--json")
    script = subprocess.run(
        [Path(sys.executable).with_name("coin"), "profile", "show", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT_SECONDS,
    )
    assert (module.code, module.out) == (0, script.stdout)


def test_what_needs_no_models_loads_no_model_library() -> None:
    code = (
        "import sys; sys.argv = ['coin', 'policy', 'show', '--json']\n"
        "from coin_protocol.cli import main\n"
        "try: main()\n"
        "finally: print({'torch', 'transformers', 'mistral_common'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT_SECONDS,
    )
    assert done.stdout.splitlines()[-1] == "set()"


# Errors and exit codes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInputError("no"), 2),
        (LimitError("no"), 2),
        (ConfigurationError("no"), 2),
        (MissingDependencyError("no"), 2),
        (VerificationError("no"), 1),
        (SignatureError("no"), 1),
        (NotReadyError("no"), 3),
        (PeerUnavailableError("no"), 3),
        (ExposureCapError("no"), 3),
        (CoinError("no"), 3),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("no"), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_each_kind_of_error_has_its_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    def run() -> None:
        raise error

    assert guarded(run) == code
    out, err = capsys.readouterr()
    assert not out
    assert ("no" in err) == bool(str(error))


def test_what_runs_through_is_code_0() -> None:
    assert guarded(lambda: None) == 0


def test_a_bug_says_that_nothing_was_decided(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        raise RuntimeError

    guarded(run)
    assert "Nothing was decided" in capsys.readouterr().err


@pytest.mark.parametrize("error", [InvalidInputError("no"), ZeroDivisionError("no")])
def test_coin_debug_shows_tracebacks(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def run() -> None:
        raise error

    monkeypatch.setenv("COIN_DEBUG", "1")
    with pytest.raises(type(error)):
        guarded(run)


def test_coin_debug_shows_tracebacks_of_the_command(tmp_path: Path) -> None:
    done = run_coin("profile", "show", tmp_path / "missing", env={"COIN_DEBUG": "1"})
    assert done.code == 1
    assert "Traceback" in done.err
    assert "ConfigurationError" in done.err


def test_names_in_errors_are_no_markup(coin: Coin, tmp_path: Path) -> None:
    done = coin("profile", "show", tmp_path / "[bold]name[/red]")
    assert done.code == 2
    assert "[bold]name[/red]" in done.err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children take Ctrl-C, whatever the shell that started the tests made them inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_command_with_130(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_SECONDS)
        port = listener.getsockname()[1]
        arguments = ["ask", "math-01", "--provider", f"127.0.0.1:{port}", "--out", "receipt"]
        with subprocess.Popen(
            [sys.executable, "-m", "coin_protocol.cli", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            connection, _ = listener.accept()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=WAIT_SECONDS)
            connection.close()
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_a_reader_that_closes_the_pipe_is_no_failed_check() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "coin_protocol.cli", "profile", "show"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        code = process.wait(WAIT_SECONDS)
    assert code == 0


def test_a_command_whose_package_lacks_an_extra_says_what_to_install(
    coin: Coin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("verifier_sdk.cli", "verifier_sdk.node.cli"):
        monkeypatch.setitem(sys.modules, module, None)
    listed = coin("--help")
    assert listed.code == 0
    assert "Not installed" in listed.out
    for arguments in (["verifier", "serve", "--key", "k"], ["audit", "receipt"], ["verifier"]):
        done = coin(*arguments)
        assert done.code == 2, done
        assert "install coin-audit[provider,verifier]" in done.said
    # What does not need it still works.
    assert coin("policy", "show").code == 0


def test_a_file_larger_than_any_of_the_protocol_is_not_read(coin: Coin, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    (tmp_path / "root").write_bytes(public_pem(KeySigner.generate("root").public))
    done = coin("receipt", "verify", large, "--root", tmp_path / "root")
    assert done.code == 2
    assert str(MAX_FILE_BYTES) in done.said


# Profiles and policies


@pytest.mark.parametrize("name", ["default", "demo"])
def test_a_shipped_profile_is_shown_with_its_digest(coin: Coin, name: str) -> None:
    profile = Profile.shipped(name)
    shown = coin("profile", "show", name)
    assert shown.code == 0
    assert profile.digest.hex() in shown.out
    assert "tekken-240911" in shown.out
    document = coin("profile", "show", name, "--json").document
    assert document["sha256"] == profile.digest.hex()
    assert document["name"] == profile.message.name
    assert document["block_size"] == 256
    assert document["caps"]["tokens_ppm"] == 40_000
    assert document["caps"]["whole_blocks_ppm"] == (200_000 if name == "demo" else 0)


def test_the_shipped_policy_is_shown_with_its_digest(coin: Coin) -> None:
    policy = Policy.shipped()
    assert policy.digest.hex() in coin("policy", "show").out
    document = coin("policy", "show", "default", "--json").document
    assert document["sha256"] == policy.digest.hex()
    assert document["max_tokens_per_second"] == 5000.0
    assert document["rounds"]["max_rounds"] == 3


def test_profiles_and_policies_are_shown_from_files(coin: Coin, tmp_path: Path) -> None:
    profile, policy = small_profile(), small_policy(strict)
    (tmp_path / "profile").write_bytes(profile.raw)
    (tmp_path / "policy").write_bytes(policy.raw)
    shown = coin("profile", "show", tmp_path / "profile", "--json").document
    assert (shown["sha256"], shown["name"]) == (profile.digest.hex(), "small")
    shown = coin("policy", "show", tmp_path / "policy", "--json").document
    assert shown["sha256"] == policy.digest.hex()


# The token table


def test_a_token_table_is_built_and_named(tmp_path: Path) -> None:
    (tmp_path / "profile").write_bytes(small_profile().raw)
    done = run_coin("table", "build", "--profile", tmp_path / "profile", "--json", small=True)
    assert done.code == 0, done.err
    root = small_profile().message.tokenizer.token_table_root
    assert (done.document["rows"], done.document["root"]) == (300, root.hex())


def test_progress_is_shown_while_a_table_is_built_and_not_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with table_models(small_profile()) as models:
        assert models.progress is not None
        models.progress(1, 2)
        models.progress(2, 2)
    assert capsys.readouterr().out == ""


@pytest.mark.models
def test_the_real_token_table_has_the_profiles_root(coin: Coin) -> None:
    profile = Profile.shipped("default").message
    document = coin("table", "build", "--json").document
    assert document["rows"] == 131_072
    assert document["root"] == profile.tokenizer.token_table_root.hex()
    assert Path(document["path"]).is_file()
    shown = coin("table", "build")
    assert document["root"] in shown.out
    assert document["path"] in shown.out
