from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from coin_protocol.database.url import (
    check_database_url,
    database_passwords,
    shown_database_url,
)
from coin_protocol.errors import ConfigurationError
from coin_protocol.ops.effective import describe_settings
from coin_protocol.ops.fields import TlsSettings
from provider_sdk.ops.effective import effective_settings
from provider_sdk.ops.settings import ProviderSettings, load_settings

PLANTED = "Zq9planted7Kx"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [*os.environ]:
        if variable.startswith("COIN_") or variable == "CREDENTIALS_DIRECTORY":
            monkeypatch.delenv(variable)


def write(folder: Path, text: str) -> Path:
    path = folder / "provider.toml"
    path.write_text(text)
    return path


def load(file: Path | None = None, **given: object) -> ProviderSettings:
    return load_settings(ProviderSettings, file, **({"name": "acme", "keys": "keys"} | given))


def test_the_command_line_goes_before_environment_credentials_file_and_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "retention_days = 10")
    found = [load().retention_days, load(file).retention_days]
    (tmp_path / "coin_retention_days").write_text("20\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    found.append(load(file).retention_days)
    monkeypatch.setenv("COIN_RETENTION_DAYS", "30")
    found.append(load(file).retention_days)
    found.append(load(file, retention_days=40).retention_days)
    assert found == [90, 10, 20, 30, 40]


def test_what_the_command_line_does_not_say_is_left_to_the_others() -> None:
    assert load(retention_days=None).retention_days == 90


def test_a_table_is_put_together_from_all_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, '[tls]\ncertificate = "a.pem"\nkey = "b.pem"')
    monkeypatch.setenv("COIN_TLS__KEY", "c.pem")
    assert load(file).tls == TlsSettings(certificate=Path("a.pem"), key=Path("c.pem"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retension_days = 90", "retension_days: .*no such .*did you mean retention_days"),
        (
            "[tls]\ncertificate='a'\nkey='b'\nauthority='c'",
            r"tls\.authority: .*no such .*did you mean authorities",
        ),
        ("[tls]\ncertificate='a'", r"tls\.key: missing; .*COIN_TLS__KEY or in the file"),
        ("retention_days = 0", "retention_days: .*greater than or equal to 1"),
        ("lease_seconds = 5\nstore_deadline_seconds = 6", "must be below lease_seconds"),
        (f"listen = '{PLANTED}'", "listen: wanted HOST:PORT"),
        ("log_level = 'loud'", "log_level: "),
        (f"database = 'mysql://u:{PLANTED}@h/d'", "database: .*no store over this kind"),
        ("database = 'sqlite://'", "database: .*a store needs a file"),
        (f"embedding_workers = '{PLANTED}'", "embedding_workers: "),
        (f"name = '{PLANTED}' = 1", "is not TOML"),
    ],
)
def test_what_cannot_be_used_is_named_and_never_quoted(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        load(write(tmp_path, text))
    assert PLANTED not in str(error.value)


def test_a_setting_that_must_be_given_is_named() -> None:
    said = "name: missing; give it as --name, COIN_NAME or in the file; keys: missing; .*COIN_KEYS"
    with pytest.raises(ConfigurationError, match=said):
        load_settings(ProviderSettings, name=None)


def test_a_variable_that_is_no_setting_is_refused_with_what_it_may_have_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COIN_RETENSION_DAYS", PLANTED)
    with pytest.raises(ConfigurationError, match="did you mean COIN_RETENTION_DAYS") as error:
        load()
    assert PLANTED not in str(error.value)


def test_a_credential_that_is_no_setting_is_refused_with_what_it_may_have_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for other in ("coin_.keep", "coin_gateway_caller_key", "of_another_program"):
        (tmp_path / other).write_text(PLANTED)
    load()
    (tmp_path / "coin_databse").write_text(f"postgresql://u:{PLANTED}@h/d")
    with pytest.raises(ConfigurationError, match=r"coin_databse.*mean coin_database") as error:
        load()
    assert PLANTED not in str(error.value)


def test_a_variable_that_is_no_json_is_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COIN_VERIFIERS", f"{{{PLANTED}")
    with pytest.raises(ConfigurationError, match="verifiers") as error:
        load()
    assert PLANTED not in str(error.value)


def test_variables_of_other_components_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("COIN_CACHE_DIR", "COIN_KEY_PASSWORD", "COIN_GATEWAY_UPSTREAM"):
        monkeypatch.setenv(variable, "x")
    load()


def test_tables_of_other_components_are_left_to_them(tmp_path: Path) -> None:
    class Table(BaseModel):
        port: int = 1

    class Own(ProviderSettings):
        gateway: Table = Table()

    file = write(tmp_path, "[gateway]\nport = 2")
    load(file)
    assert load_settings(Own, file, name="a", keys="b").gateway.port == 2


@pytest.mark.parametrize("raw", [b"\xff", b"#" * (1 << 21)])
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "provider.toml"
    path.write_bytes(raw)
    with pytest.raises(ConfigurationError, match="provider"):
        load(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the settings"):
        load(tmp_path / "nowhere.toml")


def test_keys_are_found_in_their_folder_unless_named() -> None:
    found = load(keys="my keys")
    assert (found.signer_uri, found.sealing_uri) == (
        "keys:my%20keys",
        "file:my%20keys/sealing.key",
    )
    named = load(signer="pkcs11:token=a", sealing_key="file:b")
    assert (named.signer_uri, named.sealing_uri) == ("pkcs11:token=a", "file:b")


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1))
def test_the_effective_settings_are_json_without_a_secret(noise: str) -> None:
    secret = noise + PLANTED
    settings = load(
        database="postgresql://coin@db/coin",
        signer=f"pkcs11:token=a?pin-value={secret}",
        sealing_key=f"vault:{secret}",
    )
    found = effective_settings(settings)
    assert PLANTED not in json.dumps(found) + repr(settings) + str(settings)
    assert found["signer"] == "pkcs11:[redacted]"
    assert {*settings.secret_values()} >= {f"vault:{secret}"}


def test_the_database_is_shown_without_its_passwords() -> None:
    url = f"postgresql://coin:{PLANTED}1@db:5433/coin?sslpassword={PLANTED}2&sslmode=verify-full"
    check_database_url(url)
    shown = effective_settings(load(database=url))["database"]
    assert shown == "postgresql://coin:***@db:5433/coin?sslmode=verify-full&sslpassword=redacted"
    assert sorted(database_passwords(url)) == [f"{PLANTED}1", f"{PLANTED}2"]
    assert shown == shown_database_url(url)
    assert {f"{PLANTED}1", f"{PLANTED}2"} <= {*load(database=url).secret_values()}


def test_logs_may_name_the_database_and_not_its_password() -> None:
    found = {*load(database=f"postgresql://coin:{PLANTED}@db/coin").secret_values()}
    assert found == {PLANTED}
    assert not {*load(database="sqlite:////var/lib/coin/coin.db").secret_values()}


def test_every_setting_says_what_it_does() -> None:
    described = describe_settings(ProviderSettings)
    assert [setting.name for setting in described] == [*ProviderSettings.model_fields]
    assert all(setting.text for setting in described)
    assert {setting.name: setting.default for setting in described}["retention_days"] == "90"
