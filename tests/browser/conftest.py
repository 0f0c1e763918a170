"""The rendered book in headless Chromium: served from build/html, with everything that goes wrong on a page recorded.

def test_something(visit):
    visited = visit("notebooks/01_menagerie.html")      # waits for scripts, plots and widgets
    visited.page.locator(".something").click()          # a playwright Page
                                                        # problems that were recorded fail the test at its end
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from book.tools import chromium
from tests.browser.rendered_book import HTML

PATIENCE = 120_000  # milliseconds; a page takes two seconds, and much longer where the machine is busy
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def breaks_policy(said: str, address: str) -> bool:
    """Whether a message of the console tells of something that a page's policy stopped.

    Sphinx's search parses the pages that it finds into inert documents, whose handlers can never run; Chromium reports
    them all the same.
    """
    inert = "inline event handler" in said and "/search.html" in address
    return "Content Security Policy" in said and not inert


@dataclass
class Visit:
    """An open page and what went wrong on it."""

    page: Page
    outside: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        return [
            *(f"request that leaves the book: {url}" for url in self.outside),
            *(f"request that failed: {what}" for what in self.failed),
            *(f"JavaScript error: {what}" for what in self.errors),
        ]


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line on stderr for each."""

    def log_message(self, *args) -> None:
        pass


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the rendered book."""
    if not (HTML / "index.html").is_file():
        pytest.fail(f"There is no rendered book in {HTML}: run `make book` first.")
    return HTML


@pytest.fixture(scope="session")
def site(html: Path) -> Iterator[str]:
    """The address of the book, served over HTTP from this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(html)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium, the machine's own."""
    path = chromium.find()
    if path is None:
        pytest.fail(chromium.ADVICE)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def opened(browser: Browser, site: str) -> Callable[[str], AbstractContextManager[Visit]]:
    """A page in a fresh profile, by its address: the site's or a file's. It is entered when the page has settled."""

    @contextmanager
    def page_at(url: str) -> Iterator[Visit]:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=False)
        visited = Visit(context.new_page())
        own = (site, "file://", "data:", "blob:", "about:")
        page = visited.page
        page.on("request", lambda request: request.url.startswith(own) or visited.outside.append(request.url))
        page.on(
            "response", lambda answer: answer.status < 400 or visited.failed.append(f"{answer.status} {answer.url}")
        )
        page.on("requestfailed", lambda request: visited.failed.append(f"{request.failure} {request.url}"))
        page.on("pageerror", lambda error: visited.errors.append(str(error)))
        page.on("console", lambda said: breaks_policy(said.text, page.url) and visited.errors.append(said.text))
        page.goto(url, wait_until="load", timeout=PATIENCE)
        settle(page)
        yield visited
        context.close()

    return page_at


@pytest.fixture
def open_page(opened: Callable[[str], AbstractContextManager[Visit]]) -> Iterator[Callable[[str], Visit]]:
    """Open an address; what goes wrong there is recorded for the test to look at."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(opened(url))


@pytest.fixture
def visit(open_page: Callable[[str], Visit], site: str) -> Iterator[Callable[[str], Visit]]:
    """Open a page of the book by its path; the test fails when it ends with a problem on any page it visited."""
    visits = []

    def open_path(path: str) -> Visit:
        visits.append(open_page(f"{site}/{path}"))
        return visits[-1]

    yield open_path
    problems = [problem for visited in visits for problem in visited.problems()]
    assert not problems, "\n".join(problems)


def settle(page: Page) -> None:
    """Wait for what draws itself after loading: plots, widgets and formulas."""
    page.wait_for_function(
        """() => {
            const drawn = (selector, inner) =>
                [...document.querySelectorAll(selector)].every((node) => node.querySelector(inner));
            const views = document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]').length;
            return drawn('.plotly-graph-div', '.main-svg')
                && document.querySelectorAll('.widget-subarea').length >= views
                && (!document.querySelector('.math') || document.querySelector('mjx-container'));
        }""",
        timeout=PATIENCE,
    )
    page.wait_for_timeout(100)
