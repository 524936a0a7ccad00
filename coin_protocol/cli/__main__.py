"""`python -m coin_protocol.cli` is `coin`."""

from coin_protocol.cli.main import main

main()
