"""From an error to one line on stderr, with its notes below, and an exit code."""

from __future__ import annotations

import sys

import click

from cloudevents_bridge.cli.shell import complain, visible
from cloudevents_bridge.errors import BridgeError, DecodeError, ErrorCode, PublishError, SettleError

FAILED, USAGE, NOT_FOUND, DENIED, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 4, 5, 130

_EXIT_CODES: dict[ErrorCode, int] = {
    ErrorCode.INVALID_ARGUMENT: USAGE,
    ErrorCode.UNSUPPORTED: USAGE,
    ErrorCode.NOT_FOUND: NOT_FOUND,
    ErrorCode.PERMISSION_DENIED: DENIED,
    ErrorCode.UNAUTHENTICATED: DENIED,
    ErrorCode.UNAVAILABLE: UNAVAILABLE,
    ErrorCode.DEADLINE_EXCEEDED: UNAVAILABLE,
    ErrorCode.RESOURCE_EXHAUSTED: UNAVAILABLE,
}


def exit_code(error: BaseException) -> int:
    """The exit code, as `ceb --help` lists them."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        return USAGE
    if isinstance(error, BridgeError) and not isinstance(error, (PublishError, SettleError, DecodeError)):
        return _EXIT_CODES.get(error.code, FAILED)
    return FAILED


def describe(error: BaseException) -> str:
    """What is wrong and what to do, on one line."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message().rstrip('.')} (see {error.ctx.command_path} --help)"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, (BridgeError, OSError)):
        return str(error)
    return f"unexpected {type(error).__name__}: {error} (--debug shows where; please report it)"


def report(error: BaseException, *, debug: bool) -> int:
    """Say it on stderr, with the stack trace only for `debug`, and return the exit code."""
    if debug:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    code = exit_code(error)
    if code == INTERRUPTED:
        if sys.stderr.isatty():
            click.echo(err=True)  # ends the line on which the terminal wrote ^C
        complain(describe(error))
    else:
        complain(f"error: {describe(error)}", fg="red")
        for note in getattr(error, "__notes__", ()):
            click.echo("\n".join(map(visible, note.splitlines())), err=True)
    return code
