// What the suppression panel computes in the page: predictions of a subset, and accuracies with their intervals.

const Z = 1.959964; // two-sided 95 % of the normal distribution

/** 95 % interval of `right` of `n` (Wilson, J. Am. Stat. Assoc. 1927): it stays within 0 and 1, at the ends too. */
function wilson(right, n) {
  const p = right / n;
  const scale = 1 + (Z * Z) / n;
  const centre = (p + (Z * Z) / (2 * n)) / scale;
  const half = (Z / scale) * Math.sqrt((p * (1 - p)) / n + (Z * Z) / (4 * n * n));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

/** {value, low, high, n}: a share and its interval; value is NaN of nothing. */
function share(right, n) {
  const [low, high] = n ? wilson(right, n) : [NaN, NaN];
  return { value: n ? right / n : NaN, low, high, n };
}

/** One task at one layer. `before` are the predictions with nothing suppressed. */
class Outcome {
  constructor(described, arrays, number) {
    const own = (name) => arrays[`${number}.${name}`];
    Object.assign(this, described, { number, truth: own("truth"), group: own("group"), before: own("before") });
    Object.assign(this, { changes: own("changes"), ordinaryOf: own("ordinary") });
    this.unsuppressed = this.accuracies(this.before);
  }

  /** The row of a set of features' numbers: bit i says that features[i] is in it. */
  subset(suppressed) {
    return this.features.reduce((bits, { id }, i) => bits + (suppressed.has(id) ? 1 << i : 0), 0);
  }

  /** (N,) stored predictions with these features suppressed. */
  predictions(suppressed) {
    const subset = this.subset(suppressed);
    return this.before.map((prediction, i) => prediction ^ this.changes[i * this.changes.width + subset]);
  }

  /** Accuracy on ordinary pictures, of what is stored. */
  ordinary(suppressed) {
    return this.ordinaryShare(this.ordinaryOf[this.subset(suppressed)]);
  }

  ordinaryShare(value) {
    const n = this.ordinary_count;
    const [low, high] = n ? wilson(value * n, n) : [NaN, NaN];
    return { value, low, high, n: n ?? undefined };
  }

  /** {groups: [share], average: share, worst: the place of the lowest group}. */
  accuracies(predictions) {
    const right = new Array(this.groups.length).fill(0);
    const count = new Array(this.groups.length).fill(0);
    predictions.forEach((prediction, i) => {
      count[this.group[i]] += 1;
      right[this.group[i]] += prediction === this.truth[i];
    });
    const groups = right.map((hits, g) => share(hits, count[g]));
    const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
    const lower = (a, b) => (groups[b].n && !(groups[a]?.value <= groups[b].value) ? b : a);
    return { groups, average: share(total(right), predictions.length), worst: [...groups.keys()].reduce(lower, -1) };
  }

  /** How many of all pictures become right, become wrong, and are taken for something else. */
  flips(predictions) {
    const flips = { right: 0, wrong: 0, changed: 0 };
    predictions.forEach((prediction, i) => {
      if (prediction === this.before[i]) return;
      flips.changed += 1;
      flips.right += prediction === this.truth[i];
      flips.wrong += this.before[i] === this.truth[i];
    });
    return flips;
  }
}
