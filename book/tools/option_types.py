"""Parsers of numbers on the tools' command lines, with errors of one sentence."""

import argparse
import math
import socket


def whole(text: str) -> int:
    """Parse an integer of at least 1. Raises ArgumentTypeError for others."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


def positive(text: str) -> float:
    """Parse a finite number above 0. Raises ArgumentTypeError for others."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number


def check_port(port: int) -> None:
    """Raise ValueError for a port that cannot be bound."""
    try:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise ValueError(f"port {port} cannot be used ({error}): choose another one, such as PORT=8001.") from None
