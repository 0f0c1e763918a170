// Parts of the suppression panel: choosers of task and layer, features to tick, bars of accuracy, example pictures.

const STRENGTH = { min: -1, max: 3, step: 0.05 }; // of a live slider: a feature becomes (1 - strength) times itself
const SUPPRESSED = 1; // the strength of the stored results
const points = (difference) => `${difference < 0 ? "−" : "+"}${Math.abs(100 * difference).toFixed(1)}`;
const CELL = 192; // canvas pixels of an example

/** A row of alternatives, of which one is chosen; radio buttons underneath, so that arrow keys work. */
class Chooser {
  constructor(legend, name, choose) {
    Object.assign(this, { name, choose });
    this.options = h("div", { className: "su-options" });
    this.node = h("fieldset", { className: "su-chooser" }, h("legend", {}, legend), this.options);
  }

  show(values, chosen) {
    if (this.values !== values.join("\n")) this.build(values);
    for (const input of this.options.querySelectorAll("input")) input.checked = input.value === chosen;
  }

  build(values) {
    this.values = values.join("\n");
    const option = (value) => {
      const input = h("input", { type: "radio", name: this.name, value });
      input.onchange = () => this.choose(value);
      return h("label", { className: "su-option" }, input, h("span", {}, value));
    };
    this.options.replaceChildren(...values.map(option));
  }
}

/** The features of a result, each with a box to tick and, with a kernel, the strength that it is set to. */
class Features {
  constructor({ toggle, several, strength }) {
    Object.assign(this, { toggle, strength });
    const button = (text, of) => h("button", { type: "button", onclick: () => several(of) }, text);
    this.chosen = button("chosen on validation", "chosen");
    this.buttons = h("div", { className: "su-buttons" }, button("all", "all"), button("none", "none"), this.chosen);
    this.list = h("ul", { className: "su-features", role: "list" });
    this.help = h("p", { className: "su-help" }, "Strength 0 leaves a feature as it is, 1 takes it out, more turns its sign, and less than 0 makes it louder.");
    this.node = h("section", { className: "su-choose", "aria-label": "Features to suppress" }, h("h4", {}, "Suppress"), this.list, this.buttons, this.help);
  }

  show(outcome, { suppressed, strengths }, live) {
    if (this.outcome !== outcome) this.build(outcome);
    this.help.hidden = !live;
    for (const { feature, box, range, told, slider } of this.rows) {
      const on = suppressed.has(feature.id);
      box.checked = on;
      slider.hidden = !(live && on);
      const strength = strengths.get(feature.id) ?? SUPPRESSED;
      range.value = strength;
      told.textContent = `strength ${strength.toFixed(2).replace("-", "−")}`;
    }
  }

  build(outcome) {
    this.outcome = outcome;
    this.rows = outcome.features.map((feature) => this.row(feature));
    this.list.replaceChildren(...this.rows.map(({ node }) => node));
    this.chosen.hidden = !outcome.features.some(({ chosen }) => chosen);
  }

  row(feature) {
    const box = h("input", { type: "checkbox", onchange: () => this.toggle(feature.id) });
    const range = h("input", { type: "range", ...STRENGTH, "aria-label": `Strength of ${feature.name}` });
    range.oninput = () => this.strength(feature.id, Number(range.value));
    const told = h("small", {});
    const note = feature.note ? h("small", { className: "su-note" }, feature.note) : undefined;
    const name = h("span", { className: "su-name" }, h("span", {}, h("b", {}, feature.name), h("small", {}, ` #${feature.id}`)), note);
    const slider = h("div", { className: "su-slider", hidden: true }, range, told);
    const node = h("li", { "data-feature": feature.id }, h("label", {}, box, name), slider);
    return { feature, box, range, told, slider, node };
  }
}

/** One accuracy: a bar, its interval as a line, and a mark where it is with nothing suppressed. */
class Bar {
  constructor(title, { className = "", kind = "" } = {}) {
    Object.assign(this, { title, kind });
    this.tag = h("span", { className: "su-tag", hidden: true }, "worst");
    this.count = h("small", {});
    const part = (name) => h("i", { className: name });
    Object.assign(this, { fill: part("su-fill"), interval: part("su-interval"), mark: part("su-mark") });
    this.value = h("b", {});
    this.change = h("small", { className: "su-change" });
    this.node = h(
      "li",
      { className: `su-bar-row ${className}`, role: "listitem" },
      h("span", { className: "su-title", "aria-hidden": true }, title, this.tag, this.count),
      h("span", { className: "su-track", "aria-hidden": true }, this.fill, this.interval, this.mark),
      h("span", { className: "su-value", "aria-hidden": true }, this.value, this.change),
    );
  }

  /** now: a share, or undefined where it was not computed; before: with nothing suppressed. */
  show(now, before, worst = false) {
    const known = now !== undefined && !Number.isNaN(now.value);
    const at = (fraction) => `${100 * fraction}%`;
    this.tag.hidden = !worst;
    this.count.textContent = [this.kind, before.n === undefined ? "" : counted(before.n, "picture")].filter(Boolean).join(", ");
    this.node.dataset.value = known ? now.value : "";
    this.node.dataset.before = before.value;
    this.fill.style.width = known ? at(now.value) : "0";
    this.mark.hidden = Number.isNaN(before.value);
    this.mark.style.left = at(before.value);
    this.interval.hidden = !known || Number.isNaN(now.low);
    this.interval.style.left = at(now?.low ?? 0);
    this.interval.style.width = at((now?.high ?? 0) - (now?.low ?? 0));
    const difference = known ? now.value - before.value : 0;
    this.value.textContent = known ? percent(now.value) : before.n === 0 ? "no pictures" : "not computed";
    this.change.textContent = Math.abs(difference) < 0.0005 ? "" : points(difference);
    this.node.setAttribute("aria-label", this.sentence(now, before, known, worst));
  }

  sentence(now, before, known, worst) {
    const name = `${this.title}${worst ? ", the worst group" : ""}`;
    if (!known) return `${name}: ${this.value.textContent}`;
    const interval = Number.isNaN(now.low) ? "" : `, interval ${percent(now.low)} to ${percent(now.high)}`;
    return `${name}: ${percent(now.value)}${interval}; with nothing suppressed ${percent(before.value)}`;
  }
}

/** The groups, the average over all pictures, and ordinary pictures. */
class Accuracies {
  constructor() {
    this.list = h("ul", { className: "su-bars", role: "list" });
    this.others = h("ul", { className: "su-bars su-others", role: "list" });
    this.summary = h("p", { className: "su-summary", role: "status" });
    this.how = h("small", { className: "su-how" });
    this.node = h(
      "section",
      { className: "su-accuracies", "aria-label": "Accuracies" },
      h("h4", {}, "Accuracy by group", this.how),
      this.list, this.others, this.summary,
    );
  }

  /** predictions: (N,) of what is ticked; ordinary: a share, or undefined where nobody computed it. */
  show(outcome, predictions, ordinary) {
    if (this.outcome !== outcome) this.build(outcome);
    const now = outcome.accuracies(predictions);
    const before = outcome.unsuppressed;
    this.bars.forEach((bar, g) => bar.show(now.groups[g], before.groups[g], g === now.worst));
    this.average.show(now.average, before.average);
    this.ordinary.show(ordinary, outcome.ordinary(new Set()));
    const { right, wrong, changed } = outcome.flips(predictions);
    const worst = ({ groups, worst }) => `${percent(groups[worst].value)} (${outcome.groups[worst]})`;
    const moved = changed ? `${counted(changed, "prediction")} changed: ${whole(right)} now right, ${whole(wrong)} now wrong.` : "No prediction changes.";
    this.summary.textContent = `Worst group: ${worst(before)} with nothing suppressed, now ${worst(now)}. ${moved}`;
  }

  build(outcome) {
    this.outcome = outcome;
    this.bars = outcome.groups.map((name) => new Bar(name));
    this.average = new Bar("average", { className: "su-average" });
    this.ordinary = new Bar("ordinary pictures", { className: "su-ordinary", kind: "zero-shot" });
    this.list.replaceChildren(...this.bars.map(({ node }) => node));
    this.others.replaceChildren(this.average.node, this.ordinary.node);
  }
}

/** Pictures with what they are taken for, now and with nothing suppressed; right and wrong are told in words. */
class Examples {
  constructor(sprites) {
    this.sprites = sprites;
    this.list = h("ul", { className: "su-examples", role: "list" });
    this.count = h("small", {});
    this.node = h("section", { className: "su-shown", "aria-label": "Examples" }, h("h4", {}, "Examples", this.count), this.list);
  }

  show(outcome, predictions) {
    if (this.outcome !== outcome) this.build(outcome);
    for (const example of this.cards) this.mark(example, predictions[example.picture]);
    const flipped = this.cards.filter(({ node }) => node.dataset.flip).length;
    this.count.textContent = flipped ? `${flipped} of ${counted(this.cards.length, "picture")} changed` : `${counted(this.cards.length, "picture")}, none changed`;
  }

  build(outcome) {
    this.outcome = outcome;
    this.cards = outcome.examples.map((picture, place) => this.card(picture, outcome.sprites[place]));
    this.list.replaceChildren(...this.cards.map(({ node }) => node));
    this.node.hidden = !this.cards.length;
  }

  card(picture, sprite) {
    const { outcome } = this;
    const canvas = h("canvas", { width: CELL, height: CELL, role: "img", "aria-label": `Picture ${picture}: ${outcome.groups[outcome.group[picture]]}` });
    this.sprites.draw(canvas, sprite);
    const now = h("span", { className: "su-now" });
    const was = h("small", { className: "su-was" });
    const group = h("small", { className: "su-group" }, outcome.groups[outcome.group[picture]]);
    return { picture, now, was, node: h("li", { "data-picture": picture }, canvas, group, now, was) };
  }

  mark({ picture, now, was, node }, prediction) {
    const { outcome } = this;
    const verdict = (value) => (value === outcome.truth[picture] ? "right" : "wrong");
    const before = outcome.before[picture];
    const sign = { right: "✓", wrong: "✗" };
    now.replaceChildren(h("b", { "aria-hidden": true }, sign[verdict(prediction)]), h("span", {}, ` ${outcome.classes[prediction]}`), h("span", { className: "su-unseen" }, `, ${verdict(prediction)}`));
    now.dataset.verdict = verdict(prediction);
    const flipped = prediction !== before;
    const still = verdict(prediction) === "wrong" && verdict(before) === "wrong";
    node.dataset.flip = flipped ? (still ? "still wrong" : `now ${verdict(prediction)}`) : "";
    was.textContent = flipped ? `was ${sign[verdict(before)]} ${outcome.classes[before]}` : "";
  }
}
