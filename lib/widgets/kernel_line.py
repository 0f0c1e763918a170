"""The kernel's side of a widget's line to a page: requests are answered one at a time while the next one is heard."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence


class KernelLine(ABC):
    """Speaks with one page. Messages come in on the kernel's own thread; answers are made in others, one at a time.

    A newer request stops the one that is being answered, and takes its place. What goes out by `send`: `pong`; and for
    a request by its number what `work` sends, or `stopped`, or `error` with one sentence.
    """

    def __init__(self, send: Callable[[dict], None]) -> None:
        self.send = send
        self._one_at_a_time = threading.Lock()
        self._stop = threading.Event()

    def receive(self, message: dict, buffers: Sequence[bytes]) -> None:
        """Take one message of the page: `ping`, `answer` or `cancel`."""
        kind = message.get("kind")
        if kind == "ping":
            self.send({"kind": "pong"})
        elif kind == "cancel":
            self._stop.set()
        elif kind == "answer":
            self._stop.set()
            self._stop = threading.Event()
            threading.Thread(target=self._answer, args=(message, buffers, self._stop), daemon=True).start()

    @abstractmethod
    def work(self, message: dict, buffers: Sequence[bytes], stop: threading.Event) -> bool:
        """Answer one request by `send`; False where it was stopped before its end."""

    def _answer(self, message: dict, buffers: Sequence[bytes], stop: threading.Event) -> None:
        request = message.get("request")
        with self._one_at_a_time:
            try:
                finished = not stop.is_set() and self.work(message, buffers, stop)
            except Exception as error:  # whatever went wrong belongs on the page: nobody reads this thread's traceback
                self.send({"kind": "error", "request": request, "text": _sentence(error)})
                return
        if not finished:
            self.send({"kind": "stopped", "request": request})


def _sentence(error: Exception) -> str:
    """What went wrong, in the first line of the error's own words."""
    words = (str(error).strip().splitlines() or [""])[0]
    return words if isinstance(error, ValueError) and words else f"{type(error).__name__}: {words}".rstrip(": ")
