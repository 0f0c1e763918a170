// The hierarchy tree on the screen: columns of levels, the chosen feature below, search and colours above.

const HEIGHT = 520; // px of the columns, as in the style sheet
const SLIVER = 0.3; // px; lower strips are left out until their ancestor is zoomed to
const READABLE = 15; // px; from here on a strip carries its name, and is not zoomed to when keys lead there
const PICTURED = 34; // px; from here on also its first picture
const CHIPS = 16; // features below the chosen one that are shown as chips
const SHARP = 2; // canvas pixels for a css pixel
const KEY_HELP = [
  ["← →", "coarser, finer"],
  ["↑ ↓", "siblings"],
  ["Enter", "zoom in"],
  ["Esc", "whole tree"],
  ["/", "find"],
];

const short = (value) => (Number.isNaN(value) ? "–" : Math.abs(value) < 0.01 && value ? value.toPrecision(2) : value.toFixed(2));

function thumbnail(picture, size) {
  const canvas = h("canvas", { width: SHARP * size, height: SHARP * size, "aria-hidden": true });
  picture.sprites.draw(canvas, picture.position);
  return canvas;
}

/** Columns of levels with a strip for every feature; one of them is chosen, one (or none) fills the height. */
class Columns {
  constructor(forest, choose, zoom) {
    Object.assign(this, { forest, choose, zoom, strips: new Map() });
    this.stage = h("div", { className: "ht-stage", role: "tree", tabIndex: 0, "aria-label": "Features by level" });
    this.prefix = `ht-${Math.random().toString(36).slice(2, 8)}`; // a page may show several trees
    this.stage.style.setProperty("--ht-levels", forest.levels.length);
    this.stage.addEventListener("click", (event) => {
      const feature = event.target.closest("[data-feature]")?.dataset.feature;
      if (feature !== undefined) this.click(Number(feature));
    });
    this.node = h("div", { className: "ht-columns" }, this.heads(), this.stage);
  }

  heads() {
    const head = ({ start, end }, level) => {
      let living = 0;
      for (let feature = start; feature < end; feature += 1) living += this.forest.alive(feature);
      return h("div", {}, h("b", {}, `Level ${level}`), h("small", {}, `${whole(living)} of ${whole(end - start)} alive`));
    };
    return h("div", { className: "ht-heads", "aria-hidden": true }, ...this.forest.levels.map(head));
  }

  /** A click chooses; it also zooms, in or, on what fills the height already, out by one level. */
  click(feature) {
    const { focus } = this.state;
    if (feature === focus) this.zoom(this.forest.parent(feature));
    else this.zoom(this.forest.children[feature].length ? feature : this.forest.parent(feature));
    this.choose(feature);
  }

  draw(state) {
    this.state = state;
    const visible = this.forest.strips(state.focus, SLIVER / HEIGHT);
    const kept = new Set(visible.map(({ feature }) => feature));
    for (const [feature, node] of this.strips) {
      if (kept.has(feature)) continue;
      node.remove();
      this.strips.delete(feature);
    }
    for (const strip of visible) this.place(strip);
    this.stage.setAttribute("aria-activedescendant", this.strips.get(state.feature)?.id ?? "");
  }

  place({ feature, top, height }) {
    const { forest, state } = this;
    let node = this.strips.get(feature);
    if (!node) {
      node = this.build(feature);
      this.strips.set(feature, node);
      this.stage.append(node);
    }
    const px = height * HEIGHT;
    node.style.top = `${100 * top}%`;
    node.style.height = `${100 * height}%`;
    const shade = forest.shade(feature, state.measure);
    node.style.setProperty("--ht-shade", shade ?? 0);
    node.classList.toggle("ht-unknown", shade === undefined);
    node.classList.toggle("ht-thin", px < 4);
    node.classList.toggle("ht-found", state.found.has(feature));
    node.classList.toggle("ht-lost", state.found.size > 0 && !state.found.has(feature));
    node.setAttribute("aria-selected", feature === state.feature);
    this.fill(node, feature, px);
  }

  build(feature) {
    const { forest } = this;
    const level = forest.level(feature);
    const node = h("div", {
      className: "ht-strip",
      role: "treeitem",
      id: `${this.prefix}-${feature}`,
      "data-feature": feature,
      "aria-level": level + 1,
      "aria-label": `Feature ${feature}, ${forest.title(feature)}, ${counted(forest.below[feature], "feature")} below`,
    });
    if (forest.children[feature].length) node.setAttribute("aria-expanded", true);
    node.style.setProperty("--ht-level", level);
    return node;
  }

  /** Name and first picture, as far as there is room. */
  fill(node, feature, px) {
    const room = px >= PICTURED ? "picture" : px >= READABLE ? "name" : "";
    if (node.dataset.room === room) return;
    node.dataset.room = room;
    node.replaceChildren();
    if (!room) return;
    const [first] = this.forest.pictures(feature);
    if (room === "picture" && first) node.append(thumbnail(first, 28));
    node.append(h("span", {}, this.forest.title(feature), h("small", {}, ` #${feature}`)));
  }

  heightOf(feature) {
    return this.strips.get(feature)?.getBoundingClientRect().height ?? 0;
  }
}

/** All about the chosen feature: its line, its numbers, its pictures, what is below it. */
class Card {
  constructor(forest, choose) {
    Object.assign(this, { forest, choose });
    this.line = h("nav", { className: "ht-line", "aria-label": "From the coarsest level" });
    this.title = h("h3", { className: "ht-title" });
    this.numbers = h("div", { className: "ht-numbers" });
    this.parentage = h("p", { className: "ht-parentage" });
    this.pictures = h("div", { className: "ht-pictures" });
    this.below = h("h4", {});
    this.chips = h("div", { className: "ht-chips" });
    this.node = h(
      "section",
      { className: "ht-card", "aria-label": "Chosen feature", "aria-live": "polite" },
      this.line, this.title, this.numbers, this.parentage, this.pictures, this.below, this.chips,
    );
  }

  show(feature) {
    const { forest } = this;
    this.title.replaceChildren(forest.title(feature), h("small", {}, `#${feature}, level ${forest.level(feature)}`));
    const line = forest.line(feature).slice(0, -1);
    this.line.replaceChildren(...line.flatMap((ancestor) => [this.button(ancestor, "ht-step"), h("span", { "aria-hidden": true }, "›")]));
    this.line.hidden = !line.length;
    const { measures } = forest.meta;
    this.numbers.replaceChildren(...measures.map((name, m) => h("div", {}, h("span", {}, name), h("b", {}, short(forest.measure(feature, m))))));
    this.parentage.textContent = this.relation(feature);
    this.pictures.replaceChildren(...forest.pictures(feature).map((picture) => this.picture(picture)));
    const children = forest.children[feature];
    const more = forest.below[feature] - children.length;
    this.below.textContent = children.length
      ? `${counted(children.length, "feature")} right below${more ? `, ${whole(more)} further down` : ""}`
      : "Nothing below";
    this.chips.replaceChildren(...children.slice(0, CHIPS).map((child) => this.button(child, "ht-chip")));
  }

  relation(feature) {
    const { forest } = this;
    const parent = forest.parent(feature);
    if (parent === undefined) {
      return forest.level(feature) ? "No feature of the level above is active together with it more than by chance." : "On the coarsest level.";
    }
    const { conditional, lift } = forest.arrays;
    return `When it is active, #${parent} is too in ${percent(conditional[feature])} of all cases: ${lift[feature].toFixed(1)} times as often as by chance.`;
  }

  picture({ label, image, ...where }) {
    const name = [`picture ${image}`, label].filter(Boolean).join(", ");
    const canvas = thumbnail(where, 84);
    canvas.removeAttribute("aria-hidden");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", name);
    return h("figure", { title: name }, canvas, h("figcaption", {}, label));
  }

  button(feature, className) {
    const [first] = this.forest.pictures(feature);
    const text = h("span", {}, this.forest.title(feature), h("small", {}, `#${feature}`));
    return h(
      "button",
      { type: "button", className, "data-feature": feature, onclick: () => this.choose(feature) },
      first && className === "ht-chip" ? thumbnail(first, 32) : undefined,
      text,
    );
  }
}

/** Search, colours and the way out of a zoom. */
class Bar {
  constructor(forest, actions) {
    this.forest = forest;
    this.query = h("input", { type: "search", placeholder: "Taxon or number", "aria-label": "Find features" });
    this.query.oninput = () => actions.find(this.query.value);
    const options = forest.meta.measures.map((name, m) => h("option", { value: m }, name));
    this.measure = h("select", { "aria-label": "Colour by" }, ...options);
    this.measure.onchange = () => actions.colour(Number(this.measure.value));
    this.out = h("button", { type: "button", onclick: () => actions.zoom(undefined) }, "Whole tree");
    this.found = h("span", { className: "ht-result", role: "status" });
    this.low = h("span", {});
    this.high = h("span", {});
    const swatch = (className) => h("i", { className, "aria-hidden": true });
    const legend = h("span", { className: "ht-legend" }, this.low, swatch(""), this.high, swatch("ht-none"), "none");
    this.node = h(
      "div",
      { className: "ht-bar", role: "toolbar", "aria-label": "Find, colour, zoom" },
      this.query, this.found, h("label", {}, "Colour", this.measure), legend, this.out,
    );
  }

  update({ focus, measure, found }) {
    this.out.disabled = focus === undefined;
    const [low, high] = this.forest.ranges[measure];
    this.low.textContent = short(low);
    this.high.textContent = short(high);
    this.found.textContent = this.query.value.trim() ? `${whole(found.size)} found` : "";
  }
}

class HierarchyTree {
  constructor(forest) {
    this.forest = forest;
    this.state = { feature: forest.roots[0], focus: undefined, measure: 0, found: new Set() };
    const choose = (feature) => this.choose(feature);
    const zoom = (focus) => this.change({ focus });
    this.bar = new Bar(forest, { zoom, find: (query) => this.find(query), colour: (measure) => this.change({ measure }) });
    this.columns = new Columns(forest, (feature) => this.change({ feature }), zoom);
    this.card = new Card(forest, choose);
    const help = KEY_HELP.map(([keys, action]) => h("span", {}, h("kbd", {}, keys), action));
    this.node = h(
      "div",
      // Lumino's attribute keeps JupyterLab's own single-key commands away while the focus is in here.
      { className: "ht", role: "region", "aria-label": "Hierarchy tree", "data-lm-suppress-shortcuts": "true" },
      this.bar.node, this.columns.node, this.card.node,
      h("footer", { className: "ht-footer" }, h("p", { "aria-label": "Keys" }, ...help)),
    );
    this.node.addEventListener("keydown", (event) => this.key(event));
    this.change({});
  }

  change(patch) {
    this.state = { ...this.state, ...patch };
    this.columns.draw(this.state);
    this.bar.update(this.state);
    if (this.shown !== this.state.feature) this.card.show((this.shown = this.state.feature));
  }

  /** Chooses a feature and makes sure that its strip can be seen and read. */
  choose(feature) {
    if (feature === undefined) return;
    const { focus } = this.state;
    const inside = focus === undefined || this.forest.line(feature).includes(focus) || this.forest.line(focus).includes(feature);
    const height = this.forest.strips(focus, 0).find((strip) => strip.feature === feature)?.height ?? 0;
    const readable = inside && height * HEIGHT >= READABLE;
    this.change(readable ? { feature } : { feature, focus: this.forest.parent(feature) });
  }

  find(query) {
    this.change({ found: new Set(this.forest.find(query)) });
  }

  /** The next feature that was found, after the chosen one. */
  next() {
    const found = [...this.state.found];
    this.choose(found.find((feature) => feature > this.state.feature) ?? found[0]);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { forest } = this;
    const { feature, focus } = this.state;
    const beside = (step) => {
      const family = forest.siblings(feature);
      return family[family.indexOf(feature) + step];
    };
    const inSearch = { Enter: () => this.next(), Escape: () => this.leaveSearch() };
    const inTree = {
      ArrowLeft: () => this.choose(forest.parent(feature)),
      ArrowRight: () => this.choose(forest.children[feature][0]),
      ArrowUp: () => this.choose(beside(-1)),
      ArrowDown: () => this.choose(beside(1)),
      Home: () => this.choose(forest.siblings(feature)[0]),
      End: () => this.choose(forest.siblings(feature).at(-1)),
      Enter: () => this.change({ focus: forest.children[feature].length ? feature : forest.parent(feature) }),
    };
    const anywhere = { Escape: () => this.change({ focus: undefined }), "/": () => this.bar.query.focus() };
    const typing = event.target === this.bar.query;
    const actions = typing ? inSearch : event.target === this.columns.stage ? { ...anywhere, ...inTree } : anywhere;
    if (!(event.key in actions) || (event.key === "Escape" && !typing && focus === undefined)) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }

  leaveSearch() {
    this.bar.query.value = "";
    this.find("");
    this.columns.stage.focus();
  }
}

async function render({ model, el }) {
  const loading = h("div", { className: "ht ht-loading", role: "status" }, "Unpacking the features …");
  el.append(loading);
  const tree = new HierarchyTree(await Forest.load(model));
  loading.replaceWith(tree.node);
}

export default { render };
