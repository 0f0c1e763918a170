// The sparse autoencoder as lib/sae/model.py has it, and edits of its codes as steering/interventions.py has them.

const THRESHOLD_KINDS = ["relu", "batchtopk", "matryoshka", "monoloss", "jumprelu"];

class SparseAutoencoder {
  constructor({ config, tensors }, kernels, width) {
    if (config.d !== width) throw new Error(`The SAE reads activations of width ${config.d}; the image tower has ${width}.`);
    if (!THRESHOLD_KINDS.includes(config.kind) && config.kind !== "topk") {
      throw new Error(`The engine does not run SAEs of kind ${config.kind}.`);
    }
    if (config.target) throw new Error("The engine does not run transcoders.");
    if ((config.input_norm ?? "none") !== "none") {
      throw new Error(`The engine does not run SAEs that normalise each input (${config.input_norm}).`);
    }
    this.width = width;
    this.features = config.width ?? Math.round(config.expansion * width);
    this.decoder = tensors.read("W_dec", [this.features, width]);
    this.centre = tensors.read("b_dec", [width]);
    const [weights, bias] = [tensors.read("W_enc", [width, this.features]), tensors.read("b_enc", [this.features])];
    this.product = kernels.linear(weights, bias, width, this.features, true);
    this.activate = config.kind === "topk" ? largest(config.k, this.features) : aboveThreshold(tensors, this.features);
  }

  /** Codes (tokens, features) of x (tokens, width). */
  encode(x) {
    return this.activate(this.product(x.map((value, i) => value - this.centre[i % this.width])));
  }

  /** x + the sum of codes (tokens, features) times decoder rows; most codes are 0. */
  addDecoded(x, codes) {
    const { width, decoder } = this;
    for (let place = 0, to = 0; to < x.length; to += width) {
      for (let from = 0; from < decoder.length; from += width, place += 1) {
        const code = codes[place];
        if (code === 0) continue;
        for (let j = 0; j < width; j += 1) x[to + j] += code * decoder[from + j];
      }
    }
    return x;
  }

  /** What the language model is shown in place of x: the intervention's edit on its tokens, x itself on the others. */
  edit(x, codes, { features, mode = "clamp", tokens = null, keepError = true }) {
    const edited = this.editedCodes(codes, features, mode);
    const start = keepError ? x.slice() : x.map((_, i) => this.centre[i % this.width]);
    const change = keepError ? edited.map((code, i) => code - codes[i]) : edited;
    const all = this.addDecoded(start, change);
    return tokens ? x.map((value, i) => (tokens[Math.floor(i / this.width)] ? all[i] : value)) : all;
  }

  editedCodes(codes, features, mode) {
    const change = EDITS[mode];
    if (change === undefined) throw new Error(`The mode is ${Object.keys(EDITS).join(", ")}, not ${mode}.`);
    const edited = codes.slice();
    for (const [name, value] of Object.entries(features)) {
      const feature = Number(name);
      if (!(Number.isInteger(feature) && feature >= 0 && feature < this.features)) {
        throw new Error(`There is no feature ${name}: the SAE has features 0 to ${this.features - 1}.`);
      }
      for (let i = feature; i < edited.length; i += this.features) edited[i] = change(edited[i], value);
    }
    return edited;
  }
}

const EDITS = {
  clamp: (code, value) => value,
  add: (code, value) => code + value,
  scale: (code, value) => code * value,
  suppress: (code, value) => -value,
};

/** Codes are what exceeds a learned threshold: one for all features, or one for each. */
function aboveThreshold(tensors, features) {
  const single = tensors.shape("threshold").length === 0;
  const limits = tensors.read("threshold", single ? [] : [features]).map((value) => Math.max(value, 0));
  return (codes) => codes.map((code, i) => (code > limits[single ? 0 : i % features] ? code : 0));
}

/** Codes are the k largest of each token, where they are positive. */
function largest(k, features) {
  return (codes) => {
    const out = new Float32Array(codes.length);
    for (let start = 0; start < codes.length; start += features) {
      const order = Array.from({ length: features }, (_, i) => start + i).sort((a, b) => codes[b] - codes[a]);
      for (const i of order.slice(0, k)) out[i] = Math.max(codes[i], 0);
    }
    return out;
  };
}
