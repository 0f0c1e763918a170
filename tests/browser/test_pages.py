"""Every page of the rendered book, as a reader without a network sees it."""

import json
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from tests.browser.rendered_book import HTML

PAGES = sorted(
    str(page.relative_to(HTML)) for folder in ("book", "notebooks") for page in HTML.glob(f"{folder}/**/*.html")
)

pytestmark = pytest.mark.browser


@cache
def links_of(page: Path) -> "Links":
    """The same page is led to from many."""
    return Links(page.read_text())


class Links(HTMLParser):
    """The `href`s and the anchors of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            if tag == "a" and name == "href" and value:
                self.targets.append(value)


def test_every_page_of_the_table_of_contents_was_rendered(root):
    contents = (root / "_toc.yml").read_text()
    listed = {line.split(":", 1)[1].strip() for line in contents.splitlines() if "file:" in line or "root:" in line}
    assert {f"{page}.html" for page in listed} == set(PAGES)


@pytest.fixture(scope="module", params=PAGES)
def visited(request, opened, site):
    """Each page of the book in turn."""
    with opened(f"{site}/{request.param}") as visit:
        visit.page.wait_for_load_state("networkidle")  # a late request that leaves the book would be missed
        yield visit


def test_the_page_asks_for_nothing_that_the_book_does_not_hold(visited):
    assert visited.problems() == []


def test_the_page_draws_its_plots_widgets_and_formulas(visited):
    page = visited.page
    assert page.locator("article h1").count() == 1
    assert undrawn_plots(page) == []
    assert empty_widgets(page) == []
    assert page.locator("mjx-container [data-mjx-error]").count() == 0


def test_the_page_shows_no_traceback(visited):
    assert visited.page.locator("div.output.traceback, div.output .ansi-red-fg").count() == 0


def test_every_picture_and_plot_has_a_text_for_those_who_cannot_see_it(visited):
    without = visited.page.eval_on_selector_all(
        "main img, main .book-plot",
        """(nodes) => nodes
            .filter((node) => node.tagName !== "IMG" || !node.closest('[aria-hidden="true"], [role="img"]'))
            .map((node) => [node.getAttribute(node.tagName === "IMG" ? "alt" : "aria-label"), node.outerHTML])
            .filter(([text]) => text === null || text.trim().length < 3 || /\\.(png|jpg|svg|webp)$/.test(text))
            .map(([, html]) => html.slice(0, 160))""",
    )
    assert without == []


def test_no_plot_is_wider_than_the_column_it_stands_in(visited):
    wide = visited.page.eval_on_selector_all(
        "main .js-plotly-plot",
        """(plots) => plots.filter((plot) => plot.querySelector('svg').getBoundingClientRect().width
                > plot.parentElement.getBoundingClientRect().width + 1).length""",
    )
    assert wide == 0


def test_every_plot_has_a_numbered_caption(visited):
    bare = visited.page.eval_on_selector_all(
        "main .book-plot",
        """(plots) => plots.filter((plot) => !plot.closest('figure')?.querySelector('.caption-number'))
            .map((plot) => plot.getAttribute('aria-label'))""",
    )
    assert bare == []


def test_texts_of_plots_and_tables_stand_out_from_their_ground_in_the_dark_theme(visited):
    assert faint_texts(visited.page, "dark") == []


def test_titles_of_panels_and_axes_do_not_meet_on_a_phone(visited):
    page = visited.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function(
        """() => [...document.querySelectorAll('main .js-plotly-plot .main-svg')]
            .every((plot) => plot.getBoundingClientRect().width <= innerWidth)"""
    )
    assert titles_that_meet(page) == []


@pytest.mark.parametrize("path", PAGES)
def test_every_internal_link_leads_somewhere(path, html):
    page = html / path
    for target in links_of(page).targets:
        address, anchor = urldefrag(target)
        if "://" in target or target.startswith(("mailto:", "data:", "javascript:")):
            continue
        linked = (page.parent / unquote(address)).resolve() if address else page
        assert linked.is_file(), f"{path} links to {target}, which does not exist"
        if anchor and linked.suffix == ".html" and "=" not in anchor:
            assert anchor in links_of(linked).anchors, f"{path} links to {target}: no such place there"


def test_the_book_opens_from_the_file_system_too(html, open_page):
    first = next(page for page in PAGES if page.startswith("notebooks/"))
    visited = open_page((html / first).as_uri())
    assert not undrawn_plots(visited.page)
    assert not visited.problems()


def test_search_finds_a_word_of_the_notation(visit):
    page = visit("search.html?q=dictionary").page
    page.wait_for_selector("ul.search li a")
    assert page.locator("ul.search li").count() > 0


def faint_texts(page, theme: str) -> list[str]:
    """Texts of plots' axes and of tables with a contrast below 4.5 (WCAG 2.1, AA), a plot or table each.

    Plots are drawn anew when the theme changes, so that the theme is waited for.
    """
    return page.evaluate(
        """async (theme) => {
            const root = document.documentElement, before = root.dataset.theme;
            const channels = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
            const light = (colour) => channels(colour).slice(0, 3).map((x) => x / 255)
                .map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
                .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
            const ground = (node) => {
                for (; node; node = node.parentElement) {
                    const colour = getComputedStyle(node).backgroundColor, [, , , alpha = 1] = channels(colour);
                    if (alpha > 0.5) return colour;
                }
                return 'rgb(255, 255, 255)';
            };
            const contrast = (node, colour) => {
                const [a, b] = [light(colour), light(ground(node))].sort((x, y) => y - x);
                return (a + 0.05) / (b + 0.05);
            };
            const faint = () => [
                ...[...document.querySelectorAll('main .js-plotly-plot')]
                    .map((plot) => [plot, plot.querySelector('.xtick text, .ytick text, .legendtext')])
                    .filter(([plot, text]) => text && contrast(plot, getComputedStyle(text).fill) < 4.5),
                ...[...document.querySelectorAll('main .cell_output td')]
                    .map((cell) => [cell.closest('table'), cell])
                    .filter(([, cell]) => contrast(cell, getComputedStyle(cell).color) < 4.5),
            ].map(([whole, text]) => `${whole.className || whole.id}: ${text.textContent.trim().slice(0, 40)}`);
            const redrawn = [...document.querySelectorAll('main .js-plotly-plot')]
                .map((plot) => new Promise((done) => plot.on('plotly_relayout', done)));
            root.dataset.theme = theme;
            await Promise.all(redrawn);
            const found = faint();
            root.dataset.theme = before;
            return found;
        }""",
        theme,
    )


def titles_that_meet(page) -> list[str]:
    """Pairs of titles of panels and of x axes that overlap in one plot."""
    return page.eval_on_selector_all(
        "main .js-plotly-plot",
        """(plots) => plots.flatMap((plot) => {
            const paper = plot._fullLayout.annotations.map(({ xref, yref }) => xref === 'paper' && yref === 'paper');
            const panels = [...plot.querySelectorAll('.annotation')].filter((node) => paper[node.dataset.index]);
            const titles = [...panels, ...plot.querySelectorAll('.infolayer [class^=g-x] text')]
                .map((node) => [node.textContent, node.getBoundingClientRect()]);
            return titles.flatMap(([one, a], i) => titles.slice(i + 1)
                .filter(([, b]) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
                .map(([other]) => `${one} | ${other}`));
        })""",
    )


def undrawn_plots(page) -> list[str]:
    """Plotly figures without a visible trace, by their label."""
    return page.eval_on_selector_all(
        ".plotly-graph-div",
        """(plots) => plots.filter((plot) => {
            const box = plot.getBoundingClientRect();
            const marks = plot.querySelectorAll(
                '.scatterlayer .trace, .barlayer .trace, .heatmaplayer .hm, .imagelayer image, .layer-above image,'
                + '.treemaplayer .slice, .sunburstlayer .slice, .iciclelayer .slice, .violinlayer .trace,'
                + '.boxlayer .trace, .sankey, .table, .contourlayer .contour, .gl-canvas, .im');
            return box.width < 100 || box.height < 60 || marks.length === 0;
        }).map((plot) => plot.closest('[aria-label]')?.getAttribute('aria-label') ?? plot.id)""",
    )


def empty_widgets(page) -> list[str]:
    """Widget views that show neither text nor picture nor control."""
    return page.eval_on_selector_all(
        ".widget-subarea",
        """(views) => views
            .filter((view) => !view.innerText.trim()
                && !view.querySelector('img, svg, canvas, input, button, .noUi-handle'))
            .map((view) => view.outerHTML.slice(0, 160))""",
    )


def test_widget_state_is_stored_with_the_page(html):
    for path in PAGES:
        text = (html / path).read_text()
        views = text.count('type="application/vnd.jupyter.widget-view+json"')
        states = text.count('type="application/vnd.jupyter.widget-state+json"')
        assert states or not views, f"{path} shows {views} widgets but keeps no state: they would stay empty"


def test_executed_notebooks_offered_for_download_hold_no_path_of_the_build_machine(html):
    for source in html.glob("_sources/notebooks/*.ipynb"):
        record = json.loads(source.read_text())["metadata"]["papermill"]
        assert not Path(record["input_path"]).is_absolute()
        assert not Path(record["output_path"]).is_absolute()
