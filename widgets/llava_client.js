// The page's side of the LLaVA engine, which runs in a Web Worker so that the page stays alive while it computes.
//
//   const engine = await startLlava({ llava: bookStatic("llava/"), sae: bookStatic("page_files/steering/sae/") }, onProgress);
//     llava, sae    addresses of folders: what `assets/tiny/llava` holds, and what `SAE.save` writes
//     onProgress    (fraction) => void, from 0 to 1 while files arrive; 1 once, when the engine is ready
//     rejects       with an Error whose message is one plain sentence for the reader
//   engine.info     { tokens, rows, columns, width, features, size, kernel, bytes }: tokens of the tower with CLS as
//                   token 0, then rows x columns patches in reading order; width d; F features; pictures are size x size
//   await engine.see(pixels)         pixels: ImageData, or RGBA bytes of size x size; resolves to a number, the picture
//   await engine.codes(picture)      Float32Array (tokens * features), token by token
//   await engine.activations(picture)  Float32Array (tokens * width): the site's values, unedited
//   await engine.generate(picture, prompt, intervention, { maxNewTokens = 64, onToken, signal })
//     intervention  null, or { features: { 12: 40, 7: 3 }, mode: "clamp" | "add" | "scale" | "suppress",
//                   tokens: null (all) or Uint8Array (tokens) of 0 and 1, keepError: true }, as steering.interventions.Intervention
//     onToken       (id, text) => void, text being the piece that this token adds
//     signal        an AbortSignal; rejects with its reason (an AbortError)
//     resolves to   { ids, text, seconds: { first, all } }: ids with the end token; text as Python's `llava.generate`
//   await engine.forget(picture)
//   engine.terminate()               what is under way rejects
//
// Calls may overlap; the worker answers one after the other. LLAVA_ENGINE_SOURCE, the worker's script as a string, is
// put before this file by widgets/llava_scripts.py.

const OPENED_FROM_FILE =
  "This page was opened from a file, from which browsers do not load models; serve the book over HTTP, as `make serve` does.";

/** The address of a file below the book's `_static`, or undefined where there is no book around (a notebook). */
function bookStatic(path) {
  const script = document.querySelector('script[src*="_static/"]');
  return script ? new URL(path, script.src.replace(/_static\/.*$/, "_static/")).href : undefined;
}

/** Why the engine cannot run here, as a sentence; undefined where it can. */
function whyNoLlava() {
  if (location.protocol === "file:") return OPENED_FROM_FILE;
  const needed = { Worker: "web workers", TextDecoder: "text decoding", ReadableStream: "streams" };
  const missing = Object.keys(needed).find((name) => typeof globalThis[name] === "undefined");
  return missing && `This browser is too old to run the model: it has no ${needed[missing]}.`;
}

/** source: the worker's script, for tests and benchmarks that need another one. */
async function startLlava({ llava, sae }, onProgress = () => {}, source = LLAVA_ENGINE_SOURCE) {
  const obstacle = whyNoLlava();
  if (obstacle) throw new Error(obstacle);
  const script = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(script);
  URL.revokeObjectURL(script);
  const client = new LlavaClient(worker);
  try {
    const folders = { llava: new URL(llava, document.baseURI).href, sae: new URL(sae, document.baseURI).href };
    client.info = await client.ask("load", folders, { progress: onProgress });
    return client;
  } catch (error) {
    client.terminate();
    throw error;
  }
}

/** Questions to the worker and its answers: {id, method, argument} there; {id, result | error | event, value} back. */
class LlavaClient {
  constructor(worker) {
    this.worker = worker;
    this.waiting = new Map();
    this.asked = 0;
    worker.onmessage = ({ data }) => this.receive(data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.giveUp(new Error(`The model's worker stopped: ${event.message || "it could not start"}.`));
    };
  }

  ask(method, argument, listeners = {}) {
    if (this.ended) return Promise.reject(this.ended);
    const id = (this.asked += 1);
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, listeners });
      this.worker.postMessage({ id, method, argument });
    });
  }

  receive({ id, event, value, error, result }) {
    const question = this.waiting.get(id);
    if (question === undefined) return; // answered late, after its caller gave up
    if (event) {
      question.listeners[event]?.(...[value].flat());
      return;
    }
    this.waiting.delete(id);
    if (error) question.reject(Object.assign(new Error(error.message), { name: error.name }));
    else question.resolve(result);
  }

  see(pixels) {
    return this.ask("see", pixels.data ?? pixels);
  }

  codes(picture) {
    return this.ask("codes", picture);
  }

  activations(picture) {
    return this.ask("activations", picture);
  }

  forget(picture) {
    return this.ask("forget", picture);
  }

  async generate(picture, prompt, intervention, { maxNewTokens = 64, onToken, signal } = {}) {
    signal?.throwIfAborted();
    const answer = this.ask("generate", { picture, prompt, intervention, maxNewTokens }, { token: onToken });
    if (!signal) return answer;
    const id = this.asked;
    const { promise: aborted, reject } = withReject();
    const stop = () => {
      this.waiting.delete(id);
      if (!this.ended) this.worker.postMessage({ id, method: "cancel" });
      reject(signal.reason);
    };
    signal.addEventListener("abort", stop, { once: true });
    try {
      return await Promise.race([answer, aborted]);
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  terminate() {
    this.giveUp(new Error("The model was stopped."));
  }

  giveUp(reason) {
    this.ended = reason;
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(reason);
    this.waiting.clear();
  }
}

function withReject() {
  const parts = {};
  parts.promise = new Promise((_, reject) => Object.assign(parts, { reject }));
  return parts;
}
