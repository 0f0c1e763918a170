"""Kernel side of the messages between a widget and its page: one request is answered while the next can arrive."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple


class _Request(NamedTuple):
    """A request of a page; `stop` is set once its answer is no longer needed."""

    message: dict
    buffers: Sequence[bytes]
    stop: threading.Event


class KernelLine(ABC):
    """Messages with one page. They arrive in the kernel's main thread; requests are answered in another, one at a time.

    A new request stops the one that is being answered and replaces the one that waits, so there is never more than one
    thread and one waiting request. Sent by `send`: `pong`; and for a request, by its number, the messages of `work`, or
    `stopped`, or `error` with one sentence.
    """

    def __init__(self, send: Callable[[dict], None]) -> None:
        self.send = send
        self._lock = threading.Lock()  # for the three attributes below
        self._stop = threading.Event()
        self._waiting: _Request | None = None
        self._answering = False

    def receive(self, message: dict, buffers: Sequence[bytes]) -> None:
        """Handle one message of the page: `ping`, `answer` or `cancel`."""
        kind = message.get("kind")
        if kind == "ping":
            self.send({"kind": "pong"})
        elif kind == "cancel":
            self._stop.set()
        elif kind == "answer":
            self._enqueue(_Request(message, buffers, threading.Event()))

    def _enqueue(self, request: _Request) -> None:
        with self._lock:
            self._stop.set()
            self._stop, replaced, self._waiting = request.stop, self._waiting, request
            if starts := not self._answering:
                self._answering = True
        if replaced is not None:
            self.send({"kind": "stopped", "request": replaced.message.get("request")})
        if starts:
            threading.Thread(target=self._answer_all, daemon=True).start()

    def _answer_all(self) -> None:
        """Answer requests until none waits."""
        try:
            while True:
                with self._lock:
                    request, self._waiting = self._waiting, None
                    if request is None:
                        self._answering = False
                        return
                self._answer(request)
        except BaseException:  # `send` fails where the page is closed
            with self._lock:
                self._answering = False
            raise

    @abstractmethod
    def work(self, message: dict, buffers: Sequence[bytes], stop: threading.Event) -> bool:
        """Answer one request by `send`; returns False where it was stopped before its end."""

    def _answer(self, request: _Request) -> None:
        number = request.message.get("request")
        try:
            finished = not request.stop.is_set() and self.work(request.message, request.buffers, request.stop)
        except Exception as error:  # shown in the page, because nobody reads this thread's traceback
            self.send({"kind": "error", "request": number, "text": _sentence(error)})
            return
        if not finished:
            self.send({"kind": "stopped", "request": number})


def _sentence(error: Exception) -> str:
    """The first line of an error's message, with the class unless it is a ValueError."""
    words = (str(error).strip().splitlines() or [""])[0]
    return words if isinstance(error, ValueError) and words else f"{type(error).__name__}: {words}".rstrip(": ")
