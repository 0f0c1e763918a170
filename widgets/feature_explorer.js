// The explorer: its state, its keys, and the column that shows the chosen feature.

const DEFAULTS = { query: "", map: true, opacity: 70 };
const ADDRESS = { feature: "feature", sort: "sort", order: "order", query: "q", show: "show", map: "map", opacity: "opacity" };
const KEY_HELP = [
  ["↑ ↓ j k", "choose"],
  ["/", "search"],
  ["Enter", "to the feature"],
  ["Esc", "to the list"],
  ["[ ]", "back, forward"],
  ["m", "heat map"],
];

// ---------------------------------------------------------------- tool bar

class Toolbar {
  constructor(features, change) {
    Object.assign(this, { features, change });
    const { score_name: scored, vocabulary } = features.meta;
    const sorts = [
      ["score", scored],
      ["frequency", "frequency"],
      ["max", "max activation"],
      ["name", vocabulary.length ? "name" : ""],
      ["index", "number"],
    ].filter(([, label]) => label);
    const groups = { often: `${FULL_GRID}+ pictures`, alive: "alive", dead: "dead", all: "all" };
    const shows = Object.entries(groups).map(([name, label]) => [name, `${label}: ${whole(features.size(name))}`]);
    this.sorts = sorts.map(([value]) => value);
    this.shows = Object.keys(groups);
    this.query = h("input", { type: "search", placeholder: "Name or number", "aria-label": "Search features" });
    this.query.oninput = () => change({ query: this.query.value });
    this.sort = this.menu("Sort by", sorts, (sort) => change({ sort, down: sort !== "name" && sort !== "index" }));
    this.show = this.menu("Show", shows, (show) => change({ show }));
    this.direction = h("button", { type: "button", className: "fx-icon", onclick: () => this.turn() });
    this.found = h("span", { className: "fx-found", role: "status" });
    this.node = h("div", { className: "fx-toolbar", role: "toolbar", "aria-label": "Search and sort" }, [
      this.query,
      h("span", { className: "fx-group" }, this.sort, this.direction),
      this.show,
      this.found,
    ]);
  }

  menu(label, options, changed) {
    const menu = h("select", { "aria-label": label }, ...options.map(([value, text]) => h("option", { value }, text)));
    menu.onchange = () => changed(menu.value);
    return menu;
  }

  turn() {
    this.change({ down: this.direction.textContent !== "↓" });
  }

  update(state, found) {
    if (this.query.value !== state.query) this.query.value = state.query;
    this.sort.value = state.sort;
    this.show.value = state.show;
    this.direction.textContent = state.down ? "↓" : "↑";
    this.direction.setAttribute("aria-label", state.down ? "Largest first; turn round" : "Smallest first; turn round");
    this.found.textContent = `${whole(found)} of ${counted(this.features.count, "feature")}`;
  }
}

// ---------------------------------------------------------------- the chosen feature

/** Name, numbers and fact of the chosen feature, with the ways back, forward and out. */
class Heading {
  constructor(features, actions, linkable) {
    this.features = features;
    const icon = (text, label, onclick) => h("button", { type: "button", className: "fx-icon", "aria-label": label, title: label, onclick }, text);
    this.back = icon("←", "Back", () => actions.travel(-1));
    this.forward = icon("→", "Forward", () => actions.travel(1));
    this.link = h("button", { type: "button", className: "fx-link", onclick: () => actions.copy(this.link) }, "copy link");
    this.link.hidden = !linkable;
    this.title = h("h3", { className: "fx-title", tabIndex: -1 });
    this.names = h("div", { className: "fx-names", role: "list", "aria-label": "Name candidates" });
    this.numbers = h("div", { className: "fx-numbers" });
    this.fact = h("p", { className: "fx-fact" });
    this.node = h(
      "header",
      { className: "fx-heading" },
      h("div", { className: "fx-line" }, this.title, h("span", { className: "fx-group" }, this.back, this.forward), this.link),
      this.names,
      this.numbers,
      this.fact,
    );
  }

  show(feature) {
    const { features } = this;
    this.title.replaceChildren(features.title(feature), h("small", {}, `#${feature}`));
    const candidates = features.names(feature);
    const best = Math.max(...candidates.map(({ score }) => score));
    this.names.replaceChildren(
      ...candidates.map(({ name, score }) =>
        h(
          "span",
          { className: "fx-candidate", role: "listitem", style: `--fx-share: ${Math.max(0, score / best)}` },
          name,
          h("small", {}, decimals(score)),
        ),
      ),
    );
    this.names.hidden = !candidates.length;
    this.numbers.replaceChildren(...this.facts(feature).map(([term, value]) => h("div", {}, h("span", {}, term), h("b", {}, value))));
    this.numbers.hidden = !features.alive(feature);
    this.fact.textContent = features.fact(feature);
    this.fact.hidden = !features.fact(feature);
  }

  facts(feature) {
    const { arrays, meta } = this.features;
    const numbers = [
      ["active on", percent(arrays.frequency[feature])],
      ["max activation", decimals(arrays.max[feature])],
      ["mean when active", decimals(arrays.mean[feature])],
    ];
    return meta.score_name ? [[meta.score_name, decimals(arrays.score[feature])], ...numbers] : numbers;
  }

  travelled(visits, place) {
    this.back.ariaDisabled = place <= 0; // not `disabled`, which would take the focus away
    this.forward.ariaDisabled = place >= visits - 1;
  }
}

// ---------------------------------------------------------------- the whole

class Explorer {
  constructor(model, features) {
    Object.assign(this, { features, model, visits: [], place: -1 });
    this.address = new Address("explorer", ADDRESS, features.meta.key);
    const change = (patch) => this.change(patch);
    const choose = (feature) => this.change({ feature });
    this.toolbar = new Toolbar(features, change);
    this.list = new FeatureList(features, this.address.anchor, choose);
    this.heading = new Heading(features, { travel: (step) => this.travel(step), copy: (button) => this.copy(button) }, this.address.enabled);
    this.top = new TopPictures(features, change);
    this.histogram = new Histogram(features, change);
    this.neighbours = new Neighbours(features, choose);
    this.notice = h("p", { className: "fx-notice", hidden: true });
    this.status = h("p", { className: "fx-status", role: "status" });
    this.node = this.layout();
    this.node.addEventListener("keydown", (event) => this.key(event));
    this.kernel = new Kernel(model, features, (feature) => this.heard(feature));
    this.start();
  }

  layout() {
    const parts = [this.heading, this.notice, this.top, this.histogram, this.neighbours].map((part) => part.node ?? part);
    const help = KEY_HELP.map(([keys, action]) => h("span", {}, h("kbd", {}, keys), action));
    return h(
      "div",
      // Lumino's attribute keeps JupyterLab's own single-key commands (j, k, m …) away while the focus is in here.
      { className: "fx", id: this.address.anchor, role: "region", "aria-label": "Feature explorer", "data-lm-suppress-shortcuts": "true" },
      this.toolbar.node,
      h("div", { className: "fx-body" }, this.list.node, h("article", { className: "fx-detail" }, ...parts)),
      h("footer", { className: "fx-footer" }, this.status, h("p", { className: "fx-help", "aria-label": "Keys" }, ...help)),
    );
  }

  start() {
    const { sorts, shows } = this.toolbar;
    const wanted = this.address.read();
    const sort = sorts.includes(wanted.sort) ? wanted.sort : sorts[0];
    this.defaultShow = ["often", "alive", "all"].find((show) => this.features.size(show) > 0);
    this.defaultDown = (name) => name !== "name" && name !== "index";
    this.state = {
      ...DEFAULTS,
      sort,
      down: wanted.order ? wanted.order === "down" : this.defaultDown(sort),
      query: wanted.query ?? DEFAULTS.query,
      show: shows.includes(wanted.show) ? wanted.show : this.defaultShow,
      map: wanted.map ? wanted.map === "on" : DEFAULTS.map,
      opacity: wanted.opacity >= 10 && wanted.opacity <= 100 ? Number(wanted.opacity) : DEFAULTS.opacity,
    };
    this.order = this.features.select(this.state);
    const first = this.order[0] ?? 0;
    const feature = wanted.feature === undefined ? first : Number(wanted.feature);
    const known = Number.isInteger(feature) && feature >= 0 && feature < this.features.count;
    this.firstFeature = first;
    this.visit(known ? feature : first);
    this.state.feature = this.visits[0];
    this.drawList();
    this.drawFeature();
    this.top.adjust(this.state);
    this.heard();
  }

  /** The one way by which the state changes; draws what the change touches. */
  change(patch) {
    const previous = this.state;
    this.state = { ...previous, ...patch };
    const touched = (...fields) => fields.some((field) => this.state[field] !== previous[field]);
    if (touched("query", "sort", "down", "show")) this.drawList();
    if (touched("feature")) {
      if (this.visits[this.place] !== this.state.feature) this.visit(this.state.feature);
      this.list.mark(this.state.feature);
      this.drawFeature();
    }
    if (touched("map", "opacity")) this.top.adjust(this.state);
    this.address.write(this.shared());
  }

  drawList() {
    this.order = this.features.select(this.state);
    this.list.show(this.order, { ...this.state });
    this.toolbar.update(this.state, this.order.length);
  }

  drawFeature() {
    const { feature } = this.state;
    const alive = this.features.alive(feature);
    const details = alive ? this.features.details(feature) : undefined;
    this.node.classList.toggle("fx-of-dead", !alive);
    this.heading.show(feature);
    this.heading.travelled(this.visits.length, this.place);
    this.neighbours.show(feature);
    this.notice.hidden = details !== undefined;
    this.notice.textContent = alive
      ? "The pictures of this feature are not stored in this page. With a kernel behind the page they are fetched."
      : `Dead: active on none of the ${counted(this.features.meta.images.count, "picture")} of ${this.features.meta.images.spec}.`;
    for (const part of [this.top, this.histogram]) {
      part.node.hidden = details === undefined;
      if (details) part.show(feature, details);
    }
    this.kernel?.want(feature);
  }

  /** A word from Python: a kernel is there, and perhaps the details of a feature. */
  heard(feature) {
    const attached = this.kernel.attached;
    this.node.classList.toggle("fx-live", attached);
    this.status.textContent = attached
      ? "Kernel attached: pictures come from the notebook, in full."
      : "No kernel: all that is shown is stored in this page.";
    if (feature === undefined) this.kernel.want(this.state.feature);
    else if (feature === this.state.feature) this.drawFeature();
  }

  // Visited features, as a browser keeps pages.

  visit(feature) {
    this.visits = [...this.visits.slice(0, this.place + 1), feature];
    this.place = this.visits.length - 1;
  }

  travel(step) {
    const place = this.place + step;
    if (place < 0 || place >= this.visits.length) return;
    this.place = place;
    this.change({ feature: this.visits[place] });
  }

  /** What a link must hold to show the same view: only what differs from the view at first opening. */
  shared() {
    const { feature, sort, down, query, show, map, opacity } = this.state;
    return {
      feature,
      sort: sort === this.toolbar.sorts[0] ? undefined : sort,
      order: down === this.defaultDown(sort) ? undefined : down ? "down" : "up",
      query: query || undefined,
      show: show === this.defaultShow ? undefined : show,
      map: map === DEFAULTS.map ? undefined : map ? "on" : "off",
      opacity: opacity === DEFAULTS.opacity ? undefined : opacity,
    };
  }

  async copy(button) {
    const url = this.address.url(this.shared(), this.address.anchor);
    try {
      await navigator.clipboard.writeText(url);
      button.textContent = "copied";
      setTimeout(() => (button.textContent = "copy link"), 1500);
    } catch {
      window.prompt("Copy this link", url); // a browser that keeps its clipboard to itself
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target === this.toolbar.query;
    const actions = typing
      ? { Escape: () => this.leaveSearch(), Enter: () => this.toList(), ArrowDown: () => this.toList() }
      : {
          "/": () => this.toolbar.query.select() ?? this.toolbar.query.focus(),
          "[": () => this.travel(-1),
          "]": () => this.travel(1),
          m: () => this.change({ map: !this.state.map }),
          Escape: () => this.list.node.focus(),
        };
    if (!typing && event.target === this.list.node) actions.Enter = () => this.heading.title.focus();
    if (!(event.key in actions)) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }

  leaveSearch() {
    if (this.state.query) this.change({ query: "" });
    else this.list.node.focus();
  }

  /** From the search to the list; a search that left the chosen feature out chooses the first it found. */
  toList() {
    if (this.order.length && !this.order.includes(this.state.feature)) this.change({ feature: this.order[0] });
    this.list.node.focus();
  }

  close() {
    this.list.resize.disconnect();
    this.kernel.close();
    this.address.release();
  }
}

async function render({ model, el }) {
  const loading = h("div", { className: "fx fx-loading", role: "status" }, "Unpacking the features …");
  el.append(loading);
  const explorer = new Explorer(model, await Features.load(model));
  loading.replaceWith(explorer.node);
  explorer.list.mark(explorer.state.feature);
  if (location.hash === `#${explorer.address.anchor}`) explorer.node.scrollIntoView();
  return () => explorer.close();
}

export default { render };
