"""Class names, facts and words of others, in Chromium: they are read as they were written, and nothing in them runs."""

import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import plotly
import plotly.graph_objects as go
import pytest
import yaml
from PIL import Image
from playwright.sync_api import Browser, Page

from experiments.markup import styled
from experiments.plots import BookRenderer, picture_grid
from tests.browser.conftest import settle
from tests.small_book import tool
from tests.small_models import open_clip_folder
from tests.test_notebook_layouts import CHAPTERS, photographs
from widgets.concept_map import Place, concept_map
from widgets.taxonomy_tree import Leaf, taxonomy_tree

RUN = "window.pwned=1"
NAMES = [
    f"<img src=x onerror={RUN}>",
    f"**bold**[x](javascript:{RUN})",
    "{{ 7*7 }} ${x}$ `code`",
    f"<svg onload={RUN}>",
]
WORDS = [
    *NAMES,
    f"</script><script>{RUN}</script>",
    f"$\\href{{javascript:{RUN}}}{{x}}$",
    f"<a href='javascript:{RUN}'>y</a>",
]


def ran(page: Page) -> bool:
    """Whether something of a name ran, after all that could start it was clicked and pointed at."""
    for handle in page.query_selector_all("a[href^='javascript'], a[*|href^='javascript']"):
        handle.dispatch_event("click")
    return page.evaluate("() => typeof window.pwned !== 'undefined'")


@pytest.fixture
def shown(browser: Browser, tmp_path) -> Iterator[Callable[[str], Page]]:
    """Opens HTML in a page with plotly.js and without a policy, so that only what was written in it protects it."""
    page = browser.new_page()

    def shown(html: str) -> Page:
        script = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").as_uri()
        head = f'<!DOCTYPE html><meta charset="utf-8"><script src="{script}"></script>'
        (tmp_path / "page.html").write_text(f"{head}<body>{html}</body>", encoding="utf-8")
        page.goto((tmp_path / "page.html").as_uri(), wait_until="load")
        page.wait_for_timeout(500)
        return page

    yield shown
    page.close()


FIGURES = {
    "axes and legend": go.Figure([go.Bar(x=WORDS, y=[1] * 7, name=name) for name in WORDS]),
    "titles": go.Figure(go.Bar(x=["a"], y=[1])).update_layout(
        title=WORDS[0], xaxis_title=WORDS[5], yaxis_title=WORDS[4]
    ),
    "texts": go.Figure(go.Scatter(x=list(range(7)), y=[0] * 7, text=WORDS, mode="text")),
    "a tree map": go.Figure(go.Treemap(labels=["all", *WORDS], parents=["", *["all"] * 7])),
    "pictures": picture_grid([Image.new("RGB", (8, 8))] * 7, WORDS, columns=7),
}


@pytest.mark.parametrize("what", FIGURES)
def test_figures(shown, what):
    page = shown(BookRenderer().to_mimebundle(FIGURES[what].to_dict())["text/html"])
    page.wait_for_selector(".main-svg")
    texts = page.eval_on_selector_all("text", "nodes => nodes.map(node => node.textContent)")
    asked = {"titles": [WORDS[0], WORDS[5], WORDS[4]]}.get(what, WORDS)
    assert not ran(page)
    assert [word for word in asked if word not in texts] == []


def test_what_a_pointer_shows_of_a_point(shown):
    figure = go.Figure(go.Scatter(x=[0], y=[0], text=["<br>".join(WORDS)], marker_size=60)).update_layout(width=500)
    page = shown(BookRenderer().to_mimebundle(figure.to_dict())["text/html"])
    page.wait_for_selector(".points path")
    page.hover(".nsewdrag", force=True)
    page.wait_for_selector(".hovertext")
    said = page.text_content(".hoverlayer")
    assert not ran(page)
    assert [word for word in WORDS if word not in said] == []


def test_tables_maps_and_trees(shown):
    table = pd.DataFrame({word: [word] for word in WORDS}, index=pd.Index([WORDS[0]], name=WORDS[4]))
    pictures = [Image.new("RGB", (8, 8))] * 7
    places = [Place(i, i, word, word, word, [i]) for i, word in enumerate(WORDS)]
    leaves = [Leaf((word, word), pictures[:1], word, word) for word in WORDS]
    parts = [styled(table).to_html(), concept_map(places, pictures, title=WORDS[4]).data]
    parts += [taxonomy_tree(leaves, ["genus", WORDS[4]]).data]
    page = shown("".join(parts))
    said = page.evaluate("() => document.body.innerText + document.body.textContent")
    assert not ran(page)
    assert [word for word in WORDS if word not in said] == []


@pytest.mark.long
def test_a_book_on_a_folder_of_hostile_names_in_a_checkout_with_an_odd_path(browser, tmp_path, root):
    """Chapters 5, 9 and 12 are executed and rendered by the real build; its pages are opened without their policy."""
    project = tmp_path / "it's a {profile} of Müller's ${x}"
    checkout(project, root)
    hostile_pictures(tmp_path)
    (tmp_path / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
    given = {
        "encoder": f"open_clip:{open_clip_folder(tmp_path / 'clip')}", "vocabulary": str(tmp_path / "words.txt"),
        "train_images": f"folder:{tmp_path / 'train'}", "eval_images": f"folder:{tmp_path / 'val'}",
    }  # fmt: skip
    chapters = ("05_features", "09_steerability", "12_probing")
    own = {name: {**CHAPTERS[name], "vocabulary": given["vocabulary"]} for name in chapters}
    own["09_steerability"]["threshold"] = 0
    del own["12_probing"]["vocabulary"]
    profile = {"shared": given, "notebooks": {name: {"parameters": own[name]} for name in chapters}}
    (project / "profiles" / "hostile.yaml").write_text(yaml.safe_dump(profile, allow_unicode=True))
    built = tool(project, "book.tools.build", "--profile", "hostile", "--cores", "1", "--html", "the {site}")
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    for chapter, expected in zip(chapters, (NAMES, WORDS, NAMES), strict=True):
        page.goto((project / "the {site}" / "notebooks" / f"{chapter}.html").as_uri(), wait_until="load")
        settle(page)
        said = page.evaluate("() => document.body.innerText + document.body.textContent")
        assert not ran(page), chapter
        assert any(word in said for word in expected), chapter
    context.close()


def checkout(project: Path, root: Path) -> None:
    """A copy of the repository's files; its models are links."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if not name.startswith(("assets/", "tests/")):
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, project / name)
    (project / "assets").symlink_to(root / "assets")


def hostile_pictures(folder: Path) -> None:
    """Folders of pictures, train and val, whose classes and facts have hostile names."""
    for split, count in {"train": 24, "val": 16}.items():
        photographs(folder / split, count)
        rows = []
        for old, new in zip(("fox", "barn owl", "newt"), NAMES, strict=False):
            (folder / split / old).rename(folder / split / new)
            files = sorted(path.relative_to(folder / split).as_posix() for path in (folder / split / new).iterdir())
            rows += zip(files, itertools.cycle((WORDS[4], WORDS[5])), strict=False)
        pd.DataFrame(rows, columns=["file", WORDS[6]]).to_csv(folder / split / "facts.csv", index=False)
