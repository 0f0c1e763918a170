// Who answers: the kernel behind the page, the model in this browser, or what Python stored in the page.
//
// All three take a request {picture: {id, place, pixels()}, prompt, edits} and a listener {text(run, piece), done(run,
// whole text where it is known), failed(sentence)}, and return a function that stops them; after it, the listener hears no more of that request.
// `edits` has an entry for each run: null for the model as it is, or {features: [[number, value]], mode, tokens,
// keep_error} as widgets/steering_kernel.py reads it.

/** The notebook's model, behind the line to Python. */
class KernelEngine extends KernelLine {
  kind = "kernel";
  requests = 0;

  constructor(model, meta, changed) {
    super(model, changed);
    this.meta = meta;
  }

  lost() {
    const { listener } = this;
    this.listener = undefined;
    listener?.failed("The kernel stopped answering before the text was complete.");
  }

  hear(message) {
    if (message.request !== this.requests || !this.listener) return; // of a request that was superseded
    const { listener } = this;
    if (message.kind === "text") listener.text(message.run, message.text);
    if (message.kind === "done") listener.done(message.run);
    if (message.kind === "error") listener.failed(message.text);
  }

  answer({ picture, prompt, edits }, listener) {
    const request = (this.requests += 1);
    this.listener = listener;
    const own = picture.place === null;
    const message = { kind: "answer", request, picture: picture.place, prompt, edits, max_new_tokens: this.meta.max_new_tokens };
    this.send(message, own ? [picture.pixels().data.buffer] : []);
    return () => {
      if (this.listener !== listener) return;
      this.listener = undefined;
      this.send({ kind: "cancel" });
    };
  }
}

/** The model in this browser (llava_client.js), loaded when the reader asks for it. */
class BrowserEngine {
  kind = "browser";

  constructor(meta) {
    Object.assign(this, { meta, seen: new Map() });
  }

  /** Why it cannot run here, as a sentence; undefined where it can. */
  obstacle() {
    if (!this.meta.page_files) return "There is no copy of this model that a browser could run.";
    const reason = whyNoLlava();
    if (reason) return reason;
    return bookStatic("") ? undefined : "The model's files are only there in the rendered book.";
  }

  async start(onProgress) {
    const { llava, sae } = this.meta.page_files;
    this.client = await startLlava({ llava: bookStatic(llava), sae: bookStatic(sae) }, onProgress);
  }

  get started() {
    return this.client !== undefined;
  }

  /** The engine's number for a picture. Pictures of the panel are kept, of the reader's own only the newest. */
  see(picture) {
    const name = picture.place ?? "own";
    const known = this.seen.get(name);
    if (known?.id === picture.id) return known.number;
    known?.number.then((number) => this.client.forget(number)).catch(() => {});
    const number = this.client.see(picture.pixels());
    number.catch(() => this.seen.delete(name));
    this.seen.set(name, { id: picture.id, number });
    return number;
  }

  answer({ picture, prompt, edits }, listener) {
    const control = new AbortController();
    const { signal } = control;
    const run = async () => {
      const seen = await this.see(picture);
      for (const [number, edit] of edits.entries()) {
        if (signal.aborted) return;
        const onToken = (_, text) => signal.aborted || listener.text(number, text);
        const options = { maxNewTokens: this.meta.max_new_tokens, onToken, signal };
        const { text } = await this.client.generate(seen, prompt, edit && this.intervention(edit), options);
        if (!signal.aborted) listener.done(number, text);
      }
    };
    run().catch((error) => signal.aborted || listener.failed(error.message));
    return () => control.abort(new DOMException("stopped", "AbortError"));
  }

  intervention({ features, mode, tokens, keep_error: keepError }) {
    return { features: Object.fromEntries(features), mode, tokens: this.tokens(tokens), keepError };
  }

  /** 0 or 1 for each token, with CLS in front; null for all. */
  tokens(chosen) {
    if (chosen === "all") return null;
    const { has_cls: cls, grid } = this.meta;
    const patches = chosen === "cls" || chosen === "spatial" ? Array(grid[0] * grid[1]).fill(chosen === "spatial") : chosen.flat();
    return Uint8Array.from([...(cls ? [chosen === "cls"] : []), ...patches]);
  }

  close() {
    this.client?.terminate();
  }
}

/** Answers that `llava.answers` gave in Python, for the first pictures, features and prompts. */
class StoredAnswers {
  kind = "stored";

  constructor(meta, answers) {
    Object.assign(this, { meta, answers });
  }

  hasPicture = (place) => place !== null && place < this.meta.stored.pictures;
  hasFeature = (feature) => this.meta.features.slice(0, this.meta.stored.features).some((other) => other.feature === feature);
  prompts = () => this.meta.prompts.slice(0, this.meta.stored.prompts);

  answer({ picture, prompt, edits, alphas }, listener) {
    let stopped = false;
    queueMicrotask(() => {
      for (const [run, edit] of edits.entries()) {
        if (stopped) return;
        const missing = this.missing(picture, prompt, edit, alphas);
        if (missing) return listener.failed(missing);
        listener.text(run, this.text(picture.place, prompt, edit && alphas[0]));
        listener.done(run);
      }
    });
    return () => (stopped = true);
  }

  text(place, prompt, steered) {
    const { features, alphas, prompts, texts } = this.meta;
    const [, pictures, runs] = this.answers.shape;
    const edit = steered && 1 + features.findIndex(({ feature }) => feature === steered.feature) * alphas.length + alphas.indexOf(steered.alpha);
    return texts[this.answers[(prompts.indexOf(prompt) * pictures + place) * runs + (edit ?? 0)]];
  }

  /** Which part of the request the page has no answer for, as a sentence. */
  missing(picture, prompt, edit, alphas) {
    const { stored, edit: usual, alphas: grid } = this.meta;
    if (!stored.prompts) return "No answers are stored in this page.";
    if (!this.hasPicture(picture.place)) return `Answers are stored for the first ${counted(stored.pictures, "picture")} only.`;
    if (!this.prompts().includes(prompt)) return `Answers are stored for ${counted(stored.prompts, "prompt")} only: “${this.prompts()[0]}”`;
    if (!edit) return undefined;
    if (alphas.length > 1) return "Answers are stored for one feature at a time.";
    if (!this.hasFeature(alphas[0].feature)) return `Answers are stored for the first ${counted(stored.features, "feature")} of the list only.`;
    if (!grid.includes(alphas[0].alpha)) return `Answers are stored at ${grid.join(", ")} × the maximum only.`;
    const asUsual = edit.mode === usual.mode && edit.keep_error === usual.keep_error && edit.tokens === "all";
    return asUsual ? undefined : "Answers are stored for all tokens, and for one way of steering only.";
  }

  close() {}
}
