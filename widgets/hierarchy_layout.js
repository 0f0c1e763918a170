// The hierarchy tree's data and geometry: who hangs below whom, and which strip of its column a feature gets.

/** The forest of living features; a feature without a parent is a root in the column of its own level. */
class Forest {
  constructor(meta, arrays, sprites) {
    Object.assign(this, { meta, arrays, sprites });
    this.count = arrays.alive.length;
    this.levels = meta.levels;
    this.children = Array.from({ length: this.count }, () => []);
    this.leaves = new Uint32Array(this.count); // strips that a feature and all below it take
    this.below = new Uint32Array(this.count); // features below it
    this.roots = [];
    for (let feature = this.count - 1; feature >= 0; feature -= 1) this.place(feature);
    const bySize = (a, b) => this.leaves[b] - this.leaves[a] || a - b;
    this.children.forEach((family) => family.sort(bySize));
    this.roots.sort((a, b) => this.level(a) - this.level(b) || bySize(a, b));
    this.text = Array.from({ length: this.count }, (_, feature) => this.name(feature).toLowerCase());
    this.ranges = meta.measures.map((_, m) => this.range(m));
  }

  static async load(model) {
    const meta = model.get("meta");
    const arrays = await unpack(meta.arrays, model.get("numbers"));
    return new Forest(meta, arrays, new Sprites(meta.sheets, model.get("sheets")));
  }

  /** Counts a feature into its parent; all below it have been before, as finer levels have higher numbers. */
  place(feature) {
    if (!this.alive(feature)) return;
    this.leaves[feature] = Math.max(1, this.leaves[feature]);
    const parent = this.parent(feature);
    if (parent === undefined) {
      this.roots.push(feature);
      return;
    }
    this.children[parent].push(feature);
    this.leaves[parent] += this.leaves[feature];
    this.below[parent] += this.below[feature] + 1;
  }

  alive = (feature) => this.arrays.alive[feature] === 1;
  level = (feature) => this.levels.findIndex(({ end }) => feature < end);
  name = (feature) => this.meta.vocabulary[this.arrays.name[feature]];
  title = (feature) => this.name(feature) || "mixed"; // no taxon holds enough of its pictures
  measure = (feature, m) => this.arrays.measures[feature * this.arrays.measures.width + m];

  parent(feature) {
    const parent = this.arrays.parent[feature];
    return parent ? parent - 1 : undefined;
  }

  siblings(feature) {
    const parent = this.parent(feature);
    if (parent !== undefined) return this.children[parent];
    return this.roots.filter((root) => this.level(root) === this.level(feature));
  }

  /** From the coarsest ancestor to the feature itself. */
  line(feature) {
    const line = [];
    for (let at = feature; at !== undefined; at = this.parent(at)) line.unshift(at);
    return line;
  }

  pictures(feature) {
    const { pool, pool_class: classes, top } = this.arrays;
    return Array.from(row(top, feature))
      .filter((position) => position !== NONE)
      .map((position) => ({ sprites: this.sprites, position, image: pool[position], label: this.meta.classes[classes[position]] ?? "" }));
  }

  /** Least and greatest value of a measure over the living features. */
  range(m) {
    const range = [Infinity, -Infinity];
    for (let feature = 0; feature < this.count; feature += 1) {
      const value = this.measure(feature, m);
      if (!this.alive(feature) || Number.isNaN(value)) continue;
      range[0] = Math.min(range[0], value);
      range[1] = Math.max(range[1], value);
    }
    return range;
  }

  /** Where a value lies in its measure's range, from 0 to 1; undefined where there is no value. */
  shade(feature, m) {
    const [low, high] = this.ranges[m];
    const value = this.measure(feature, m);
    return Number.isNaN(value) ? undefined : (value - low) / (high - low || 1);
  }

  /** Living features that a query finds: a number, or words of their names. */
  find(query) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return [];
    const number = /^#?\d+$/.test(query.trim()) ? Number(query.trim().replace("#", "")) : undefined;
    const matches = (feature) => (number === undefined ? words.every((word) => this.text[feature].includes(word)) : feature === number);
    return Array.from({ length: this.count }, (_, feature) => feature).filter((feature) => this.alive(feature) && matches(feature));
  }

  /**
   * Strips {feature, top, height} as fractions of the column, all of the feature `focus` and its line, or of everything.
   * Ancestors of the focus take the whole height; strips lower than `least` are left out.
   */
  strips(focus, least) {
    const found = [];
    const add = (family, top, unit) => {
      for (const feature of family) {
        const height = this.leaves[feature] * unit;
        if (height >= least) {
          found.push({ feature, top, height });
          add(this.children[feature], top, unit);
        }
        top += height;
      }
    };
    if (focus === undefined) {
      add(this.roots, 0, 1 / this.roots.reduce((sum, root) => sum + this.leaves[root], 0));
      return found;
    }
    for (const feature of this.line(focus)) found.push({ feature, top: 0, height: 1 });
    add(this.children[focus], 0, 1 / this.leaves[focus]);
    return found;
  }
}
