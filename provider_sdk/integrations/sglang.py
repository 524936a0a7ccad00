"""SGLang's OpenAI server with receipts, in its own process.

COIN_CONFIG=provider.toml python -m provider_sdk.integrations.sglang --model-path MODEL

The arguments are those of `python -m sglang.launch_server`. SGLang has no option that adds a
middleware: this adds CoIn's to its application and starts it as it starts itself. Workers of
`--tokenizer-worker-num` import `app` from here, where SGLang's own variable tells them to.

Ids come with plain replies and with streamed completions. SGLang refuses them for streamed chats:
those are tokenized again, and their receipts say RETOKENIZED.
"""

from __future__ import annotations

import importlib
import os
import runpy
from typing import Any, Final

from coin_protocol.errors import ConfigurationError, MissingDependencyError
from provider_sdk.integrations.middleware import CoinMiddleware

_SERVER: Final = "sglang.srt.entrypoints.http_server"
_LAUNCHER: Final = "sglang.launch_server"
_APP_PATH: Final = "SGLANG_HTTP_SERVER_APP_PATH"
_OWN_PATH: Final = "provider_sdk.integrations.sglang:app"


def main() -> None:
    """Add the middleware, and start SGLang with the arguments of this command.

    Raises:
        MissingDependencyError: SGLang is not installed, or its server is elsewhere by now.
        ConfigurationError: Another application is configured for its workers.
    """
    if os.environ.get(_APP_PATH, _OWN_PATH) != _OWN_PATH:
        msg = f"{_APP_PATH} names another application than {_OWN_PATH}; unset it"
        raise ConfigurationError(msg)
    os.environ[_APP_PATH] = _OWN_PATH
    application()
    runpy.run_module(_LAUNCHER, run_name="__main__", alter_sys=True)


def application() -> Any:  # noqa: ANN401 - FastAPI's, which is SGLang's to import
    """Return SGLang's application with the middleware in it.

    Raises:
        MissingDependencyError: SGLang is not installed, or its server is elsewhere by now.
    """
    try:
        app = importlib.import_module(_SERVER).app
    except (ImportError, AttributeError) as error:
        msg = f"{_SERVER}.app cannot be imported; wanted SGLang 0.5 (its release 0.5.23 was read)"
        raise MissingDependencyError(msg) from error
    if all(middleware.cls is not CoinMiddleware for middleware in app.user_middleware):
        app.add_middleware(CoinMiddleware)
    return app


def __getattr__(name: str) -> Any:  # noqa: ANN401 - as above
    """Make the application when a worker asks for it, and not when this is imported."""
    if name != "app":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return application()


if __name__ == "__main__":
    main()
