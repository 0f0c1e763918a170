// The page's address, which holds what a widget shows, so that a link leads to the same view.

/** The part of it that belongs to one widget; silent inside JupyterLab, whose address is its own. */
class Address {
  /** widget: what it is, in the anchor's name; fields: {field of its state: name in the address}. */
  constructor(widget, fields, key) {
    this.inUse = Symbol.for(`${widget}.keys`); // by all of this page, which are separate modules
    this.fields = fields;
    const used = (globalThis[this.inUse] ??= new Set());
    this.key = key;
    for (let n = 2; used.has(this.key); n += 1) this.key = `${key}${n}`;
    used.add(this.key);
    this.enabled = !document.body.hasAttribute("data-jp-theme-light") && window.top === window;
    this.anchor = `${widget}${this.key && `-${this.key}`}`;
  }

  name = (field) => (this.key ? `${this.key}.` : "") + this.fields[field];

  read() {
    if (!this.enabled) return {};
    const found = new URLSearchParams(location.search);
    const fields = Object.keys(this.fields).filter((field) => found.has(this.name(field)));
    return Object.fromEntries(fields.map((field) => [field, found.get(this.name(field))]));
  }

  url(values, anchor) {
    const url = new URL(location.href);
    for (const field of Object.keys(this.fields)) {
      if (values[field] === undefined) url.searchParams.delete(this.name(field));
      else url.searchParams.set(this.name(field), values[field]);
    }
    if (anchor) url.hash = anchor;
    return url.href;
  }

  write(values) {
    if (!this.enabled) return;
    try {
      history.replaceState(history.state, "", this.url(values));
    } catch {
      this.enabled = false; // a page whose address may not change, as some viewers of files
    }
  }

  /** Puts a link to what is shown on the clipboard; the button says so for a moment. */
  async copy(values, button) {
    const url = this.url(values, this.anchor);
    try {
      await navigator.clipboard.writeText(url);
    } catch {
      window.prompt("Copy this link", url); // a browser that keeps its clipboard to itself
      return;
    }
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy link"), 1500);
  }

  release() {
    globalThis[this.inUse].delete(this.key);
  }
}
