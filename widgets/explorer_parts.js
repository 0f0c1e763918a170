// The explorer's parts on the screen. Each is built once and shows the state that it is given.

const ROW_HEIGHT = 52; // px, as in the style sheet
const SPARE_ROWS = 6; // drawn above and below the visible ones
const CANVAS = 224; // px of a large picture's canvas: sharp at 112 css px on a dense screen
const EXAMPLES = 8; // pictures in the row under the histogram
const HEADROOM = 1.06; // of the histogram, over its highest bar

const nameOf = (title, detail) => h("span", { className: "fx-name" }, h("span", {}, title), h("small", {}, detail));

// ---------------------------------------------------------------- the list

/** A listbox that only builds the rows in view, so that it scrolls as well over 100,000 features. */
class FeatureList {
  constructor(features, id, choose) {
    Object.assign(this, { features, id, choose, order: [], rows: new Map() });
    this.space = h("div", { className: "fx-space", role: "presentation" });
    this.empty = h("p", { className: "fx-empty", hidden: true });
    this.node = h(
      "div",
      { className: "fx-list", role: "listbox", tabIndex: 0, "aria-label": "Features", id: `${id}-list` },
      this.space,
      this.empty,
    );
    this.node.addEventListener("scroll", () => this.draw(), { passive: true });
    this.node.addEventListener("keydown", (event) => this.key(event));
    this.node.addEventListener("click", (event) => {
      const option = event.target.closest("[data-feature]");
      if (option) this.choose(Number(option.dataset.feature));
    });
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.node);
  }

  /** Another selection or order of features, from its beginning. */
  show(order, state) {
    this.order = order;
    this.state = state;
    this.rows.forEach((node) => node.remove());
    this.rows.clear();
    this.space.style.height = `${order.length * ROW_HEIGHT}px`;
    this.empty.hidden = order.length > 0;
    this.empty.textContent = state.query ? `No feature matches “${state.query}”.` : "No such feature.";
    this.node.scrollTop = 0;
    this.draw();
  }

  /** Selects a row, and scrolls the list (never the page) so that it is in view. */
  mark(feature) {
    this.state.feature = feature;
    const place = this.order.indexOf(feature);
    if (place >= 0) this.reveal(place);
    this.draw();
  }

  reveal(place) {
    const { scrollTop, clientHeight } = this.node;
    const [top, bottom] = [place * ROW_HEIGHT, (place + 1) * ROW_HEIGHT];
    if (top < scrollTop) this.node.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.node.scrollTop = bottom - clientHeight;
  }

  draw() {
    const { scrollTop, clientHeight } = this.node;
    const first = Math.max(0, Math.floor(scrollTop / ROW_HEIGHT) - SPARE_ROWS);
    const last = Math.min(this.order.length, Math.ceil((scrollTop + clientHeight) / ROW_HEIGHT) + SPARE_ROWS);
    for (const [place, node] of this.rows) {
      if (place >= first && place < last) continue;
      node.remove();
      this.rows.delete(place);
    }
    for (let place = first; place < last; place += 1) {
      if (this.rows.has(place)) continue;
      const node = this.row(place);
      this.rows.set(place, node);
      this.space.append(node);
    }
    this.rows.forEach((node) => node.setAttribute("aria-selected", Number(node.dataset.feature) === this.state.feature));
    this.node.setAttribute("aria-activedescendant", this.space.querySelector('[aria-selected="true"]')?.id ?? "");
  }

  row(place) {
    const feature = this.order[place];
    const alive = this.features.alive(feature);
    const thumbnail = this.features.details(feature)?.thumbnail(feature);
    return h(
      "div",
      {
        className: alive ? "fx-row" : "fx-row fx-dead",
        role: "option",
        id: `${this.id}-option-${feature}`,
        style: `top: ${place * ROW_HEIGHT}px`,
        "data-feature": feature,
        "aria-setsize": this.order.length,
        "aria-posinset": place + 1,
      },
      thumbnail ? thumbnailCanvas(thumbnail, 80) : h("span", { className: "fx-picture fx-none" }),
      nameOf(this.features.title(feature), `#${feature}`),
      alive ? this.measure(feature) : h("span", { className: "fx-measure" }, "never active"),
    );
  }

  /** The number that the list is sorted by (the first of the columns for sorting by name or number), as a bar. */
  measure(feature) {
    const { arrays, meta } = this.features;
    const column = this.state.sort in arrays && this.state.sort !== "name" ? this.state.sort : meta.score_name ? "score" : "max";
    const value = arrays[column][feature];
    const width = Number.isNaN(value) ? 0 : value / this.largest(column);
    return h(
      "span",
      { className: "fx-measure" },
      h("span", { className: "fx-bar" }, h("span", { style: `width: ${100 * Math.max(0, width)}%` })),
      column === "frequency" ? percent(value) : decimals(value),
    );
  }

  largest(column) {
    this.maxima ??= {};
    this.maxima[column] ??= this.features.arrays[column].reduce((a, b) => (b > a ? b : a), Number.MIN_VALUE);
    return this.maxima[column];
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.node.clientHeight / ROW_HEIGHT) - 1);
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey || !this.order.length) return;
    event.preventDefault();
    const here = this.order.indexOf(this.state.feature);
    const place = Math.min(this.order.length - 1, Math.max(0, here + steps[event.key]));
    this.choose(this.order[place]);
  }
}

// ---------------------------------------------------------------- pictures

/** One large picture: its patch map over it, and the value of the patch under the pointer. */
function figure(picture, features, caption) {
  const label = features.label(picture);
  const name = [`picture ${picture.image}`, label].filter(Boolean).join(", ");
  const frame = h("div", { className: "fx-frame" }, pictureCanvas(picture, CANVAS, `${name}, activation ${decimals(picture.value)}`));
  if (picture.map?.width) frame.append(...patchMap(picture.map, frame)); // a site without patches has no map
  return h(
    "figure",
    { className: "fx-figure", title: name },
    frame,
    h("figcaption", {}, h("b", {}, decimals(picture.value)), h("span", {}, caption ?? label)),
  );
}

/** From yellow to crimson; as clear as glass where the feature is silent. */
const heat = (v) => [255 - 35 * v, 205 - 185 * v, 40 + 20 * v, v === 0 ? 0 : 255 * (0.25 + 0.75 * v)];

function patchMap({ cells, height, width, peak }, frame) {
  const small = h("canvas", { width, height });
  const image = new ImageData(width, height);
  cells.forEach((step, i) => image.data.set(heat(step / MAP_STEPS), 4 * i));
  small.getContext("2d").putImageData(image, 0, 0);
  const map = h("canvas", { width: CANVAS, height: CANVAS, className: "fx-map", "aria-hidden": true });
  map.getContext("2d").drawImage(small, 0, 0, CANVAS, CANVAS);

  const cell = h("span", { className: "fx-cell", hidden: true });
  const readout = h("span", { className: "fx-readout", hidden: true });
  frame.addEventListener("pointermove", (event) => {
    const box = frame.getBoundingClientRect();
    const clamp = (fraction, n) => Math.min(n - 1, Math.max(0, Math.floor(fraction * n)));
    const x = clamp((event.clientX - box.left) / box.width, width);
    const y = clamp((event.clientY - box.top) / box.height, height);
    cell.style = `left: ${(100 * x) / width}%; top: ${(100 * y) / height}%; width: ${100 / width}%; height: ${100 / height}%`;
    readout.textContent = decimals((cells[y * width + x] / MAP_STEPS) * peak);
    readout.classList.toggle("fx-below", y < height / 2);
    cell.hidden = readout.hidden = false;
  });
  frame.addEventListener("pointerleave", () => (cell.hidden = readout.hidden = true));
  return [map, cell, readout];
}

/** The most active pictures, with the switch and the strength of their patch maps. */
class TopPictures {
  constructor(features, change) {
    Object.assign(this, { features, change });
    this.toggle = h("input", { type: "checkbox", onchange: () => change({ map: this.toggle.checked }) });
    this.opacity = h("input", { type: "range", min: 10, max: 100, "aria-label": "Strength of the heat map" });
    this.opacity.oninput = () => change({ opacity: Number(this.opacity.value) });
    this.note = h("span", { className: "fx-note" });
    this.grid = h("div", { className: "fx-grid" });
    this.node = h(
      "section",
      { className: "fx-section fx-top", "aria-label": "Most active pictures" },
      h(
        "header",
        {},
        h("h4", {}, "Most active pictures"),
        this.note,
        h("label", { className: "fx-switch" }, this.toggle, "heat map"),
        this.opacity,
      ),
      this.grid,
    );
  }

  show(feature, details) {
    const pictures = details.top(feature);
    const silent = pictures.every(({ map }) => map.peak === 0);
    this.note.textContent = silent ? "active on no single patch of them" : "";
    this.grid.replaceChildren(...pictures.map((picture) => figure(picture, this.features)));
  }

  adjust({ map, opacity }) {
    this.toggle.checked = map;
    this.opacity.value = opacity;
    this.opacity.disabled = !map;
    this.grid.classList.toggle("fx-plain", !map);
    this.grid.style.setProperty("--fx-map", opacity / 100);
  }
}

// ---------------------------------------------------------------- histogram

/** How often the feature is how active, on a logarithmic scale; a bar or a quantile shows example pictures. */
class Histogram {
  constructor(features, change) {
    Object.assign(this, { features, change });
    this.bars = svg("svg", { preserveAspectRatio: "none", "aria-hidden": true });
    this.axis = h("div", { className: "fx-axis", "aria-hidden": true });
    this.scale = h("div", { className: "fx-scale", "aria-hidden": true });
    this.plot = h("div", { className: "fx-plot", role: "slider", tabIndex: 0, "aria-label": "Activation" }, this.scale, this.bars);
    this.plot.addEventListener("click", (event) => this.click(event));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.note = h("span", { className: "fx-note" });
    this.buttons = h("div", { className: "fx-quantiles", role: "group", "aria-label": "Quantiles" });
    this.grid = h("div", { className: "fx-grid fx-examples fx-plain" });
    this.node = h(
      "section",
      { className: "fx-section fx-histogram", "aria-label": "Activation histogram" },
      h("header", {}, h("h4", {}, "How strongly, how often"), this.note),
      this.plot,
      this.axis,
      this.buttons,
      this.grid,
    );
  }

  show(feature, details) {
    Object.assign(this, { feature, counts: details.counts(feature), stored: details.examples(feature) });
    this.quantiles = Array.from(details.quantiles(feature), (value, i) => ({ value, share: this.features.meta.quantiles[i] }));
    this.max = this.features.arrays.max[feature];
    this.drawBars();
    this.drawAxis();
    this.pick(undefined);
  }

  drawBars() {
    const top = HEADROOM * Math.log1p(Math.max(1, ...this.counts));
    const width = 100 / this.counts.length;
    this.bars.setAttribute("viewBox", "0 0 100 100");
    const bars = Array.from(this.counts, (count, bin) => {
      const height = (100 * Math.log1p(count)) / top;
      return svg("rect", { class: "fx-count", x: bin * width + 0.3, y: 100 - height, width: width - 0.6, height, "data-bin": bin });
    });
    const marks = this.quantiles.map(({ value }) => {
      const x = (100 * value) / this.max;
      return svg("line", { class: "fx-mark", x1: x, x2: x, y1: 0, y2: 100 });
    });
    this.bars.replaceChildren(...bars, ...marks);
    const ticks = [1, 10, 100, 1000, 10000].filter((count) => Math.log1p(count) <= top);
    const tick = (count) => h("span", { style: `bottom: ${(100 * Math.log1p(count)) / top}%` }, whole(count));
    this.scale.replaceChildren(...ticks.map(tick));
  }

  drawAxis() {
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((fraction) => decimals(fraction * this.max));
    this.axis.replaceChildren(...ticks.map((text) => h("span", {}, text)));
    const button = ({ share, value }, i) =>
      h(
        "button",
        { type: "button", className: "fx-quantile", onclick: () => this.pick(this.chosen?.quantile === i ? undefined : { quantile: i }) },
        h("span", {}, `${100 * share} %`),
        h("b", {}, decimals(value)),
      );
    this.buttons.replaceChildren(...this.quantiles.map(button));
  }

  click(event) {
    const box = this.plot.getBoundingClientRect();
    const bin = Math.min(this.counts.length - 1, Math.floor(((event.clientX - box.left) / box.width) * this.counts.length));
    this.pick(this.chosen?.bin === bin ? undefined : { bin });
  }

  key(event) {
    const last = this.counts.length - 1;
    const here = this.chosen?.bin ?? last + 1;
    const next = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.pick({ bin: Math.min(last, Math.max(0, next)) });
  }

  /** Shows the examples of a bar ({bin}) or near a quantile ({quantile: its position}); else some of each quantile. */
  pick(chosen) {
    this.chosen = chosen;
    const active = this.counts.reduce((sum, count) => sum + count, 0);
    this.note.textContent = `${counted(active, "active picture")} of ${whole(this.features.meta.images.count)}`;
    if (chosen?.bin !== undefined) this.note.textContent = this.describe(chosen.bin);
    const value = chosen?.bin !== undefined ? ((chosen.bin + 0.5) * this.max) / this.counts.length : this.max;
    this.plot.setAttribute("aria-valuemin", 0);
    this.plot.setAttribute("aria-valuemax", decimals(this.max));
    this.plot.setAttribute("aria-valuenow", decimals(value));
    this.plot.setAttribute("aria-valuetext", this.note.textContent);
    this.bars.querySelectorAll(".fx-count").forEach((bar, bin) => bar.classList.toggle("fx-chosen", bin === chosen?.bin));
    [...this.buttons.children].forEach((button, i) => button.setAttribute("aria-pressed", i === chosen?.quantile));
    this.grid.replaceChildren(...this.examples(chosen).map(({ picture, caption }) => figure(picture, this.features, caption)));
  }

  describe(bin) {
    const edge = (i) => decimals((i * this.max) / this.counts.length);
    const count = counted(this.counts[bin], "picture");
    const shown = this.stored.filter((picture) => picture.bin === bin).length;
    const stored = shown < this.counts[bin] ? `, ${shown || "none"} stored here` : "";
    return `${edge(bin)} to ${edge(bin + 1)}: ${count}${stored}`;
  }

  examples(chosen) {
    const near = (value, n) =>
      [...this.stored].sort((a, b) => Math.abs(a.value - value) - Math.abs(b.value - value)).slice(0, n);
    const plain = (picture) => ({ picture });
    if (chosen?.bin !== undefined) return this.stored.filter((picture) => picture.bin === chosen.bin).map(plain);
    if (chosen) return near(this.quantiles[chosen.quantile].value, EXAMPLES).map(plain);
    const each = EXAMPLES / this.quantiles.length;
    const seen = new Set();
    return this.quantiles.flatMap(({ value, share }) =>
      near(value, EXAMPLES)
        .filter((picture) => !seen.has(picture.position))
        .slice(0, each)
        .map((picture) => seen.add(picture.position) && { picture, caption: `at ${100 * share} %` }),
    );
  }
}

// ---------------------------------------------------------------- neighbours

/** Features whose decoder directions are nearest, as chips that lead there. */
class Neighbours {
  constructor(features, choose) {
    Object.assign(this, { features, choose });
    this.chips = h("div", { className: "fx-chips" });
    this.node = h(
      "section",
      { className: "fx-section", "aria-label": "Nearest features" },
      h("header", {}, h("h4", {}, "Nearest features"), h("span", { className: "fx-note" }, "cosine of decoder directions")),
      this.chips,
    );
  }

  show(feature) {
    this.chips.replaceChildren(...this.features.neighbours(feature).map((neighbour) => this.chip(neighbour)));
  }

  chip({ feature, cosine }) {
    const thumbnail = this.features.details(feature)?.thumbnail(feature);
    return h(
      "button",
      {
        type: "button",
        className: this.features.alive(feature) ? "fx-chip" : "fx-chip fx-dead",
        onclick: () => this.choose(feature),
        "data-feature": feature,
      },
      thumbnail ? thumbnailCanvas(thumbnail, 72) : h("span", { className: "fx-picture fx-none" }),
      nameOf(this.features.title(feature), `#${feature} · ${decimals(cosine)}`),
    );
  }
}
