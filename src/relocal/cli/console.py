"""What the command line says while it works, and when it cannot."""

import errno
import logging
import socket
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import distributed

from relocal.errors import InputError

NOTHING_DONE, SOME_FAILED, INTERRUPTED = 2, 3, 130
LOG_EVERY_S = 30


@contextmanager
def progress_bar() -> Generator[Callable[[int, int, str], None]]:
    """A bar on the error stream: what is being done, how far it is, time left.

    Where that is no terminal, a line every half minute instead.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=8),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        last = time.monotonic()

        def report(done: int, total: int, text: str) -> None:
            nonlocal last
            bar.update(task, completed=done, total=total, description=text)
            if not console.is_terminal and time.monotonic() - last > LOG_EVERY_S:
                last = time.monotonic()
                print(f"relocal: {text} ({done}/{total})", file=sys.stderr, flush=True)

        yield report


@contextmanager
def warnings_shown() -> Generator[None]:
    """Prints what the library warns of, as the command line's own warnings."""
    log, handler = logging.getLogger("relocal"), logging.Handler(logging.WARNING)
    handler.emit = lambda record: warn(record.getMessage())
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def is_first_process() -> bool:
    """Whether this process speaks for a training, which may run in several."""
    return not (distributed.is_available() and distributed.is_initialized()) or (
        distributed.get_rank() == 0
    )


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def check_address(host: str, port: int) -> None:
    """Refuses an address that cannot be listened at.

    Raises:
        InputError: If the port is none or taken, or the host is not this machine's.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"--port: must be 1 to 65535, not {port}.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        wrong = f"--port {port}" if error.errno == errno.EADDRINUSE else f"--host {host}"
        raise InputError(f"{wrong}: cannot be listened at ({error.strerror}).") from None


def complain(message: str) -> int:
    """Prints an error; nothing was done."""
    print(f"relocal: {message}", file=sys.stderr)
    return NOTHING_DONE


def warn(message: str) -> None:
    """Prints a warning."""
    print(f"relocal: {message}", file=sys.stderr)
