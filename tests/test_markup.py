"""Names of others in pages: they are shown as they are, and nothing in them runs."""

import json
import re

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from book.tools.page_policy import allowed, policy
from book.tools.page_scripts import scripts
from book.tools.pages import named_scripts, page_not_run, prepare_notebook
from book.tools.sanitise import harmless_html
from experiments.markup import as_code, as_html, as_markdown, json_in_script, own_html, styled

HOSTILE = [
    "<script>hostile()</script>", "</SCRIPT><script>hostile()</script>", "<img src=x onerror=hostile()>",
    "<svg/onload=hostile()>",
    '"><script>hostile()</script>', "' onmouseover='hostile()", "<iframe srcdoc='<script>hostile()</script>'>",
    "[x](javascript:hostile())", "`</code><script>hostile()</script>`",
    "</td></table><style>*{display:none}</style><script>hostile()</script>",
    "plotly-graph-div<script>hostile()</script>", "<!--",
    "<math><mtext></table><mglyph><style><img src=x onerror=hostile()>",
    "<a href='JaVaScRiPt:hostile()'>x</a>", "<a href=' &#106;avascript:hostile()'>x</a>",
    "{raw}`html <script>`", "a | b",
]  # fmt: skip
RUNS = re.compile(
    r"<(script|iframe|svg|math|object|embed|!--)|<[^>]*\son\w+\s*=|href=[\"']?\s*javascript", re.IGNORECASE
)


@pytest.mark.parametrize("name", HOSTILE)
class TestANameOfOthers:
    def test_it_is_text_in_html_and_in_markdown(self, name):
        for text in (as_html(name), as_markdown(name), as_code(name)):
            assert not RUNS.search(text.removeprefix("<code>").removesuffix("</code>"))
        assert not set("`|[]{}<>*#!()\\") & set(re.sub(r"&#\d+;", "", as_markdown(name)))

    def test_it_cannot_end_a_script_that_holds_json(self, name):
        assert "<" not in json_in_script({"name": name})
        assert json.loads(json_in_script({"name": name})) == {"name": name}

    def test_it_is_text_in_cells_and_headers_of_a_styled_table_however_that_is_formatted(self, name):
        table = pd.DataFrame({name: [name, 1.5], "n": [0.25, 0.5]}, index=pd.Index([name, "b"], name=name))
        html = styled(table).format({"n": "{:.0%}"}, precision=1).hide(axis="columns", subset=[]).to_html()
        assert not RUNS.search(html)
        assert html.count(as_html(name)) >= 3
        assert "25%" in html

    def test_it_is_text_in_a_page_whatever_output_it_stands_in(self, name):
        kinds = {"text/html": f"<table><tr><td>{name}</td></tr></table>", "text/markdown": f"**{name}**"}
        kinds |= {"application/javascript": "hostile()", "image/svg+xml": "<svg onload='hostile()'></svg>"}
        page = prepare_notebook(
            new_notebook(cells=[new_code_cell("x", outputs=[new_output("display_data", data=kinds)])])
        )
        data = page.cells[0].outputs[0].data
        assert not RUNS.search(data["text/html"])
        assert not re.search(r"<[A-Za-z/!?]", data["text/markdown"])
        assert set(data) == {"text/html", "text/markdown"}
        assert named_scripts(page) == []

    def test_the_reason_for_leaving_a_chapter_out_is_text(self, name):
        source = new_notebook(cells=[nbformat.v4.new_markdown_cell("# A title\n\ntext")])
        assert not RUNS.search(page_not_run(source, "photo", name).cells[1].source)


class TestWhatMayRunInAPage:
    def test_plots_and_widgets_of_this_project_keep_their_scripts(self):
        plot = {"application/vnd.plotly.v1+json": {}, "text/html": "<div><script>draw()</script></div>"}
        shown = own_html("<div></div><script>widget()</script>")
        data, metadata = shown._repr_html_()
        outputs = [
            new_output("display_data", data=plot),
            new_output("display_data", data={"text/html": data}, metadata={"text/html": metadata}),
        ]
        page = prepare_notebook(new_notebook(cells=[new_code_cell("x", outputs=outputs)]))
        assert {"draw()", "widget()"} <= set(named_scripts(page))

    def test_the_policy_allows_them_and_the_templates_and_no_script_that_nobody_named(self):
        body = "<p>x</p><script>draw()</script><SCRIPT>hostile()</SCRIPT><script type='application/json'>{}</script>"
        page = f"<head><script>theme()</script></head><body onload='start()'>{body}</body>"
        assert allowed(page, body, ["draw()"]) == ["theme()", "draw()", "start()"]
        assert "hostile()" in scripts(page)
        assert policy(["a"]) != policy(["b"])

    def test_tags_of_tables_stay_and_their_style_sheet(self):
        html = '<style type="text/css">#T_1 td {color: red}</style>\n<table id="T_1"><tr><td>1 &lt; 2</td></tr></table>'
        assert harmless_html(html) == html.replace(' type="text/css"', "")

    @pytest.mark.parametrize("end", ["</style x>", "</style/>", "</style", ""])
    def test_a_style_sheet_holds_no_tags_however_a_browser_ends_it(self, end):
        sheet = harmless_html(f"<style>a{{}}{end}<img src=x onerror=run()></style>")
        assert sheet.startswith("<style>")
        assert sheet.count("<") == 2
        assert sheet.endswith("</style>")
