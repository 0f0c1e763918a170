"""Sanitise HTML of cell outputs: tags of tables and text are kept, all else is escaped."""

import re
from html.parser import HTMLParser

from experiments.markup import as_html

TAGS = frozenset({
    "a", "b", "br", "caption", "code", "dd", "div", "dl", "dt", "em", "figcaption", "figure", "h1", "h2", "h3", "h4",
    "h5", "h6", "hr", "i", "img", "li", "ol", "p", "pre", "small", "span", "strong", "sub", "sup", "table", "tbody",
    "td", "tfoot", "th", "thead", "tr", "ul",
})  # fmt: skip
VOID = frozenset({"br", "hr", "img"})
ATTRIBUTES = frozenset({
    "alt", "aria-hidden", "aria-label", "border", "class", "colspan", "height", "href", "id", "role", "rowspan", "src",
    "style", "title", "width",
})  # fmt: skip
HARMLESS_ADDRESS = re.compile(
    r"https?:|data:image/(?:png|jpeg|webp|gif)[;,]|[#./]|[\w%-]+(?:[/?#.]|$)", flags=re.IGNORECASE
)
RAW_HTML = re.compile(r"<(?=[A-Za-z/!?])")


def harmless_html(text: str) -> str:
    """HTML with allowed tags and attributes only, and a style sheet only before the first table."""
    parser = _Harmless()
    parser.feed(text)
    parser.close()
    return "".join(parser.parts) + ("</style>" if parser.in_style else "")


def harmless_markdown(text: str) -> str:
    """Markdown with HTML escaped."""
    return RAW_HTML.sub("&lt;", text)


class _Harmless(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.in_style = self.in_table = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.in_table = self.in_table or tag == "table"
        self.in_style = tag == "style" and not self.in_table
        if self.in_style:
            self.parts.append("<style>")
        elif tag in TAGS:
            kept = "".join(
                f' {name}="{as_html(value or "")}"' for name, value in attributes if _shows(name, value or "")
            )
            self.parts.append(f"<{tag}{kept}>")
        else:
            self.parts.append(as_html(self.get_starttag_text()))

    def handle_endtag(self, tag: str) -> None:
        if tag == "style" and self.in_style:
            self.in_style = False
            self.parts.append("</style>")
        elif tag in TAGS:
            self.parts.append("" if tag in VOID else f"</{tag}>")
        else:
            self.parts.append(as_html(f"</{tag}>"))

    def handle_data(self, data: str) -> None:
        in_sheet = data.replace("<", r"\3c ")  # a browser ends a sheet at "</style x>" too
        self.parts.append(in_sheet if self.in_style else as_html(data))


def _shows(name: str, value: str) -> bool:
    if name in ("href", "src"):
        return HARMLESS_ADDRESS.match(value.strip()) is not None
    return name in ATTRIBUTES
