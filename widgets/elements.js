// Elements of a page and numbers as text, for all widgets.

const SVG = "http://www.w3.org/2000/svg";

const OPERATED = /^(button|input|select|summary|textarea)$/;

/** An element with properties, attributes (data-, aria-, role) and children; undefined children are left out. */
function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  // JupyterLab asks the very element that has the focus whether its own single-key commands should keep away.
  if (OPERATED.test(tag) || "tabIndex" in properties) node.dataset.lmSuppressShortcuts = "true";
  node.append(...children.flat().filter((child) => child !== undefined));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const percent = (fraction) => `${(100 * fraction).toFixed(fraction < 0.01 ? 2 : 1)} %`;
const decimals = (value) => (Number.isNaN(value) ? "–" : value.toFixed(Math.abs(value) < 10 ? 2 : 1));
const whole = (n) => n.toLocaleString("en");
const counted = (n, noun) => `${whole(n)} ${noun}${n === 1 ? "" : "s"}`;

function canvasOf(picture, size, attributes) {
  const canvas = h("canvas", { width: size, height: size, className: "fx-picture", ...attributes });
  picture.sprites.draw(canvas, picture.position);
  return canvas;
}

const pictureCanvas = (picture, size, label) => canvasOf(picture, size, { role: "img", "aria-label": label });

/** A picture beside the name of what it stands for, so that reading it out as well would only repeat. */
const thumbnailCanvas = (picture, size) => canvasOf(picture, size, { "aria-hidden": "true" });
