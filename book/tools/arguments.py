"""Numbers on the command lines of the tools, each wrong one in a sentence."""

import argparse
import math
import socket


def whole(text: str) -> int:
    """A whole number, 1 or more: cores, jobs, threads."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


def positive(text: str) -> float:
    """A finite number above 0: a speed."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number


def check_port(port: int) -> None:
    """Refuse a port that cannot be served on, before anything is made or announced."""
    try:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise ValueError(f"port {port} cannot be used ({error}): name another one with PORT=8001.") from None
