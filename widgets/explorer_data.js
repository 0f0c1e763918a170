// The explorer's data: unpacks what Python stored in the page, and asks a kernel for more where there is one.

const FULL_GRID = 12; // pictures; a feature that is active on fewer cannot fill its grid
const VALUE_STEPS = 65535; // activations are fractions of the feature's maximum
const MAP_STEPS = 63; // patch maps are fractions of the feature's largest patch

/** Details of the features in one packed block: the page's own, or a kernel's answer about one feature. */
class Details {
  constructor(arrays, sprites, maxima) {
    Object.assign(this, { arrays, sprites, maxima });
    this.place = new Map(Array.from(arrays.features, (feature, i) => [feature, i]));
  }

  has(feature) {
    return this.place.has(feature);
  }

  picture(position, value, extra) {
    const { pool, pool_class: classes } = this.arrays;
    return { sprites: this.sprites, position, image: pool[position], label: classes[position], value, ...extra };
  }

  /** The feature's most active pictures that are stored, best first, each with its patch map. */
  top(feature) {
    const i = this.place.get(feature);
    const { top, top_value: values, maps, map_peak: peaks } = this.arrays;
    const [, , height, width] = maps.shape;
    return Array.from(row(top, i), (position, rank) => {
      const cells = row(maps, i).subarray(rank * height * width, (rank + 1) * height * width);
      const map = { cells, height, width, peak: peaks[i] };
      return this.picture(position, this.value(feature, row(values, i)[rank]), { map });
    }).filter((picture) => picture.position !== NONE);
  }

  value(feature, fraction) {
    return (fraction / VALUE_STEPS) * this.maxima[feature];
  }

  /** First picture of a feature, for chips and rows; undefined where none is stored. */
  thumbnail(feature) {
    const i = this.place.get(feature);
    const position = i === undefined ? NONE : row(this.arrays.top, i)[0];
    return position === NONE ? undefined : this.picture(position);
  }

  counts(feature) {
    return row(this.arrays.counts, this.place.get(feature));
  }

  quantiles(feature) {
    return row(this.arrays.quantiles, this.place.get(feature));
  }

  /** Stored example pictures of each bar of the histogram, flat: {bin, value, …}. */
  examples(feature) {
    const i = this.place.get(feature);
    const { examples, example_value: values } = this.arrays;
    const perBin = examples.shape[2];
    return Array.from(row(examples, i), (position, j) =>
      this.picture(position, this.value(feature, row(values, i)[j]), { bin: Math.floor(j / perBin) }),
    ).filter((picture) => picture.position !== NONE);
  }
}

/** All features: columns of numbers, names, facts; details from the page or the kernel. */
class Features {
  constructor(meta, arrays, sprites) {
    Object.assign(this, { meta, arrays });
    this.count = arrays.alive.length;
    this.stored = new Details(arrays, sprites, arrays.max);
    this.fetched = new Map();
    const all = (describe) => Array.from({ length: this.count }, (_, feature) => describe(feature));
    this.firstName = all((feature) => this.names(feature)[0]?.name);
    this.text = all((feature) => this.searchText(feature));
  }

  static async load(model) {
    const meta = model.get("meta");
    const arrays = await unpack(meta.arrays, model.get("numbers"));
    return new Features(meta, arrays, new Sprites(meta.sheets, model.get("sheets")));
  }

  alive = (feature) => this.arrays.alive[feature] === 1;
  details = (feature) => this.fetched.get(feature) ?? (this.stored.has(feature) ? this.stored : undefined);
  active = (feature) => Math.round(this.arrays.frequency[feature] * this.meta.images.count);
  fact = (feature) => this.meta.facts[feature] ?? "";
  label = (picture) => this.meta.classes[picture.label] ?? "";

  names(feature) {
    const { name, name_score: scores } = this.arrays;
    if (!name || !this.alive(feature)) return [];
    return Array.from(row(name, feature), (word, rank) => ({
      name: this.meta.vocabulary[word],
      score: row(scores, feature)[rank],
    })).filter((candidate) => candidate.name !== undefined);
  }

  title(feature) {
    if (!this.alive(feature)) return "dead feature";
    return this.firstName[feature] ?? `feature ${feature}`;
  }

  neighbours(feature) {
    const { neighbours, cosine } = this.arrays;
    return Array.from(row(neighbours, feature), (other, rank) => ({ feature: other, cosine: row(cosine, feature)[rank] }));
  }

  searchText(feature) {
    const names = this.names(feature).map((candidate) => candidate.name);
    return [...names, this.fact(feature)].join(" ").toLowerCase();
  }

  /** What can be listed: {name: whether a feature belongs there}. */
  groups = {
    often: (feature) => this.active(feature) >= FULL_GRID,
    alive: (feature) => this.alive(feature),
    dead: (feature) => !this.alive(feature),
    all: () => true,
  };

  size(group) {
    return this.arrays.alive.reduce((sum, _, feature) => sum + this.groups[group](feature), 0);
  }

  /** Features that match, in order. The query is a number (its beginning) or words of names and facts. */
  select({ query, sort, down, show }) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const number = /^#?\d+$/.test(query.trim()) ? query.trim().replace("#", "") : undefined;
    const matches = (feature) =>
      number === undefined ? words.every((word) => this.text[feature].includes(word)) : `${feature}`.startsWith(number);
    const visible = this.groups[show];
    const found = [];
    for (let feature = 0; feature < this.count; feature += 1) if (visible(feature) && matches(feature)) found.push(feature);
    return found.sort(this.comparison(sort, down));
  }

  /** Dead features and features without the number come last in either direction; equals stay in order of number. */
  comparison(sort, down) {
    const sign = down ? -1 : 1;
    if (sort === "index") return (a, b) => sign * (a - b);
    const key = sort === "name" ? this.firstName : this.arrays[sort];
    const missing = (feature) => !this.alive(feature) || key[feature] === undefined || Number.isNaN(key[feature]);
    return (a, b) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b) || a - b;
      const [left, right] = [key[a], key[b]];
      return (left < right ? -sign : left > right ? sign : 0) || a - b;
    };
  }

  async keep({ feature, arrays, sheets }, [block, bytes]) {
    const unpacked = await unpack(arrays, block);
    this.fetched.set(feature, new Details(unpacked, new Sprites(sheets, bytes), this.arrays.max));
  }
}

/** The line to Python: one ping on opening; with a kernel behind the page a pong comes back, else silence. */
class Kernel {
  constructor(model, features, changed) {
    Object.assign(this, { model, features, changed, attached: false, asked: new Set() });
    this.receive = this.receive.bind(this);
    model.on("msg:custom", this.receive);
    this.send({ kind: "ping" });
  }

  send(message) {
    try {
      this.model.send(message);
    } catch {
      this.attached = false; // a page whose kernel has gone
    }
  }

  async receive(message, buffers) {
    if (message.kind === "feature") await this.features.keep(message, buffers);
    this.attached = true;
    this.changed(message.kind === "feature" ? message.feature : undefined);
  }

  /** Asks once for all pictures of a feature, larger than those in the page. */
  want(feature) {
    if (!this.attached || this.asked.has(feature) || !this.features.alive(feature)) return;
    this.asked.add(feature);
    this.send({ kind: "feature", feature });
  }

  close() {
    this.model.off("msg:custom", this.receive);
  }
}
