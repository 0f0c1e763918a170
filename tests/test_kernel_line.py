"""A widget's line to a page: one answer at a time, the latest request wins, and a page cannot make it grow."""

import threading
import time

import pytest

from widgets.kernel_line import KernelLine


class Line(KernelLine):
    """Answers by its number when it is let go; `told` is what went out."""

    def __init__(self):
        self.told, self.news, self.go, self.at_once, self.most_at_once = (
            [],
            threading.Condition(),
            threading.Event(),
            0,
            0,
        )
        super().__init__(self.tell)

    def tell(self, message: dict) -> None:
        with self.news:
            self.told.append((message["kind"], message.get("request")))
            self.news.notify_all()

    def work(self, message, buffers, stop) -> bool:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        if message["request"] == "bad":
            self.at_once -= 1
            raise ValueError("no such picture")
        while not (self.go.is_set() or stop.is_set()):
            time.sleep(0.001)
        self.at_once -= 1
        if not stop.is_set():
            self.tell({"kind": "done", "request": message["request"]})
        return not stop.is_set()

    def ask(self, request) -> None:
        self.receive({"kind": "answer", "request": request}, [])

    def until(self, *message) -> None:
        with self.news:
            assert self.news.wait_for(lambda: message in self.told, timeout=20)


@pytest.fixture
def line():
    return Line()


def test_a_thousand_requests_take_one_thread_and_the_last_one_is_answered(line):
    before = threading.active_count()
    for request in range(1000):
        line.ask(request)
        assert threading.active_count() <= before + 1
    line.go.set()
    line.until("done", 999)
    assert line.most_at_once == 1
    assert sorted(request for kind, request in line.told if kind == "stopped") == list(range(999))
    assert [request for kind, request in line.told if kind == "done"] == [999]


def test_it_answers_again_after_it_had_nothing_to_do_after_an_error_and_after_a_page_that_has_gone(line):
    line.go.set()
    line.ask(1)
    line.until("done", 1)
    line.ask("bad")
    line.until("error", "bad")
    tell, line.send = line.send, lambda message: 1 / 0
    ended = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: ended.set())
        line.ask("bad")
        assert ended.wait(20)
    line.send = tell
    line.ask(2)
    line.until("done", 2)


def test_a_request_that_waits_is_stopped_by_cancel_too(line):
    line.ask(1)
    line.ask(2)
    line.receive({"kind": "cancel"}, [])
    line.until("stopped", 1)
    line.until("stopped", 2)
    assert ("done", 2) not in line.told
