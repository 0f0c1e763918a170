// The suppression panel: its state, who computes, and when the kernel is asked.

const SETTLED = 160; // ms without a change after which the kernel is asked
const SUPPRESSION_ADDRESS = { task: "task", site: "layer", suppressed: "off" };

/** The notebook's model, behind the line to Python; `answered` hears what it says to the newest request. */
class LiveModel extends KernelLine {
  requests = 0;

  constructor(model, changed, answered) {
    super(model, changed);
    this.answered = answered;
  }

  ask(result, strengths) {
    this.requests += 1;
    this.send({ kind: "answer", request: this.requests, result, strengths });
  }

  /** What was asked for is no longer wanted. */
  drop() {
    this.requests += 1;
    this.send({ kind: "cancel" });
  }

  hear(message) {
    if (message.request === this.requests && message.kind !== "stopped") this.answered(message);
  }
}

class SuppressionPanel {
  constructor(model, meta, arrays, sprites) {
    this.meta = meta;
    this.outcomes = meta.results.map((described, number) => new Outcome(described, arrays, number));
    this.ticks = this.outcomes.map(({ features }) => ({
      suppressed: new Set(features.filter(({ chosen }) => chosen).map(({ id }) => id)),
      strengths: new Map(),
    }));
    this.address = new Address("suppression", SUPPRESSION_ADDRESS, meta.key);
    this.first();
    this.build(sprites);
    if (meta.live) this.kernel = new LiveModel(model, () => this.kernelChanged(), (message) => this.answered(message));
    this.kernelChanged();
  }

  // ---------------------------------------------------------------- layout

  build(sprites) {
    const name = `su-${Math.random().toString(36).slice(2, 8)}`; // a page may show several panels
    this.task = new Chooser("Task", `${name}-task`, (task) => this.choose({ task }));
    this.layer = new Chooser("Layer", `${name}-layer`, (site) => this.choose({ site }));
    this.features = new Features({
      toggle: (id) => this.toggle(id),
      several: (which) => this.several(which),
      strength: (id, strength) => this.strength(id, strength),
    });
    this.accuracies = new Accuracies();
    this.examples = new Examples(sprites);
    this.status = h("p", { className: "su-status", role: "status" });
    this.problem = h("p", { className: "su-problem", role: "alert", hidden: true });
    this.link = h("button", { type: "button", className: "su-link", onclick: () => this.address.copy(this.shared(), this.link), hidden: !this.address.enabled }, "copy link");
    this.node = h(
      "div",
      // Lumino's attribute keeps JupyterLab's own single-key commands away while the focus is in here.
      { className: "su", id: this.address.anchor, role: "region", "aria-label": "Suppression panel", "data-lm-suppress-shortcuts": "true" },
      h("header", { className: "su-head" }, this.status, h("div", { className: "su-choosers" }, this.task.node, this.layer.node)),
      h("div", { className: "su-body" }, this.features.node, h("div", { className: "su-see" }, this.problem, this.accuracies.node, this.examples.node)),
      h("footer", { className: "su-footer" }, this.legend(), this.link),
    );
  }

  legend() {
    const entry = (name, text) => h("span", {}, h("i", { className: `su-swatch ${name}`, "aria-hidden": true }), ` ${text} `);
    const of = this.meta.pictures_of ? `${this.meta.pictures_of}. ` : "";
    const text = `${of}Bar: accuracy with the ticked features suppressed. `;
    return h("div", { className: "su-legend" }, text, entry("su-mark", "with nothing suppressed."), entry("su-interval", "95 % interval."));
  }

  // ---------------------------------------------------------------- state

  get outcome() {
    return this.outcomes[this.place];
  }

  get tick() {
    return this.ticks[this.place];
  }

  /** What is shown first: what the address says, else the first task and layer with what was chosen there. */
  first() {
    const { task, site, suppressed } = this.address.read();
    this.place = this.find(task, site);
    if (suppressed === undefined) return;
    const wanted = new Set(suppressed.split(".").map(Number));
    this.tick.suppressed = new Set(this.outcome.features.map(({ id }) => id).filter((id) => wanted.has(id)));
  }

  /** The place of a task and layer; of the task's first layer where it has none of that name; else 0. */
  find(task, site) {
    const same = this.outcomes.find((outcome) => outcome.task === task && outcome.site === site);
    return (same ?? this.outcomes.find((outcome) => outcome.task === task))?.number ?? 0;
  }

  choose({ task = this.outcome.task, site = this.outcome.site }) {
    this.place = this.find(task, site);
    this.changed();
  }

  toggle(id) {
    const { suppressed } = this.tick;
    if (!suppressed.delete(id)) suppressed.add(id);
    this.changed();
  }

  /** Ticks "all", "none", or those that are "chosen". */
  several(which) {
    const { features } = this.outcome;
    const wanted = { all: features, none: [], chosen: features.filter(({ chosen }) => chosen) }[which];
    this.tick.suppressed = new Set(wanted.map(({ id }) => id));
    this.tick.strengths.clear();
    this.changed();
  }

  strength(id, strength) {
    this.tick.strengths.set(id, strength);
    this.changed();
  }

  changed() {
    this.address.write(this.shared());
    this.update();
  }

  shared() {
    const { task, site } = this.outcome;
    return { task, site, suppressed: [...this.tick.suppressed].sort((a, b) => a - b).join(".") };
  }

  // ---------------------------------------------------------------- who computes

  get live() {
    return this.kernel?.state === "attached";
  }

  kernelChanged() {
    const counts = [...new Set(this.outcomes.map(({ features }) => 2 ** features.length))];
    const subsets = counts.length === 1 ? `all ${whole(counts[0])} subsets` : "all subsets";
    const stored = `Stored results: ${subsets} of the features are in this page.`;
    const words = {
      attached: "Live: a kernel is attached, and the notebook’s model computes every choice; each strength has a slider.",
      lost: `The kernel does not answer: it is busy, or it has ended; restart it and run the notebook again. ${stored}`,
      absent: `${stored} No kernel is attached.`,
      unknown: `${stored} Looking for a kernel …`,
    };
    this.node.dataset.engine = this.live ? "kernel" : "stored";
    this.node.dataset.kernel = this.kernel?.state ?? "none";
    this.status.textContent = words[this.kernel?.state] ?? `${stored} It needs no kernel.`;
    this.update();
  }

  /** Shows what is stored, or asks the kernel once nothing has changed for a moment. */
  update() {
    const { outcome, tick } = this;
    clearTimeout(this.waiting);
    const sites = this.outcomes.filter(({ task }) => task === outcome.task).map(({ site }) => site);
    this.task.show([...new Set(this.outcomes.map(({ task }) => task))], outcome.task);
    this.layer.show(sites, outcome.site);
    this.features.show(outcome, tick, this.live);
    this.fail();
    if (this.asked) this.kernel.drop();
    this.asked = undefined;
    if (!this.live || !tick.suppressed.size) return this.show(outcome.predictions(tick.suppressed), outcome.ordinary(tick.suppressed), "");
    this.node.dataset.state = "waiting";
    this.accuracies.how.textContent = "computing …";
    if (this.shown !== outcome) this.show(outcome.predictions(tick.suppressed), outcome.ordinary(tick.suppressed), "computing …", "waiting");
    this.waiting = setTimeout(() => this.ask(), SETTLED);
  }

  ask() {
    const { outcome, tick } = this;
    const ticked = outcome.features.filter(({ id }) => tick.suppressed.has(id));
    const strengths = ticked.map(({ id }) => [id, tick.strengths.get(id) ?? SUPPRESSED]);
    const usual = strengths.every(([, strength]) => strength === SUPPRESSED);
    this.asked = { outcome, since: performance.now(), usual, suppressed: new Set(tick.suppressed) };
    this.kernel.ask(outcome.number, strengths);
  }

  answered(message) {
    if (!this.asked) return;
    const { outcome, since, usual, suppressed } = this.asked;
    this.asked = undefined;
    if (message.kind === "error") {
      this.show(outcome.predictions(suppressed), outcome.ordinary(suppressed), "stored: the kernel failed");
      return this.fail(message.text);
    }
    const stored = usual ? outcome.ordinary(suppressed) : undefined;
    const ordinary = message.ordinary === null ? stored : outcome.ordinaryShare(message.ordinary);
    this.show(Uint8Array.from(message.predictions), ordinary, `computed live in ${((performance.now() - since) / 1000).toFixed(1)} s`);
  }

  show(predictions, ordinary, how, state = "shown") {
    this.shown = this.outcome;
    this.node.dataset.state = state;
    this.accuracies.how.textContent = how;
    this.accuracies.show(this.outcome, predictions, ordinary);
    this.examples.show(this.outcome, predictions);
  }

  fail(sentence) {
    this.problem.hidden = !sentence;
    this.problem.textContent = sentence ?? "";
  }

  // ---------------------------------------------------------------- end

  close() {
    clearTimeout(this.waiting);
    this.kernel?.close();
    this.address.release();
  }
}

async function render({ model, el }) {
  const loading = h("div", { className: "su su-loading", role: "status" }, "Unpacking the pictures …");
  el.append(loading);
  const meta = model.get("meta");
  const arrays = await unpack(meta.arrays, model.get("numbers"));
  const panel = new SuppressionPanel(model, meta, arrays, new Sprites(meta.sprite_sheets, model.get("sprites")));
  loading.replaceWith(panel.node);
  if (location.hash === `#${panel.address.anchor}`) panel.node.scrollIntoView();
  return () => panel.close();
}

export default { render };
