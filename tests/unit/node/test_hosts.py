"""Which names a node answers under."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from verifier_sdk.node.hosts import Hosts
from verifier_sdk.node.settings import NodeSettings

LOCAL = ("localhost", "LOCALHOST:8444", "localhost.", "127.0.0.1:1", "[::1]:8444", "10.1.2.3")
STRANGE = (
    "evil.example",
    "evil.example:8444",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil.example@localhost",
    "localhost, evil.example",
    "localhost:evil",
    "[evil]",
    "1.2.3",
    ".",
    "",
)


def test_without_tokens_names_of_this_machine_alone_are_answered() -> None:
    hosts = Hosts.of([], [], tokens=False)
    assert [host for host in LOCAL if not hosts.take(host)] == []
    assert [host for host in STRANGE if hosts.take(host)] == []


def test_where_tokens_say_who_calls_any_name_will_do_until_some_are_named() -> None:
    free = Hosts.of([], ["https://pages.example:8443"], tokens=True)
    assert all(free.take(host) for host in (*LOCAL, *STRANGE))
    named = Hosts.of(["node.example"], ["https://pages.example:8443"], tokens=True)
    assert named.take("node.example")
    assert named.take("Pages.example:8443")
    assert [host for host in LOCAL if not named.take(host)] == []
    assert [host for host in STRANGE if named.take(host)] == []


@pytest.mark.parametrize("name", ["https://node.example", "node.example:1", "", "a/b", "*", "-a"])
def test_a_host_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="without scheme and port"):
        NodeSettings(name="n", key=SecretStr("file:k"), http_hosts=[name])
    kept = NodeSettings(name="n", key=SecretStr("file:k"), http_hosts=["Node.Example"])
    assert kept.http_hosts == ["node.example"]
