// The language model, a Llama: it reads embeddings, remembers keys and values, and scores the next token.

class LanguageModel {
  constructor(config, tensors, kernels) {
    const { text_config: text } = config;
    refuseUnknownLanguageModel(text);
    const { hidden_size: width, vocab_size: words } = text;
    Object.assign(this, { width, words, longest: text.max_position_embeddings });
    const read = (name, shape) => tensors.read(`language_model.${name}`, shape);
    const norm = (name) => rmsNorm(read(`${name}.weight`, [width]), text.rms_norm_eps);
    const linear = (name, from, to) => {
      const bias = tensors.has(`language_model.${name}.bias`) ? read(`${name}.bias`, [to]) : null;
      return kernels.linear(read(`${name}.weight`, [to, from]), bias, from, to);
    };
    this.embeddings = read("embed_tokens.weight", [words, width]);
    this.blocks = Array.from({ length: text.num_hidden_layers }, (_, i) => languageBlock(`layers.${i}`, text, norm, linear));
    this.last = norm("norm");
    this.score = kernels.linear(outputWeights(tensors, this.embeddings, words, width), null, width, words);
  }

  /** (ids, width) */
  embed(ids) {
    const x = new Float32Array(ids.length * this.width);
    ids.forEach((id, i) => x.set(this.embeddings.subarray(id * this.width, (id + 1) * this.width), i * this.width));
    return x;
  }

  /** An empty memory of so many positions. */
  memory(positions) {
    return { length: 0, blocks: this.blocks.map((block) => block.memory(positions)) };
  }

  /** Scores of the token (words,) that follows x (rows, width), which continues what the memory holds. */
  read(x, memory) {
    const rows = x.length / this.width;
    const end = this.blocks.reduce((values, block, i) => block.read(values, memory.blocks[i], memory.length), x);
    memory.length += rows;
    return this.score(this.last(end.subarray(end.length - this.width)));
  }
}

function refuseUnknownLanguageModel(text) {
  if (text.model_type !== "llama") throw new Error(`The engine runs Llama language models, not ${text.model_type}.`);
  const kind = text.rope_parameters?.rope_type ?? text.rope_scaling?.rope_type ?? "default";
  if (kind !== "default") throw new Error(`The engine does not know the rotary embedding ${kind}.`);
}

function outputWeights(tensors, embeddings, words, width) {
  const name = ["lm_head.weight", "language_model.lm_head.weight"].find((candidate) => tensors.has(candidate));
  return name ? tensors.read(name, [words, width]) : embeddings; // without weights of its own it is tied
}

function languageBlock(name, text, norm, linear) {
  const { hidden_size: width, intermediate_size: inner, num_attention_heads: heads } = text;
  const keyHeads = text.num_key_value_heads ?? heads;
  const headWidth = text.head_dim ?? width / heads;
  const shape = { heads, keyHeads, width: headWidth };
  const keyWidth = keyHeads * headWidth;
  const query = linear(`${name}.self_attn.q_proj`, width, heads * headWidth);
  const [key, value] = ["k_proj", "v_proj"].map((part) => linear(`${name}.self_attn.${part}`, width, keyWidth));
  const output = linear(`${name}.self_attn.o_proj`, heads * headWidth, width);
  const [before, between] = [norm(`${name}.input_layernorm`), norm(`${name}.post_attention_layernorm`)];
  const [gate, up] = ["gate_proj", "up_proj"].map((part) => linear(`${name}.mlp.${part}`, width, inner));
  const down = linear(`${name}.mlp.down_proj`, inner, width);
  const bend = activation(text.hidden_act ?? "silu");
  const rotate = rotary(text.rope_parameters?.rope_theta ?? text.rope_theta ?? 10000, headWidth);
  return {
    memory: (positions) => ({ keys: new Float32Array(positions * keyWidth), values: new Float32Array(positions * keyWidth) }),
    read(x, memory, start) {
      const seen = before(x);
      const known = (start + x.length / width) * keyWidth;
      memory.keys.set(rotate(key(seen), keyWidth, start), start * keyWidth);
      memory.values.set(value(seen), start * keyWidth);
      const queries = rotate(query(seen), heads * headWidth, start);
      const [keys, values] = [memory.keys.subarray(0, known), memory.values.subarray(0, known)];
      const mixed = attend(queries, keys, values, shape, (row) => start + row + 1); // itself and what is before it
      const middle = add(x, output(mixed));
      const read = between(middle);
      const raised = up(read);
      return add(middle, down(gate(read).map((opening, i) => bend(opening) * raised[i])));
    },
  };
}

/** Rotary embedding: the halves of each head are turned by an angle that grows with the position. Works in place. */
function rotary(theta, headWidth) {
  const half = headWidth / 2;
  const speeds = Float32Array.from({ length: half }, (_, i) => 1 / theta ** ((2 * i) / headWidth));
  return (x, width, start) => {
    for (let row = 0; row < x.length / width; row += 1) {
      for (let i = 0; i < half; i += 1) {
        const angle = Math.fround((start + row) * speeds[i]);
        const [cosine, sine] = [Math.fround(Math.cos(angle)), Math.fround(Math.sin(angle))];
        for (let at = row * width + i; at < (row + 1) * width; at += headWidth) {
          const [a, b] = [x[at], x[at + half]];
          x[at] = a * cosine - b * sine;
          x[at + half] = b * cosine + a * sine;
        }
      }
    }
    return x;
  };
}
