// The picture: the ones to choose from, the large one on which patches are chosen, and the reader's own.

const OWN = null; // place of the reader's own picture
const PENS = { black: "#1c1c1c", white: "#ffffff", red: "#c8372d", orange: "#e58a2b", yellow: "#f2cf3b", green: "#4f9a43", blue: "#3f7fc4", brown: "#7b5232" };
const PEN_WIDTH = 7; // pixels of a picture of 112

/** All pictures, as the exact pixels that Python has, and the reader's own, at first a white page. */
class Pictures {
  constructor(meta, bytes) {
    this.sprites = new Sprites(meta.picture_sheets, bytes);
    this.size = meta.picture_sheets.size;
    this.count = meta.labels.length;
    this.own = h("canvas", { width: this.size, height: this.size });
    this.version = 0;
    this.blank();
  }

  /** Every sheet decoded, so that what is drawn is there at once. */
  ready() {
    return Promise.all(this.sprites.blobs.map((_, sheet) => this.sprites.sheet(sheet)));
  }

  draw(canvas, place) {
    if (place === OWN) canvas.getContext("2d").drawImage(this.own, 0, 0, canvas.width, canvas.height);
    else this.sprites.draw(canvas, place);
  }

  /** What an engine is given of a picture: `id` is another one whenever its pixels are. */
  picture(place) {
    const pixels = () => {
      const canvas = h("canvas", { width: this.size, height: this.size });
      this.draw(canvas, place);
      return canvas.getContext("2d").getImageData(0, 0, this.size, this.size);
    };
    return { id: place === OWN ? `own ${this.version}` : `${place}`, place, pixels };
  }

  blank() {
    const context = this.own.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, this.size, this.size);
    this.version += 1;
  }

  /** Makes a copy of another picture the reader's own, to draw on. */
  adopt(place) {
    if (place === OWN) return;
    this.draw(this.own, place);
    this.version += 1;
  }

  /** Brings back pixels that were the reader's own before. */
  restore(pixels) {
    this.own.getContext("2d").putImageData(pixels, 0, 0);
    this.version += 1;
  }

  /** Makes a file's picture the reader's own, cut to a centred square; rejects what is no picture. */
  async load(file) {
    const bitmap = await createImageBitmap(file).catch(() => {
      throw new Error(`“${file.name}” is not a picture that this browser can read: choose a PNG, JPEG or WebP file.`);
    });
    this.blank();
    const side = Math.min(bitmap.width, bitmap.height);
    const [x, y] = [(bitmap.width - side) / 2, (bitmap.height - side) / 2];
    const context = this.own.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, x, y, side, side, 0, 0, this.size, this.size);
  }

  stroke([x0, y0], [x1, y1], pen) {
    const context = this.own.getContext("2d");
    Object.assign(context, { lineCap: "round", lineWidth: (PEN_WIDTH * this.size) / 112, strokeStyle: pen });
    context.beginPath();
    context.moveTo(x0 * this.size, y0 * this.size);
    context.lineTo(x1 * this.size, y1 * this.size);
    context.stroke();
    this.version += 1;
  }
}

/** The pictures to choose from, with the reader's own at the end. */
class Strip {
  constructor(meta, pictures, { choose, upload }) {
    Object.assign(this, { meta, pictures });
    this.tiles = meta.labels.map((label, place) => this.tile(label, () => choose(place), place));
    this.ownTile = this.tile("Your own picture", () => choose(OWN), OWN);
    this.ownTile.classList.add("sp-own");
    this.file = h("input", { type: "file", accept: "image/*", hidden: true, "aria-label": "Upload a picture" });
    this.file.onchange = () => this.file.files[0] && upload(this.file.files[0]);
    const open = { type: "button", className: "sp-upload", title: "Upload a picture", onclick: () => this.pick() };
    this.node = h(
      "div",
      { className: "sp-strip", role: "group", "aria-label": "Pictures" },
      this.tiles,
      this.ownTile,
      h("button", open, "upload"),
      this.file,
    );
  }

  pick() {
    this.file.value = ""; // so that the same file can be chosen again
    this.file.click();
  }

  tile(label, onclick, place) {
    const canvas = h("canvas", { width: 2 * 44, height: 2 * 44, "aria-hidden": true });
    this.pictures.draw(canvas, place);
    return h("button", { type: "button", className: "sp-tile", "aria-label": label, title: label, onclick }, canvas);
  }

  /** Marks the chosen picture, and dims those that the engine cannot see. */
  mark(place, seen) {
    [...this.tiles, this.ownTile].forEach((tile, i) => {
      const own = i === this.tiles.length;
      tile.setAttribute("aria-pressed", place === (own ? OWN : i));
      tile.classList.toggle("sp-absent", !seen(own ? OWN : i));
    });
  }

  drawOwn() {
    this.pictures.draw(this.ownTile.firstChild, OWN);
  }
}

/** The large picture. A click on a patch chooses it; with the pen it is drawn on. */
class Board {
  constructor(meta, pictures, { patches, drawn }) {
    Object.assign(this, { meta, pictures, patches, drawn, pen: undefined, chosen: new Set(), place: 0, cell: 0 });
    const [rows, columns] = meta.grid;
    this.canvas = h("canvas", { width: 2 * pictures.size, height: 2 * pictures.size, role: "img" });
    this.cells = Array.from({ length: rows * columns }, (_, cell) => this.patch(cell));
    const line = (row) => h("div", { role: "row" }, this.cells.slice(row * columns, (row + 1) * columns));
    this.grid = h(
      "div",
      { className: "sp-grid", role: "grid", tabIndex: 0, "aria-multiselectable": "true", "aria-label": "Patches: arrow keys move, space chooses" },
      ...Array.from({ length: rows }, (_, row) => line(row)),
    );
    this.grid.style.setProperty("--sp-columns", columns);
    this.node = h("div", { className: "sp-board" }, h("div", { className: "sp-frame" }, this.canvas, this.grid), this.tools());
    this.listen();
  }

  patch(cell) {
    const [row, column] = [Math.floor(cell / this.meta.grid[1]), cell % this.meta.grid[1]];
    const id = `sp-patch-${Math.random().toString(36).slice(2, 8)}`;
    return h("div", { id, role: "gridcell", "data-cell": cell, "aria-label": `Patch in row ${row + 1}, column ${column + 1}` });
  }

  tools() {
    const pen = (name, colour) => {
      const button = { type: "button", className: "sp-pen", "aria-label": `Draw in ${name}`, title: `Draw in ${name}` };
      return h("button", { ...button, style: `--sp-pen: ${colour}`, "data-pen": colour, onclick: () => this.take(colour) });
    };
    this.hand = h("button", { type: "button", className: "sp-hand", onclick: () => this.take(undefined) }, "patches");
    this.clear = h("button", { type: "button", onclick: () => this.empty() });
    this.pens = Object.entries(PENS).map(([name, colour]) => pen(name, colour));
    return h(
      "div",
      { className: "sp-tools", role: "toolbar", "aria-label": "What a click on the picture does" },
      this.hand,
      h("span", { className: "sp-pens" }, this.pens),
      this.clear,
    );
  }

  /** Takes a pen, or puts it away; then a click chooses patches again. */
  take(pen) {
    this.pen = pen;
    this.update();
  }

  /** Chooses no patch, or starts a white page. */
  empty() {
    if (!this.pen) return this.patches(new Set());
    this.pictures.blank();
    this.drawn();
  }

  listen() {
    const { grid } = this;
    grid.addEventListener("pointerdown", (event) => this.press(event));
    grid.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) grid.addEventListener(end, () => this.release());
    grid.addEventListener("keydown", (event) => this.key(event));
    grid.addEventListener("focus", () => this.aim(this.cell));
    grid.addEventListener("blur", () => this.cells[this.cell].classList.remove("sp-aimed"));
  }

  /** Where a pointer is on the picture: fractions of its width and height. */
  point(event) {
    const box = this.grid.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  cellAt([x, y]) {
    const [rows, columns] = this.meta.grid;
    const within = (fraction, count) => Math.min(count - 1, Math.max(0, Math.floor(fraction * count)));
    return within(y, rows) * columns + within(x, columns);
  }

  press(event) {
    if (event.button !== 0) return;
    this.grid.setPointerCapture(event.pointerId);
    const at = this.point(event);
    if (this.pen) {
      this.pictures.adopt(this.place);
      this.place = OWN;
      this.last = at;
      this.paint(at);
    } else {
      this.adding = !this.chosen.has(this.cellAt(at));
      this.brushed = new Set(this.chosen);
      this.brush(at);
    }
  }

  move(event) {
    if (this.last) this.paint(this.point(event));
    else if (this.brushed) this.brush(this.point(event));
  }

  release() {
    if (this.last) this.drawn();
    if (this.brushed) this.patches(this.brushed);
    this.last = this.brushed = undefined;
  }

  paint(at) {
    this.pictures.stroke(this.last, at, this.pen);
    this.last = at;
    this.pictures.draw(this.canvas, OWN);
  }

  /** A stroke over patches chooses all of them, or none of them, as it did the first. */
  brush(at) {
    const cell = this.cellAt(at);
    if (this.adding) this.brushed.add(cell);
    else this.brushed.delete(cell);
    this.shade(this.brushed);
  }

  key(event) {
    const [rows, columns] = this.meta.grid;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    if (event.key in steps) {
      const next = this.cell + steps[event.key];
      if (next >= 0 && next < rows * columns) this.aim(next);
    } else if (event.key === " " || event.key === "Enter") {
      const chosen = new Set(this.chosen);
      if (!chosen.delete(this.cell)) chosen.add(this.cell);
      this.patches(chosen);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  aim(cell) {
    this.cells[this.cell].classList.remove("sp-aimed");
    this.cell = cell;
    this.cells[cell].classList.add("sp-aimed");
    this.grid.setAttribute("aria-activedescendant", this.cells[cell].id);
  }

  shade(chosen) {
    this.grid.classList.toggle("sp-some", chosen.size > 0);
    this.cells.forEach((node, cell) => node.setAttribute("aria-selected", chosen.has(cell)));
  }

  show(place, label, chosen) {
    Object.assign(this, { place, chosen });
    this.pictures.draw(this.canvas, place);
    this.canvas.setAttribute("aria-label", label);
    this.update();
  }

  update() {
    this.shade(this.chosen);
    this.grid.classList.toggle("sp-drawing", this.pen !== undefined);
    this.hand.setAttribute("aria-pressed", this.pen === undefined);
    this.pens.forEach((button) => button.setAttribute("aria-pressed", button.dataset.pen === this.pen));
    this.clear.textContent = this.pen ? "blank" : "clear";
    this.clear.ariaLabel = this.pen ? "Start a blank page" : "Choose no patches";
    this.clear.ariaDisabled = !this.pen && this.chosen.size === 0;
  }
}
