// LLaVA in the browser: a picture is seen once, then asked about, with or without edits of its SAE codes.

const IMAGE_TOKEN = "<image>";
const question = (prompt) => `USER: ${IMAGE_TOKEN}\n${prompt} ASSISTANT:`; // LLaVA-1.5's

class LlavaEngine {
  /** llava, sae: addresses of folders, ending with a slash; onProgress(fraction) ends with 1. */
  static async load({ llava, sae, onProgress = () => {}, kernels = bestKernels() }) {
    const files = await fetchModel({ llava, sae }, (fraction) => onProgress(Math.min(fraction, 0.99)));
    const engine = new LlavaEngine(files, kernels);
    onProgress(1);
    return engine;
  }

  constructor({ config, generation, tokenizer, processor, tensors, sae, bytes }, kernels) {
    if (config.model_type !== "llava") throw new Error(`The engine runs LLaVA models, not ${config.model_type}.`);
    this.tokenizer = new Tokenizer(tokenizer);
    this.tower = new ImageTower(config, tensors, kernels, processor);
    this.sae = new SparseAutoencoder(sae, kernels, this.tower.width);
    this.project = projector(config, tensors, kernels);
    this.language = new LanguageModel(config, tensors, kernels);
    this.imageToken = config.image_token_id ?? config.image_token_index;
    this.ends = new Set([generation.eos_token_id].flat());
    this.pictures = new Map();
    const { tokens, side, width, size } = this.tower;
    this.info = { tokens, rows: side, columns: side, width, features: this.sae.features, size, kernel: kernels.name, bytes };
  }

  /** Runs the image tower up to the site and the SAE; returns the picture's number. */
  see(rgba) {
    const activations = this.tower.see(rgba);
    this.pictures.set(this.pictures.size, { activations, codes: this.sae.encode(activations) });
    return this.pictures.size - 1;
  }

  codes(picture) {
    return this.seen(picture).codes;
  }

  activations(picture) {
    return this.seen(picture).activations;
  }

  forget(picture) {
    this.pictures.set(picture, undefined);
  }

  seen(picture) {
    const found = this.pictures.get(picture);
    if (found === undefined) throw new Error(`There is no picture ${picture}; show it to the engine first.`);
    return found;
  }

  /** The most likely token, again and again. signal.aborted is looked at before each. */
  async generate(picture, prompt, intervention, { maxNewTokens = 64, onToken = () => {}, signal } = {}) {
    const start = performance.now();
    const { activations, codes } = this.seen(picture);
    const shown = intervention ? this.sae.edit(activations, codes, intervention) : activations;
    if (!prompt.trim()) throw new Error("The prompt is empty: ask something about the picture.");
    const image = this.project(shown.subarray(this.tower.skipped * this.tower.width));
    let x = this.embed(this.tokenizer.encode(question(prompt)), image);
    const memory = this.memoryFor(x.length / this.language.width, maxNewTokens);
    const decode = this.tokenizer.streamDecoder();
    const [ids, pieces] = [[], []];
    let first;
    while (ids.length < maxNewTokens && !this.ends.has(ids.at(-1))) {
      await breath();
      if (signal?.aborted) throw new DOMException("The answer was cancelled.", "AbortError");
      ids.push(largestIndex(this.language.read(x, memory)));
      first ??= performance.now();
      pieces.push(decode(ids.at(-1)));
      onToken(ids.at(-1), pieces.at(-1));
      x = this.language.embed(ids.slice(-1));
    }
    const text = [...pieces, decode(undefined)].join("").trim();
    return { ids, text, seconds: { first: (first - start) / 1000, all: (performance.now() - start) / 1000 } };
  }

  /** Embeddings of ids, the image token's place taken by the image (its tokens, width). */
  embed(ids, image) {
    const place = ids.indexOf(this.imageToken);
    if (ids.lastIndexOf(this.imageToken) !== place) {
      throw new Error(`Leave ${IMAGE_TOKEN} out of the prompt: the picture stands before it.`);
    }
    const parts = [this.language.embed(ids.slice(0, place)), image, this.language.embed(ids.slice(place + 1))];
    const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
    parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
    return all;
  }

  memoryFor(rows, maxNewTokens) {
    const { longest } = this.language;
    if (rows + maxNewTokens > longest) {
      const sizes = `picture and prompt take ${rows} tokens, the answer up to ${maxNewTokens}, and the model reads ${longest}`;
      throw new Error(`The prompt is too long: ${sizes}.`);
    }
    return this.language.memory(rows + maxNewTokens);
  }
}

function largestIndex(scores) {
  let best = 0;
  for (let i = 1; i < scores.length; i += 1) if (scores[i] > scores[best]) best = i;
  return best;
}

/** Lets messages in, such as one that cancels. A timer would wait for milliseconds. */
function breath() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
