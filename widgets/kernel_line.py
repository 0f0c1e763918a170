"""The kernel's side of a widget's line to a page: requests are answered one at a time while the next one is heard."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple


class _Asked(NamedTuple):
    """A request of a page, and what is set when nobody wants its answer any longer."""

    message: dict
    buffers: Sequence[bytes]
    stop: threading.Event


class KernelLine(ABC):
    """Speaks with one page. Messages come in on the kernel's own thread; answers are made in another, one at a time.

    A newer request stops the one that is being answered, and takes the place of one that waits: however many a page
    sends, there is one thread and one request beside the one that it answers. What goes out by `send`: `pong`; and for
    a request by its number what `work` sends, or `stopped`, or `error` with one sentence.
    """

    def __init__(self, send: Callable[[dict], None]) -> None:
        self.send = send
        self._lock = threading.Lock()  # of what follows
        self._stop = threading.Event()
        self._waiting: _Asked | None = None
        self._answering = False

    def receive(self, message: dict, buffers: Sequence[bytes]) -> None:
        """Take one message of the page: `ping`, `answer` or `cancel`."""
        kind = message.get("kind")
        if kind == "ping":
            self.send({"kind": "pong"})
        elif kind == "cancel":
            self._stop.set()
        elif kind == "answer":
            self._take(_Asked(message, buffers, threading.Event()))

    def _take(self, asked: _Asked) -> None:
        with self._lock:
            self._stop.set()
            self._stop, replaced, self._waiting = asked.stop, self._waiting, asked
            if starts := not self._answering:
                self._answering = True
        if replaced is not None:
            self.send({"kind": "stopped", "request": replaced.message.get("request")})
        if starts:
            threading.Thread(target=self._answer_all, daemon=True).start()

    def _answer_all(self) -> None:
        """Answer one request after the other until none waits."""
        try:
            while True:
                with self._lock:
                    asked, self._waiting = self._waiting, None
                    if asked is None:
                        self._answering = False
                        return
                self._answer(asked)
        except BaseException:  # the page has gone, and hears nothing
            with self._lock:
                self._answering = False
            raise

    @abstractmethod
    def work(self, message: dict, buffers: Sequence[bytes], stop: threading.Event) -> bool:
        """Answer one request by `send`; False where it was stopped before its end."""

    def _answer(self, asked: _Asked) -> None:
        request = asked.message.get("request")
        try:
            finished = not asked.stop.is_set() and self.work(asked.message, asked.buffers, asked.stop)
        except Exception as error:  # whatever went wrong belongs on the page: nobody reads this thread's traceback
            self.send({"kind": "error", "request": request, "text": _sentence(error)})
            return
        if not finished:
            self.send({"kind": "stopped", "request": request})


def _sentence(error: Exception) -> str:
    """What went wrong, in the first line of the error's own words."""
    words = (str(error).strip().splitlines() or [""])[0]
    return words if isinstance(error, ValueError) and words else f"{type(error).__name__}: {words}".rstrip(": ")
