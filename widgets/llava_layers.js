// What the image tower and the language model are made of besides matrix products: norms, activations, attention.
// Values are Float32Array, row by row; sums run in double, as exact as torch's or better.

const add = (a, b) => a.map((value, i) => value + b[i]);

/** A function that normalises rows of `width` by their mean and variance. */
function layerNorm(weight, bias, eps) {
  const width = weight.length;
  return (x) => {
    const out = new Float32Array(x.length);
    for (let start = 0; start < x.length; start += width) {
      let mean = 0;
      for (let i = 0; i < width; i += 1) mean += x[start + i] / width;
      let variance = 0;
      for (let i = 0; i < width; i += 1) variance += (x[start + i] - mean) ** 2 / width;
      const scale = 1 / Math.sqrt(variance + eps);
      for (let i = 0; i < width; i += 1) out[start + i] = (x[start + i] - mean) * scale * weight[i] + bias[i];
    }
    return out;
  };
}

/** A function that divides rows of `width` by their root mean square. */
function rmsNorm(weight, eps) {
  const width = weight.length;
  return (x) => {
    const out = new Float32Array(x.length);
    for (let start = 0; start < x.length; start += width) {
      let square = 0;
      for (let i = 0; i < width; i += 1) square += x[start + i] ** 2 / width;
      const scale = 1 / Math.sqrt(square + eps);
      for (let i = 0; i < width; i += 1) out[start + i] = x[start + i] * scale * weight[i];
    }
    return out;
  };
}

// erf by cubic interpolation of its values and slopes at steps of 1/64: off by less than 1e-9
const ERF_STEP = 1 / 64;
const ERF_END = 6; // from where on erf is 1 in double
const erfSlope = (x) => (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x);

/** erf(x) = slope(x) * (x + 2 x^3 / 3 + 4 x^5 / 15 + ...), a series without cancellation. */
function erfSeries(x) {
  let [term, sum] = [x, x];
  for (let n = 1; term > 1e-18 * sum; n += 1) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return erfSlope(x) * sum;
}

const ERF_VALUES = Float64Array.from({ length: ERF_END / ERF_STEP + 1 }, (_, i) => erfSeries(i * ERF_STEP));
const ERF_SLOPES = ERF_VALUES.map((_, i) => ERF_STEP * erfSlope(i * ERF_STEP));

function erf(x) {
  const place = Math.abs(x) / ERF_STEP;
  if (!(place < ERF_VALUES.length - 1)) return Number.isNaN(x) ? x : Math.sign(x);
  const i = Math.floor(place);
  const t = place - i;
  const rise = ERF_VALUES[i + 1] - ERF_VALUES[i];
  const [first, last] = [ERF_SLOPES[i] - rise, ERF_SLOPES[i + 1] - rise];
  return Math.sign(x) * (ERF_VALUES[i] + t * rise + t * (1 - t) * ((1 - t) * first - t * last));
}

const logistic = (x) => 1 / (1 + Math.exp(-x));

const ACTIVATIONS = {
  gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  quick_gelu: (x) => x * logistic(1.702 * x),
  silu: (x) => x * logistic(x),
};

function activation(name) {
  const function_ = ACTIVATIONS[name];
  if (function_ === undefined) {
    throw new Error(`The engine does not know the activation function ${name}; it has ${Object.keys(ACTIVATIONS).join(", ")}.`);
  }
  return function_;
}

/**
 * Attention of queries (rows, heads * width) to keys and values (positions, keyHeads * width).
 * seen(row): how many positions that row may look at.
 */
function attend(queries, keys, values, { heads, keyHeads, width }, seen) {
  const [queryWidth, keyWidth] = [heads * width, keyHeads * width];
  const rows = queries.length / queryWidth;
  const out = new Float32Array(queries.length);
  const shares = new Float64Array(keys.length / keyWidth);
  for (let row = 0; row < rows; row += 1) {
    for (let head = 0; head < heads; head += 1) {
      const query = row * queryWidth + head * width;
      const offset = Math.floor((head * keyHeads) / heads) * width; // heads share keys in groups
      const count = seen(row);
      softmaxOfProducts(queries, query, keys, offset, keyWidth, width, count, shares);
      addWeighted(values, offset, keyWidth, shares, count, out, query, width);
    }
  }
  return out;
}

/** out[start + i] += the sum over positions of shares times values, two positions at a time. */
function addWeighted(values, offset, keyWidth, shares, count, out, start, width) {
  const pairs = count - (count % 2);
  for (let position = 0; position < pairs; position += 2) {
    const [value, next] = [position * keyWidth + offset, (position + 1) * keyWidth + offset];
    const [share, nextShare] = [shares[position], shares[position + 1]];
    for (let i = 0; i < width; i += 1) out[start + i] += share * values[value + i] + nextShare * values[next + i];
  }
  for (let position = pairs; position < count; position += 1) {
    const value = position * keyWidth + offset;
    for (let i = 0; i < width; i += 1) out[start + i] += shares[position] * values[value + i];
  }
}

/** The sum of a[i] * b[i] over `width` numbers from two places: in four sums, which a processor adds up at once. */
function product(a, aStart, b, bStart, width) {
  let [first, second, third, fourth] = [0, 0, 0, 0];
  const quads = width - (width % 4);
  for (let i = 0; i < quads; i += 4) {
    first += a[aStart + i] * b[bStart + i];
    second += a[aStart + i + 1] * b[bStart + i + 1];
    third += a[aStart + i + 2] * b[bStart + i + 2];
    fourth += a[aStart + i + 3] * b[bStart + i + 3];
  }
  for (let i = quads; i < width; i += 1) first += a[aStart + i] * b[bStart + i];
  return first + second + third + fourth;
}

/** shares[position] for the first `count` positions: the softmax of query times key / sqrt(width). */
function softmaxOfProducts(queries, query, keys, offset, keyWidth, width, count, shares) {
  const scale = 1 / Math.sqrt(width);
  let largest = -Infinity;
  for (let position = 0; position < count; position += 1) {
    const key = position * keyWidth + offset;
    shares[position] = product(queries, query, keys, key, width) * scale;
    largest = Math.max(largest, shares[position]);
  }
  let sum = 0;
  for (let position = 0; position < count; position += 1) {
    shares[position] = Math.exp(shares[position] - largest);
    sum += shares[position];
  }
  for (let position = 0; position < count; position += 1) shares[position] /= sum;
}
