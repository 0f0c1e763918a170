// Parts of the panel beside the picture: prompt, sliders, features to choose from, answers, tries, code.

const TRIES = 30; // kept in the list
const four = (value) => Number(value.toPrecision(4)); // as Python's `strength`: what is run is what is shown and copied

/** A number as Python writes it. */
const literal = (value) => (Number.isInteger(value) ? value.toFixed(1) : `${value}`);

/** A text as a Python string. */
const quoted = (text) => JSON.stringify(text);

const button = (text, onclick, more = {}) => h("button", { type: "button", onclick, ...more }, text);

/** The prompt, prompts that the model knows, and the button that asks or stops. */
class PromptBar {
  constructor(meta, { ask, stop, change }) {
    this.input = h("input", { type: "text", className: "sp-prompt", "aria-label": "Prompt", maxLength: 300, spellcheck: false });
    this.known = h("select", { "aria-label": "Prompts that the model knows", title: "Prompts that the model knows" });
    this.known.append(h("option", { value: "" }, "prompts"), ...meta.prompts.map((prompt) => h("option", { value: prompt }, prompt)));
    this.go = button("Ask", () => (this.busy ? stop() : ask()), { className: "sp-go" });
    this.input.onchange = () => change(this.input.value.trim());
    this.known.onchange = () => {
      change(this.known.value);
      this.known.value = "";
    };
    this.node = h("div", { className: "sp-ask" }, this.input, h("span", { className: "sp-known" }, this.known), this.go);
  }

  show(prompt, busy) {
    this.busy = busy;
    if (this.input.value.trim() !== prompt) this.input.value = prompt;
    this.go.textContent = busy ? "Stop" : "Ask";
    this.go.classList.toggle("sp-stop", busy);
  }

  /** The prompts that the engine knows; others are marked. */
  dim(knows) {
    for (const option of [...this.known.options].slice(1)) option.disabled = !knows(option.value);
  }
}

/** One feature that is steered: its picture and name, its slider, the number that it is set to. */
class Slider {
  constructor(panel, described, { move, remove }) {
    const { alphas } = panel.meta;
    Object.assign(this, { panel, described, move });
    const named = `Strength of ${described.name} #${described.feature}`;
    const scale = { min: alphas[0], max: alphas.at(-1), step: 0.05 };
    this.range = h("input", { type: "range", ...scale, "aria-label": named });
    this.number = h("input", { type: "number", step: "any", "aria-label": `${named}, as a number` });
    this.times = h("span", { className: "sp-times" });
    this.range.oninput = () => this.set(Number(this.range.value));
    this.number.onchange = () => this.number.value !== "" && this.set(this.alphaOf(Number(this.number.value)));
    const drop = button("×", () => remove(described.feature), { className: "sp-icon", "aria-label": `Stop steering ${described.name}` });
    this.node = h(
      "div",
      { className: "sp-slider", "data-feature": described.feature },
      panel.thumbnail(described),
      h("div", { className: "sp-who" }, h("b", {}, described.name), h("small", {}, `#${described.feature}`), this.times, drop),
      h("div", { className: "sp-how-much" }, this.range, h("label", {}, h("i", {}, "α"), this.number)),
    );
    const zero = (0 - alphas[0]) / (alphas.at(-1) - alphas[0]);
    this.node.style.setProperty("--sp-zero", Math.min(1, Math.max(0, zero)));
  }

  unit = () => (this.panel.state.mode === "scale" ? 1 : this.described.max || 1);
  alphaOf = (value) => value / this.unit();

  set(alpha) {
    const { stored, meta } = this.panel;
    const nearest = () => meta.alphas.reduce((best, other) => (Math.abs(other - alpha) < Math.abs(best - alpha) ? other : best));
    this.move(this.described.feature, stored ? nearest() : alpha);
  }

  show(alpha) {
    this.range.value = alpha;
    this.number.value = four(alpha * this.unit());
    const unit = this.panel.state.mode === "scale" ? "its own value" : "its maximum";
    this.times.textContent = `${four(Number(alpha.toFixed(2)))} × ${unit}`;
    this.range.setAttribute("aria-valuetext", this.times.textContent);
  }
}

/** All steered features; the sliders stay while they are moved. */
class Sliders {
  constructor(panel, actions) {
    Object.assign(this, { panel, actions, rows: new Map() });
    this.list = h("div", { className: "sp-sliders", role: "group", "aria-label": "Steered features" });
    this.empty = h("p", { className: "sp-hint" }, "No feature is steered. Choose one below.");
    this.node = h("div", {}, this.list, this.empty);
  }

  show(sliders) {
    for (const [feature, row] of this.rows) {
      if (sliders.some((slider) => slider.feature === feature)) continue;
      row.node.remove();
      this.rows.delete(feature);
    }
    for (const { feature, alpha } of sliders) {
      if (!this.rows.has(feature)) {
        const row = new Slider(this.panel, this.panel.described(feature), this.actions);
        this.rows.set(feature, row);
        this.list.append(row.node);
      }
      this.rows.get(feature).show(alpha);
    }
    this.empty.hidden = sliders.length > 0;
  }
}

/** Search and list of the features with names; any other one is found by its number. */
class FeatureChoice {
  constructor(panel, toggle) {
    Object.assign(this, { panel, toggle });
    const known = `Name or number (${whole(panel.meta.features.length)} named, ${whole(panel.meta.n_features)} in all)`;
    this.search = h("input", { type: "search", placeholder: known, "aria-label": "Search features" });
    this.search.oninput = () => this.draw();
    this.search.onkeydown = (event) => this.key(event);
    this.list = h("div", { className: "sp-features", role: "group", "aria-label": "Features" });
    this.node = h("div", { className: "sp-choice" }, this.search, this.list);
  }

  key(event) {
    if (event.key === "Enter" || event.key === "ArrowDown") {
      const first = this.list.querySelector("button");
      if (event.key === "Enter") first?.click();
      else first?.focus();
    } else if (event.key === "Escape" && this.search.value) {
      this.search.value = "";
      this.draw();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  found() {
    const { meta } = this.panel;
    const query = this.search.value.trim().toLowerCase();
    if (/^#?\d+$/.test(query)) {
      const number = Number(query.replace("#", ""));
      return number < meta.n_features ? [this.panel.described(number)] : [];
    }
    const words = query.split(/\s+/);
    return meta.features.filter(({ name, note }) => words.every((word) => `${name} ${note}`.toLowerCase().includes(word)));
  }

  draw() {
    const found = this.found();
    this.list.replaceChildren(...found.map((described) => this.item(described)));
    if (!found.length) this.list.append(h("p", { className: "sp-hint" }, "No feature has this name or number."));
    this.mark();
  }

  item(described) {
    const words = h("span", { className: "sp-name" }, h("b", {}, described.name), h("small", {}, described.note || `#${described.feature}`));
    const more = { className: "sp-feature", "data-feature": described.feature, title: described.note || described.name };
    return h("button", { type: "button", ...more, onclick: () => this.toggle(described.feature) }, this.panel.thumbnail(described), words);
  }

  mark() {
    const { state, stored, engines } = this.panel;
    for (const item of this.list.querySelectorAll("button")) {
      const feature = Number(item.dataset.feature);
      item.setAttribute("aria-pressed", state.sliders.some((slider) => slider.feature === feature));
      item.classList.toggle("sp-absent", stored && !engines.stored.hasFeature(feature));
    }
  }
}

/** How and where the features are steered. */
class Manner {
  static modes = { clamp: "set to α", add: "add α", scale: "multiply by α" };
  static places = { all: "all tokens", spatial: "patches, not CLS", cls: "CLS only", chosen: "chosen patches" };

  constructor(meta, change) {
    const menu = (label, options, field) => {
      const node = h("select", { "aria-label": label }, ...options.map(([value, text]) => h("option", { value }, text)));
      node.onchange = () => change({ [field]: node.value });
      return node;
    };
    this.mode = menu("What happens to the features", meta.modes.map((mode) => [mode, Manner.modes[mode]]), "mode");
    const places = Object.entries(Manner.places).filter(([place]) => meta.has_cls || (place !== "cls" && place !== "spatial"));
    this.where = menu("On which tokens", places, "where");
    this.error = h("input", { type: "checkbox" });
    this.error.onchange = () => change({ keepError: this.error.checked });
    const title = "Add back what the SAE cannot reconstruct; the paper drops it";
    this.node = h("div", { className: "sp-manner" }, this.mode, this.where, h("label", { title }, this.error, "keep the SAE's error"));
  }

  show({ mode, where, patches, keepError }) {
    this.mode.value = mode;
    this.where.value = where;
    this.where.querySelector('[value="chosen"]').disabled = patches.size === 0;
    this.error.checked = keepError;
  }
}

/** The two texts side by side. Words that only the steered one has are marked when it is complete. */
class Answers {
  constructor() {
    const card = (title, live) => {
      const text = h("p", { className: "sp-text", "aria-live": live ? "polite" : "off" });
      const time = h("small", {});
      const node = h("section", { className: "sp-answer", "aria-label": title }, h("header", {}, h("h4", {}, title), time), text);
      return { node, text, time };
    };
    this.plain = card("Unsteered", false);
    this.steered = card("Steered", true);
    this.node = h("div", { className: "sp-answers" }, this.plain.node, this.steered.node);
  }

  show(card, text, { state = "", seconds } = {}) {
    card.text.textContent = text;
    card.node.dataset.state = state;
    card.time.textContent = seconds === undefined ? "" : `${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
  }

  /** Marks the words of the steered text that the other one does not have, short ones such as articles left out. */
  compare(plain, steered) {
    const bare = (word) => word.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");
    const known = new Set(plain.split(/\s+/).map(bare));
    const isNew = (part) => bare(part).length > 2 && !known.has(bare(part));
    const parts = steered.split(/(\s+)/).map((part) => (isNew(part) ? h("mark", {}, part) : part));
    this.steered.text.replaceChildren(...parts);
  }
}

/** What was tried, newest first; a click brings it back. */
class History {
  constructor(restore) {
    Object.assign(this, { restore, tries: [] });
    this.list = h("ol", { className: "sp-tries" });
    this.title = h("span", {});
    const clear = button("clear", () => this.set([]));
    this.node = h("details", { className: "sp-more", hidden: true }, h("summary", {}, this.title), this.list, clear);
  }

  add(entry) {
    const same = (other) => other.summary === entry.summary && other.text === entry.text;
    if (!this.tries.length || !same(this.tries[0])) this.set([entry, ...this.tries].slice(0, TRIES));
  }

  set(tries) {
    this.tries = tries;
    this.node.hidden = tries.length === 0;
    this.title.textContent = counted(tries.length, "try").replace("trys", "tries");
    this.list.replaceChildren(...tries.map((entry) => this.row(entry)));
  }

  row(entry) {
    const words = h("span", { className: "sp-name" }, h("small", {}, entry.summary), h("span", {}, entry.text));
    return h("li", {}, h("button", { type: "button", onclick: () => this.restore(entry), title: "Back to this try" }, entry.picture, words));
  }
}

/** The exact call in Python, to copy. */
class Code {
  constructor(meta) {
    this.meta = meta;
    this.text = h("pre", { tabIndex: 0, "aria-label": "Code" });
    this.copy = button("copy", () => this.toClipboard());
    this.node = h("details", { className: "sp-more sp-code" }, h("summary", {}, "As code"), h("div", {}, this.text, this.copy));
  }

  show(request) {
    const { names, max_new_tokens: length } = this.meta;
    const [edit] = request.edits.filter(Boolean);
    const picture = request.picture.place === null ? "picture" : `${names.images}[${request.picture.place}]`;
    const steering = edit ? ["intervention", `intervention = ${this.intervention(edit)}\n`] : ["None", ""];
    this.text.textContent =
      `${steering[1]}${names.llava}.generate([${picture}], ${quoted(request.prompt)}, ${steering[0]}, max_new_tokens=${length})`;
  }

  /** As Python's `Intervention.as_code` writes it. */
  intervention({ features, mode, tokens, keep_error: error }) {
    const { names, site } = this.meta;
    const parts = [names.sae, quoted(site), `{${features.map(([feature, value]) => `${feature}: ${literal(value)}`).join(", ")}}`];
    if (mode !== "clamp") parts.push(`mode=${quoted(mode)}`);
    if (typeof tokens !== "string") parts.push(`tokens=[${tokens.map((row) => `[${row.map(Number).join(", ")}]`).join(", ")}]`);
    else if (tokens !== "all") parts.push(`tokens=${quoted(tokens)}`);
    return `Intervention(${[...parts, `keep_error=${error ? "True" : "False"}`].join(", ")})`;
  }

  async toClipboard() {
    try {
      await navigator.clipboard.writeText(this.text.textContent);
      this.copy.textContent = "copied";
      setTimeout(() => (this.copy.textContent = "copy"), 1500);
    } catch {
      window.prompt("Copy this code", this.text.textContent); // a browser that keeps its clipboard to itself
    }
  }
}
