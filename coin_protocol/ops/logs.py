"""Structured logs on stderr: JSON a line, or colours on a terminal; secrets never.

    configure_logging(level="info", secrets=settings.secret_values())
    log = structlog.get_logger(__name__)
    log.info("session finished", tokens=session.token_count)

What libraries say through `logging` (uvicorn, aiohttp, grpc, sqlalchemy, alembic) takes the
same way, so it passes the same rules (`coin_protocol.ops.redact`). Give uvicorn
`log_config=None`, and leave SQLAlchemy's `echo` off.
"""

from __future__ import annotations

import copy
import logging
import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Literal, TextIO, cast, get_args

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from coin_protocol.errors import ConfigurationError
from coin_protocol.ops.redact import Redactor

_LOG = logging.getLogger(__name__)

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]

_MAX_TRACEBACK: Final = 16_384
_MAX_FRAMES: Final = 40

# These speak of every request or statement, with what is in it, or of their own loading.
_AT_LEAST_WARNING: Final = (
    "sqlalchemy.engine",
    "sqlalchemy.pool",
    "sqlalchemy.orm",
    "psycopg",
    "uvicorn.access",
    "aiohttp.access",
    "httpx",
    "httpcore",
    "openai",
    "hpack",
    "asyncio",
    "alembic",
    "faiss",
    "mistral_common",
    "sentence_transformers",
)
_OWN_HANDLERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "alembic", "sqlalchemy")


class _Redact:
    """The last processor before the renderer."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event.pop("color_message", None)  # uvicorn's, the same again for terminals
        del logger, method
        trace = event.pop("exception", None)
        # `event` is what the line says; it is text and scrubbed as such.
        said = event.pop("event", "")
        found = self._redactor.mapping(event)
        found["event"] = self._redactor.value(said)
        if isinstance(trace, str):
            found["exception"] = self._redactor.text(trace, _MAX_TRACEBACK)
        elif trace is not None:
            found["exception"] = self._redactor.value(trace)
        return cast("EventDict", found)


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Puts harmless copies in the place of a record's arguments before they become text."""

    def __init__(self, redactor: Redactor, chain: list[Processor], render: list[Processor]) -> None:
        super().__init__(foreign_pre_chain=chain, processors=render)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        args = record.args
        if args:
            record = copy.copy(record)
            if isinstance(args, tuple):
                record.args = tuple(self._harmless(value) for value in args)
            else:
                record.args = self._redactor.mapping(args)
        return super().format(record)

    def _harmless(self, value: object) -> object:
        if isinstance(value, (bytes, bytearray, memoryview, dict, list, tuple, set, frozenset)):
            return self._redactor.value(value)
        # Others become text by the format that the caller wrote, and that text is scrubbed.
        return value


class _Handler(logging.StreamHandler[TextIO]):
    """Says nothing of a line that cannot be formatted; `logging` would print its arguments."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        kind = sys.exc_info()[0]
        name = "an error" if kind is None else kind.__name__
        line = f"a log line of {record.name} could not be written: {name}\n"
        try:
            self.stream.write(line)
        except (OSError, ValueError):
            # stderr is gone; there is nobody left to tell.
            return


def configure_logging(
    *,
    level: LogLevel = "info",
    output: LogFormat = "auto",
    stream: TextIO | None = None,
    secrets: Iterable[str] = (),
) -> None:
    """Send every log line of this process to one place, without secrets.

    Args:
        level: Least grave level that is written.
        output: JSON, for people, or `auto`: for people where `stream` is a terminal.
        stream: Where to; by default stderr.
        secrets: Passwords and tokens of the configuration, cut out wherever they stand.

    Raises:
        ConfigurationError: No such level or format.
    """
    if level not in get_args(LogLevel) or output not in get_args(LogFormat):
        msg = (
            f"found log level {level!r} and format {output!r}; wanted one of "
            f"{', '.join(get_args(LogLevel))} and one of {', '.join(get_args(LogFormat))}"
        )
        raise ConfigurationError(msg)
    where = sys.stderr if stream is None else stream
    for_people = output == "console" or (output == "auto" and where.isatty())
    redactor = Redactor(secrets)
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _add_trace,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *chain,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(where)
    handler.setFormatter(_Formatter(redactor, chain, _renderers(redactor, for_people=for_people)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _OWN_HANDLERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name in _AT_LEAST_WARNING:
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Log what ends the process; Python would print it as it is."""
    if issubclass(kind, KeyboardInterrupt):
        return
    _LOG.critical("the process ends by an error", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        _LOG.critical(
            "a thread ends by an error",
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )


def _renderers(redactor: Redactor, *, for_people: bool) -> list[Processor]:
    first: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if for_people:
        return [
            *first,
            structlog.processors.format_exc_info,
            _Redact(redactor),
            _on_one_line,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    frames = ExceptionDictTransformer(show_locals=False, max_frames=_MAX_FRAMES)
    return [
        *first,
        structlog.processors.ExceptionRenderer(frames),
        _Redact(redactor),
        structlog.processors.JSONRenderer(sort_keys=True),
    ]


def _on_one_line(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    r"""Write line breaks as `\n`, so that nothing in a line looks like another line.

    A traceback has lines of its own, which are set in.
    """
    del logger, method
    trace = event.pop("exception", None)
    found = {name.replace("\n", r"\n"): _flat(value) for name, value in event.items()}
    if trace is not None:
        found["exception"] = "\n".join(f"    {line}" for line in str(trace).split("\n"))
    return found


def _flat(value: object) -> object:
    return value.replace("\n", r"\n") if isinstance(value, str) else value


def _add_trace(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Add the ids of the span under way, where OpenTelemetry is installed."""
    del logger, method
    # Nobody has started a span where nobody has imported it.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = f"{context.trace_id:032x}"
            event["span_id"] = f"{context.span_id:016x}"
    return event
