// The panel: its state, who answers, and when a question is asked.

const SETTLED = 160; // ms without a change after which a question goes out
const UNSTEERED_KEPT = 200; // texts of the model as it is, by picture and prompt
const STEERING_ADDRESS = { picture: "picture", prompt: "prompt", sliders: "steer", mode: "mode", where: "tokens", patches: "patches", keepError: "error" };
const STEERING_KEYS = [
  ["/", "search"],
  ["Enter", "ask"],
  ["Esc", "stop"],
];

class Panel {
  constructor(model, meta, arrays, pictures, sprites) {
    Object.assign(this, { meta, arrays, pictures, sprites, unsteered: new Map() });
    this.address = new Address("steering", STEERING_ADDRESS, meta.key);
    this.engines = { stored: new StoredAnswers(meta, arrays.answers), browser: new BrowserEngine(meta) };
    this.state = this.first();
    this.build();
    this.node.addEventListener("keydown", (event) => this.key(event));
    this.engines.kernel = new KernelEngine(model, meta, () => this.engineChanged());
    this.features.draw();
    this.draw();
    this.engineChanged();
  }

  build() {
    const change = (patch) => this.change(patch);
    this.strip = new Strip(this.meta, this.pictures, { choose: (picture) => change({ picture }), upload: (file) => this.upload(file) });
    this.board = new Board(this.meta, this.pictures, {
      patches: (patches) => change({ patches, where: patches.size ? "chosen" : "all" }),
      drawn: () => this.drawn(),
    });
    this.prompt = new PromptBar(this.meta, { ask: () => this.ask(), stop: () => this.stop(), change: (prompt) => change({ prompt }) });
    this.answers = new Answers();
    this.sliders = new Sliders(this, { move: (feature, alpha) => this.move(feature, alpha), remove: (feature) => this.toggle(feature) });
    this.features = new FeatureChoice(this, (feature) => this.toggle(feature));
    this.manner = new Manner(this.meta, change);
    this.history = new History((entry) => this.restore(entry));
    this.code = new Code(this.meta);
    this.node = this.layout();
  }

  layout() {
    this.status = h("p", { className: "sp-status", role: "status" });
    this.start = button("", () => this.startBrowser(), { className: "sp-start", hidden: true });
    this.progress = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Loading the model" });
    this.problem = h("p", { className: "sp-problem", role: "alert", hidden: true });
    const link = button("copy link", () => this.address.copy(this.shared(), this.link), { className: "sp-link", hidden: !this.address.enabled });
    this.link = link;
    const help = STEERING_KEYS.map(([keys, action]) => h("span", {}, h("kbd", {}, keys), action));
    return h(
      "div",
      // Lumino's attribute keeps JupyterLab's own single-key commands away while the focus is in here.
      { className: "sp", id: this.address.anchor, role: "region", "aria-label": "Steering panel", "data-lm-suppress-shortcuts": "true" },
      h("header", { className: "sp-bar" }, this.status, this.progress, this.start),
      h(
        "div",
        { className: "sp-body" },
        h("div", { className: "sp-see" }, this.board.node, this.strip.node),
        h("div", { className: "sp-say" }, this.prompt.node, this.problem, this.answers.node),
        h("div", { className: "sp-steer" }, this.sliders.node, this.manner.node, this.features.node),
      ),
      h("footer", { className: "sp-footer" }, this.history.node, this.code.node, h("p", { className: "sp-help" }, ...help, link)),
    );
  }

  // ---------------------------------------------------------------- state

  /** What is shown first: what the address says, else the first picture, prompt and feature. */
  first() {
    const { meta } = this;
    const wanted = this.address.read();
    const place = Number(wanted.picture ?? 0);
    const [feature] = meta.features;
    const usual = [{ feature: feature.feature, alpha: meta.start }];
    const patches = new Set((wanted.patches ?? "").split(".").filter(Boolean).map(Number));
    return {
      picture: Number.isInteger(place) && place >= 0 && place < meta.labels.length ? place : 0,
      prompt: wanted.prompt || meta.prompts[0],
      sliders: wanted.sliders === undefined ? usual : this.slidersFrom(wanted.sliders),
      mode: meta.modes.includes(wanted.mode) ? wanted.mode : meta.edit.mode,
      where: patches.size ? "chosen" : (["spatial", "cls"].find((where) => where === wanted.where) ?? "all"),
      patches,
      keepError: wanted.keepError ? wanted.keepError === "kept" : meta.edit.keep_error,
    };
  }

  slidersFrom(text) {
    const pairs = text.split("_").map((pair) => pair.split(":").map(Number));
    const valid = ([feature, alpha]) => Number.isInteger(feature) && feature >= 0 && feature < this.meta.n_features && Number.isFinite(alpha);
    return pairs.filter(valid).map(([feature, alpha]) => ({ feature, alpha }));
  }

  /** What a link must hold: only what differs from the panel at first opening. */
  shared() {
    const { picture, prompt, sliders, mode, where, patches, keepError } = this.state;
    const { meta } = this;
    return {
      picture: picture || undefined,
      prompt: prompt === meta.prompts[0] ? undefined : prompt,
      sliders: sliders.map(({ feature, alpha }) => `${feature}:${four(alpha)}`).join("_"),
      mode: mode === meta.edit.mode ? undefined : mode,
      where: where === "all" || where === "chosen" ? undefined : where,
      patches: where === "chosen" ? [...patches].sort((a, b) => a - b).join(".") : undefined,
      keepError: keepError === meta.edit.keep_error ? undefined : keepError ? "kept" : "dropped",
    };
  }

  /** The one way by which the state changes; asks anew once nothing has changed for a moment. */
  change(patch) {
    this.state = { ...this.state, ...patch };
    this.draw();
    this.address.write(this.shared());
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.ask(), SETTLED);
  }

  move(feature, alpha) {
    this.change({ sliders: this.state.sliders.map((slider) => (slider.feature === feature ? { feature, alpha } : slider)) });
  }

  toggle(feature) {
    const { sliders } = this.state;
    const others = sliders.filter((slider) => slider.feature !== feature);
    if (others.length < sliders.length) return this.change({ sliders: others });
    const added = { feature, alpha: this.meta.start };
    this.change({ sliders: this.stored ? [added] : [...sliders, added] }); // a page stores one feature at a time
  }

  drawn() {
    this.strip.drawOwn();
    this.change({ picture: OWN });
  }

  async upload(file) {
    try {
      await this.pictures.load(file);
      this.drawn();
    } catch (error) {
      this.fail(error.message);
    }
  }

  // ---------------------------------------------------------------- drawing

  draw() {
    const { state, meta } = this;
    this.strip.mark(state.picture, (place) => !this.stored || this.engines.stored.hasPicture(place));
    this.board.show(state.picture, state.picture === OWN ? "Your own picture" : meta.labels[state.picture], state.where === "chosen" ? state.patches : new Set());
    this.prompt.show(state.prompt, this.busy);
    this.prompt.dim((prompt) => !this.stored || this.engines.stored.prompts().includes(prompt));
    this.sliders.show(state.sliders);
    this.features.mark();
    this.manner.show(state);
    this.code.show(this.request());
  }

  thumbnail({ top = [] }) {
    const canvas = h("canvas", { width: 80, height: 80, className: top.length ? "" : "sp-none", "aria-hidden": true });
    if (top.length) this.sprites.draw(canvas, top[0]);
    return canvas;
  }

  /** What is known of a feature; of one without a name at least its largest code, where Python gave it. */
  described(feature) {
    const known = this.meta.features.find((other) => other.feature === feature);
    return known ?? { feature, name: `feature ${feature}`, note: "without a name", max: this.arrays.peaks[feature] || 1 };
  }

  fail(sentence) {
    this.problem.hidden = !sentence;
    this.problem.textContent = sentence ?? "";
  }

  // ---------------------------------------------------------------- who answers

  get engine() {
    const { kernel, browser, stored } = this.engines;
    if (kernel?.state === "attached") return kernel;
    return browser.started ? browser : stored;
  }

  get stored() {
    return this.engine.kind === "stored";
  }

  engineChanged() {
    const { kernel, browser } = this.engines;
    const obstacle = browser.obstacle();
    const without = {
      unknown: "Looking for a kernel …",
      lost: "The kernel does not answer: it is busy, or it has ended; restart it and run the notebook again.",
    };
    const none = without[kernel?.state] ?? "No kernel.";
    const source = this.meta.stored.prompts ? "The answers shown are stored in this page." : "This page stores no answers.";
    const words = {
      kernel: "Kernel attached: the notebook’s model computes every answer.",
      browser: "No kernel: the model runs in this browser and computes every answer.",
      stored: kernel?.state === "unknown" ? none : `${none} ${source} ${kernel?.state === "absent" && obstacle ? obstacle : ""}`,
    };
    this.node.dataset.engine = this.engine.kind;
    this.status.textContent = words[this.engine.kind].trim();
    this.start.hidden = !this.stored || kernel?.state === "unknown" || obstacle !== undefined || this.loading;
    this.start.textContent = `Start the model in this browser (${this.megabytes()} MB)`;
    this.draw();
    if (kernel?.state !== "unknown" && this.asked !== this.engine.kind) this.ask();
  }

  megabytes = () => Math.ceil((this.meta.page_files?.bytes ?? 0) / 1e6);

  async startBrowser() {
    this.loading = true;
    this.start.hidden = true;
    this.progress.hidden = false;
    this.progress.value = 0;
    this.fail();
    try {
      await this.engines.browser.start((fraction) => {
        this.progress.value = fraction;
        this.status.textContent = `Loading the model: ${Math.round(100 * fraction)} % of ${this.megabytes()} MB`;
      });
    } catch (error) {
      this.fail(error.message);
    }
    this.loading = false;
    this.progress.hidden = true;
    this.engineChanged();
  }

  // ---------------------------------------------------------------- asking

  /** What is asked for now. The features are in order of number, so that every engine adds them in the same order. */
  request() {
    const { picture, prompt, sliders, mode, where, patches, keepError } = this.state;
    const [rows, columns] = this.meta.grid;
    const row = (r) => Array.from({ length: columns }, (_, c) => patches.has(r * columns + c));
    const tokens = where === "chosen" ? Array.from({ length: rows }, (_, r) => row(r)) : where;
    const ordered = [...sliders].sort((a, b) => a.feature - b.feature);
    const value = ({ feature, alpha }) => four(mode === "scale" ? alpha : alpha * this.described(feature).max);
    const features = ordered.map((slider) => [slider.feature, value(slider)]);
    const edit = features.length ? { features, mode, tokens, keep_error: keepError } : null;
    return { picture: this.pictures.picture(picture), prompt, edits: [null, edit], alphas: ordered };
  }

  /** Asks for the text without steering, unless it is known, and for the one with. */
  ask() {
    clearTimeout(this.waiting);
    if (this.engines.kernel?.state === "unknown") return; // asked as soon as it is known who answers
    this.stop();
    this.fail();
    const { engine } = this;
    this.asked = engine.kind;
    const request = this.request();
    const known = this.unsteered.get(this.unsteeredKey(request));
    const cards = [this.answers.plain, this.answers.steered];
    const edit = request.edits[1];
    const runs = [...(known === undefined ? [0] : []), ...(edit ? [1] : [])];
    if (known !== undefined) this.answers.show(cards[0], known);
    if (!edit) this.answers.show(cards[1], "Choose a feature to steer.", { state: "idle" });
    if (!runs.length) return;
    const texts = [known ?? "", ""];
    for (const run of runs) this.answers.show(cards[run], "", { state: "waiting" });
    this.listen(engine, { ...request, edits: runs.map((run) => request.edits[run]) }, runs, texts, cards);
  }

  listen(engine, request, runs, texts, cards) {
    let began = performance.now();
    this.busy = true;
    const finish = () => {
      this.busy = false;
      this.cancel = undefined;
      this.prompt.show(this.state.prompt, false);
    };
    this.cancel = engine.answer(request, {
      text: (i, piece) => {
        texts[runs[i]] = `${texts[runs[i]]}${piece}`.trimStart();
        this.answers.show(cards[runs[i]], texts[runs[i]], { state: "writing" });
      },
      done: (i, whole) => {
        const run = runs[i];
        texts[run] = whole ?? texts[run];
        const seconds = this.stored ? undefined : (performance.now() - began) / 1000;
        began = performance.now();
        this.answers.show(cards[run], texts[run], { seconds });
        if (run === 0) this.keepUnsteered(request, texts[0]);
        if (run === 1) this.complete(request, texts);
        if (i === runs.length - 1) finish();
      },
      failed: (sentence) => {
        for (const run of runs) if (!texts[run]) this.answers.show(cards[run], "–", { state: "idle" });
        this.fail(sentence);
        finish();
      },
    });
    this.prompt.show(this.state.prompt, this.busy);
  }

  unsteeredKey = ({ picture, prompt }) => JSON.stringify([this.engine.kind, picture.id, prompt]);

  keepUnsteered(request, text) {
    if (this.unsteered.size >= UNSTEERED_KEPT) this.unsteered.delete(this.unsteered.keys().next().value);
    this.unsteered.set(this.unsteeredKey(request), text);
  }

  complete(request, [plain, steered]) {
    this.answers.compare(plain, steered);
    const canvas = h("canvas", { width: 56, height: 56, "aria-hidden": true });
    this.pictures.draw(canvas, request.picture.place);
    const [edit] = request.edits.filter(Boolean);
    const features = edit.features.map(([feature, value]) => `${this.described(feature).name} ${value}`).join(", ");
    const summary = `${Manner.modes[edit.mode].replace("α", "")}${features}${edit.tokens === "all" ? "" : ", on some tokens"} · ${request.prompt}`;
    const own = request.picture.place === OWN ? request.picture.pixels() : undefined;
    this.history.add({ picture: canvas, summary, text: steered, own, state: this.state });
  }

  restore({ own, state }) {
    if (own) this.pictures.restore(own);
    if (own) this.strip.drawOwn();
    this.change(state);
  }

  /** Stops what is being written; what is there stays. */
  stop() {
    this.cancel?.();
    this.cancel = undefined;
    this.busy = false;
    for (const { node } of [this.answers.plain, this.answers.steered]) {
      if (node.dataset.state === "writing" || node.dataset.state === "waiting") node.dataset.state = "stopped";
    }
    this.prompt.show(this.state.prompt, false);
  }

  // ---------------------------------------------------------------- keys, end

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(text|search|number)$/.test(event.target.type ?? "");
    if (event.key === "Escape") this.stop();
    else if (event.key === "/" && !typing) this.features.search.focus();
    else if (event.key === "Enter" && event.target === this.prompt.input) this.change({ prompt: this.prompt.input.value.trim() });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  close() {
    this.stop();
    clearTimeout(this.waiting);
    for (const engine of Object.values(this.engines)) engine.close();
    this.address.release();
  }
}

async function render({ model, el }) {
  const loading = h("div", { className: "sp sp-loading", role: "status" }, "Unpacking the pictures …");
  el.append(loading);
  const meta = model.get("meta");
  const arrays = await unpack(meta.arrays, model.get("numbers"));
  const pictures = new Pictures(meta, model.get("pictures"));
  await pictures.ready();
  const panel = new Panel(model, meta, arrays, pictures, new Sprites(meta.sprite_sheets, model.get("sprites")));
  loading.replaceWith(panel.node);
  if (location.hash === `#${panel.address.anchor}`) panel.node.scrollIntoView();
  return () => panel.close();
}

export default { render };
