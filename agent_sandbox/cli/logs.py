"""How the processes of Agent Sandbox log: readable lines on a terminal, JSON lines everywhere else."""

import errno
import logging
import sys
from typing import Any, Final, Literal, TextIO

import click
import structlog
from structlog.tracebacks import ExceptionDictTransformer

LogFormat = Literal["auto", "console", "json"]

_LEVELS: Final = ("debug", "info", "warning", "error")
_SECRET_WORDS: Final = ("token", "secret", "password", "authorization", "cookie", "credential")
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_HIDDEN: Final = "(hidden)"

log_level_option = click.option(
    "--log-level",
    type=click.Choice(_LEVELS),
    default="info",
    show_default=True,
    envvar="AGENT_SANDBOX_LOG_LEVEL",
    help="The least severe level that is logged.",
)
log_format_option = click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    show_default=True,
    help="auto: console on a terminal, JSON lines otherwise.",
)


class _Enduring:
    """A stream of text that goes on when its disk is full, and loses lines until there is room again.

    Without it, the line that tells of a full disk would end the process that could have outlived it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what there is room for."""
        try:
            return self._stream.write(text)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return len(text)

    def flush(self) -> None:
        """Flush what there is room for; the rest is tried again with the next line."""
        try:
            self._stream.flush()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise


def configure_logging(level: str, format: LogFormat = "auto") -> None:
    """Send structlog, and the standard library's loggers, to standard error."""
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    # Neither renderer shows the local variables of a traceback, as both would by default: tokens are among them.
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    tracebacks: list[structlog.typing.Processor] = (
        [] if console else [structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))]
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_secrets,
    ]
    stream: Any = _Enduring(sys.stderr)
    structlog.configure(
        processors=[*shared, *tracebacks, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tracebacks, renderer],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)


def _without_secrets(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Hide values whose name says that they are secret. We log none; this is for the mistake of tomorrow."""
    for name in event:
        if any(word in name.lower() for word in _SECRET_WORDS):
            event[name] = _HIDDEN
    return event
