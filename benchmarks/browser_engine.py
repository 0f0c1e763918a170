"""The LLaVA of the pages in headless Chromium: WebAssembly against plain JavaScript and onnxruntime-web, in one run.

    python -m benchmarks.browser_engine
    npm install --prefix peers onnxruntime-web@1.30.0              # and `pip install onnx onnxscript` for the export
    python -m benchmarks.browser_engine --onnxruntime peers/node_modules/onnxruntime-web/dist

Milliseconds for: loading (files from this machine, until the engine is ready), seeing a picture (image tower up to the
site and SAE), reading (projector and language model until the first token) and each token after it. onnxruntime-web
runs the same weights in float32 on one thread, as it must where a site sends no isolation headers; its token has no
memory of what was read before, so that the real one would take longer. Contestants take turns, round by round; the
figure is the median of the rounds, and the ratio is to WebAssembly.
"""

import argparse
import shutil
import statistics
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from torch import Tensor, nn

from book.tools import chromium
from lib import SAE, Llava, SAEConfig, load_images, load_llava
from widgets.llava_scripts import client_source

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "Describe this image."
TOKENS = 48  # of an answer, at most
FLAGS = ("--no-sandbox", "--disable-gpu")

OURS = """async ([pixels, prompt, tokens, plain]) => {
    const time = async (work) => { const start = performance.now(); return [await work(), performance.now() - start]; };
    const source = plain ? LLAVA_ENGINE_SOURCE.replace("WasmKernels.supported()", "false") : LLAVA_ENGINE_SOURCE;
    const [engine, load] = await time(() => startLlava({ llava: "llava/", sae: "sae/" }, () => {}, source));
    const rgba = Uint8ClampedArray.from(pixels);
    const edit = { features: { 3: 5 }, mode: "clamp", tokens: null, keepError: false };
    const ask = async () => {
        const [picture, see] = await time(() => engine.see(rgba));
        const { ids, seconds } = await engine.generate(picture, prompt, edit, { maxNewTokens: tokens });
        const each = (1000 * (seconds.all - seconds.first)) / Math.max(1, ids.length - 1);
        return { see, read: 1000 * seconds.first, token: each, "whole answer": see + 1000 * seconds.all };
    };
    const cold = await ask();
    for (let round = 0; round < 3; round += 1) await ask();
    const warm = await ask();
    engine.terminate();
    return { load, "first answer after loading": cold["whole answer"], ...warm };
}"""
ONNX = """async (shapes) => {
    const { default: _, ...ort } = await import(new URL("ort/ort.wasm.min.mjs", document.baseURI).href);
    ort.env.wasm.numThreads = 1;
    const times = {};
    const start = performance.now();
    const sessions = {};
    for (const name of Object.keys(shapes)) sessions[name] = await ort.InferenceSession.create(`${name}.onnx`);
    times.load = performance.now() - start;
    for (const [name, shape] of Object.entries(shapes)) {
        const size = shape.reduce((product, n) => product * n, 1);
        const values = Float32Array.from({ length: size }, () => Math.random() - 0.5);
        const feeds = { [sessions[name].inputNames[0]]: new ort.Tensor("float32", values, shape) };
        for (let round = 0; round < 5; round += 1) {
            const begin = performance.now();
            await sessions[name].run(feeds);
            times[name] = performance.now() - begin;
        }
        await sessions[name].release();
    }
    return times;
}"""


@torch.no_grad()
def dictionary(llava: Llava, picture: Image.Image, k: int = 12) -> SAE:
    """An SAE of random directions with k codes a token on the picture, as a trained one has."""
    sae = SAE(SAEConfig(kind="matryoshka", expansion=8, k=k), llava.vision.d_model)
    x = llava.vision.run(llava.vision.pixels([picture]), [llava.site])[llava.site]
    sae.threshold.copy_(sae.pre_activations(x).flatten().quantile(1 - k / sae.n_features))
    return sae


class Seeing(nn.Module):
    """(1, 3, H, W) -> values at the site and codes."""

    def __init__(self, llava: Llava, sae: SAE):
        super().__init__()
        self.tower, self.sae = llava.model.model.vision_tower, sae

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.tower(pixels, output_hidden_states=True).hidden_states[-2]
        return x, self.sae.encode(x)


class Reading(nn.Module):
    """Embeddings (1, n, d) -> scores of the next token."""

    def __init__(self, llava: Llava):
        super().__init__()
        self.text, self.head = llava.model.model.language_model, llava.model.lm_head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.text(inputs_embeds=x, use_cache=False).last_hidden_state[:, -1])


def export(llava: Llava, sae: SAE, folder: Path) -> dict[str, list[int]]:
    """Write the three graphs; returns the shape of each one's input."""
    prompt = llava.processor.tokenizer(f"USER: <image>\n{PROMPT} ASSISTANT:")["input_ids"]
    width, size = llava.model.config.text_config.hidden_size, llava.model.config.vision_config.image_size
    length = len(prompt) + llava.model.config.image_seq_length - 1
    graphs = {
        "see": (Seeing(llava, sae), [1, 3, size, size]),
        "read": (Reading(llava), [1, length, width]),
        "token": (Reading(llava), [1, 1, width]),
    }
    for name, (module, shape) in graphs.items():
        torch.onnx.export(
            module.eval(), (torch.randn(shape),), folder / f"{name}.onnx", dynamo=True, external_data=False
        )
    return {name: shape for name, (_, shape) in graphs.items()}


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *args) -> None:
        pass


def lay_out(folder: Path, sae: SAE) -> None:
    """A page with the engine, and the model's files beside it."""
    shutil.copytree(ROOT / "assets/tiny/llava", folder / "llava")
    sae.save(folder / "sae")
    script = client_source().replace("</", "<\\/")
    (folder / "index.html").write_text(f"<!doctype html><meta charset=utf-8><script>{script}</script>")


def measure(page: Page, pixels: list[int], shapes: dict[str, list[int]], rounds: int) -> dict[str, list[dict]]:
    """What each contestant measured of itself, round by round."""
    results: dict[str, list[dict]] = {}
    for _ in range(rounds):
        for name, plain in (("WebAssembly", False), ("plain JavaScript", True)):
            results.setdefault(name, []).append(page.evaluate(OURS, [pixels, PROMPT, TOKENS, plain]))
        if shapes:
            results.setdefault("onnxruntime-web", []).append(page.evaluate(ONNX, shapes))
    return results


def report(results: dict[str, list[dict]]) -> None:
    medians = {
        name: {what: statistics.median(one[what] for one in rounds) for what in rounds[0]}
        for name, rounds in results.items()
    }
    for what, fastest in medians["WebAssembly"].items():
        shown = [
            f"{name} {times[what]:.1f} ms ({times[what] / fastest:.1f}x)"
            for name, times in medians.items()
            if what in times
        ]
        print(f"{what}: {', '.join(shown)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnxruntime", type=Path, help="the `dist` folder of onnxruntime-web")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    llava = load_llava("tiny", device="cpu")
    picture = load_images("menagerie:val")[0]
    sae = dictionary(llava, picture)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder, shapes = Path(temporary), {}
        lay_out(folder, sae)
        if options.onnxruntime:
            (folder / "ort").symlink_to(options.onnxruntime.resolve())
            shapes = export(llava, sae, folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=temporary))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=FLAGS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        report(measure(page, list(picture.convert("RGBA").tobytes()), shapes, options.rounds))
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main()
