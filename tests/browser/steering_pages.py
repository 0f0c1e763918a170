"""A steering panel on a page of its own, and what a reader sees of any panel."""

import base64
import json
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

RENDER = """async ({ state, binary, kernel }) => {
    const module = URL.createObjectURL(new Blob([state._esm], { type: "text/javascript" }));
    const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
    const listeners = [];
    window.sent = [];
    window.kernel = kernel;                                   // set to false, it falls silent
    window.say = (message) => listeners.forEach((hear) => hear(message, []));
    const model = {
        get: (name) => (name in binary ? bytes(binary[name]) : state[name]),
        on: (_, listener) => listeners.push(listener),
        off: () => {},
        send: (message, _callbacks, buffers) => {
            window.sent.push({ ...message, buffers: (buffers ?? []).map((buffer) => buffer.byteLength) });
            if (window.kernel && message.kind === "ping") setTimeout(() => window.say({ kind: "pong" }));
        },
    };
    const style = document.head.appendChild(document.createElement("style"));
    style.textContent = state._css;
    const el = document.querySelector("main");
    window.close_panel = await (await import(module)).default.render({ model, el });
}"""


def write_page(widget, path: Path, kernel: bool = False) -> Path:
    """A page that shows the widget from its stored state, with or without a kernel (that answers pings) behind it."""
    state = widget.get_state()
    binary = {name: base64.b64encode(value).decode() for name, value in state.items() if isinstance(value, bytes)}
    plain = {name: state[name] for name in ("meta", "_esm", "_css")}
    shown = json.dumps({"state": plain, "binary": binary, "kernel": kernel}).replace("</", "<\\/")
    path.write_text(
        f"<!doctype html><meta charset=utf-8><main></main><script>window.ready = ({RENDER})({shown})</script>"
    )
    return path


class SteeringPage:
    """What a reader sees of a panel, by name."""

    def __init__(self, page: Page, root: Locator | None = None):
        self.page = page
        self.root = (root or page).locator(".sp:not(.sp-loading)").first
        self.status = self.root.locator(".sp-status")
        self.start = self.root.locator(".sp-start")
        self.prompt = self.root.get_by_label("Prompt", exact=True)
        self.prompts = self.root.get_by_label("Prompts that the model knows")
        self.search = self.root.get_by_label("Search features")
        self.steered = self.root.get_by_role("region", name="Steered", exact=True).locator(".sp-text")
        self.unsteered = self.root.get_by_role("region", name="Unsteered", exact=True).locator(".sp-text")
        self.tiles = self.root.locator(".sp-tile")
        self.problem = self.root.locator(".sp-problem")
        self.code = self.root.get_by_label("Code")
        self.tries = self.root.locator(".sp-tries button")
        self.grid = self.root.get_by_role("grid")

    def feature(self, number: int) -> Locator:
        return self.root.locator(f'.sp-feature[data-feature="{number}"]')

    def slider(self, number: int) -> Locator:
        return self.root.locator(f'.sp-slider[data-feature="{number}"] input[type="range"]')

    def steered_features(self) -> list[int]:
        return [int(row.get_attribute("data-feature")) for row in self.root.locator(".sp-slider").all()]

    def set(self, number: int, alpha: float) -> None:
        """Move a slider to a strength in units of the feature's maximum."""
        self.slider(number).evaluate(
            "(range, alpha) => { range.value = alpha; range.dispatchEvent(new Event('input')); }", alpha
        )

    def settled(self) -> None:
        """Wait until nothing is being written."""
        self.page.wait_for_timeout(250)  # a question goes out once nothing has changed for a moment
        expect(self.root.locator(".sp-answer[data-state='waiting'], .sp-answer[data-state='writing']")).to_have_count(
            0, timeout=60_000
        )
