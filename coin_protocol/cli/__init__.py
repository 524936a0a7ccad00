"""The `coin` command. Packages add commands with entry points in the group `coin.commands`."""

from coin_protocol.cli.main import main

__all__ = ["main"]
