// From pixels to what the language model reads: CLIP's image tower up to the site, the SAE and its edits, the projector.

class ImageTower {
  constructor(config, tensors, kernels, processor) {
    const { vision_config: vision, vision_feature_layer: layer, vision_feature_select_strategy: strategy } = config;
    refuseUnknownTower(vision, layer, strategy);
    this.width = vision.hidden_size;
    this.size = vision.image_size;
    this.patch = vision.patch_size;
    this.side = this.size / this.patch; // patches along an edge
    this.tokens = this.side ** 2 + 1;
    this.skipped = strategy === "default" ? 1 : 0; // CLS is not shown to the language model
    this.pixel = pixelValues(processor);
    const read = (name, shape) => tensors.read(`vision_tower.${name}`, shape);
    const { width } = this;
    const inputs = 3 * this.patch ** 2;
    const patches = read("embeddings.patch_embedding.weight", [width, 3, this.patch, this.patch]);
    this.embed = kernels.linear(patches, null, inputs, width);
    this.cls = read("embeddings.class_embedding", [width]);
    this.positions = read("embeddings.position_embedding.weight", [this.tokens, width]);
    const eps = vision.layer_norm_eps ?? 1e-5;
    const norm = (name) => layerNorm(read(`${name}.weight`, [width]), read(`${name}.bias`, [width]), eps);
    const linear = (name, from, to) => kernels.linear(read(`${name}.weight`, [to, from]), read(`${name}.bias`, [to]), from, to);
    this.first = norm("pre_layrnorm");
    const blocks = layer < 0 ? vision.num_hidden_layers + 1 + layer : layer;
    this.blocks = Array.from({ length: blocks }, (_, i) => towerBlock(`encoder.layers.${i}`, vision, norm, linear));
  }

  /** (tokens, width) at the site, of RGBA bytes (size * size * 4). */
  see(rgba) {
    if (rgba.length !== this.size ** 2 * 4) {
      throw new Error(`A picture has ${this.size} x ${this.size} pixels of 4 bytes; ${rgba.length} bytes were given.`);
    }
    const x = new Float32Array(this.tokens * this.width);
    x.set(this.cls);
    x.set(this.embed(this.patches(rgba)), this.width);
    return this.blocks.reduce((values, block) => block(values), this.first(add(x, this.positions)));
  }

  /** (patches, 3 * patch * patch): each patch's pixels, channel by channel, as the convolution's weights are stored. */
  patches(rgba) {
    const { side, patch, size } = this;
    const out = new Float32Array(side * side * 3 * patch * patch);
    let to = 0;
    for (let place = 0; place < side * side; place += 1) {
      const corner = Math.floor(place / side) * patch * size + (place % side) * patch;
      for (let channel = 0; channel < 3; channel += 1) {
        for (let y = 0; y < patch; y += 1) {
          for (let x = 0; x < patch; x += 1) out[to++] = this.pixel[channel][rgba[4 * (corner + y * size + x) + channel]];
        }
      }
    }
    return out;
  }
}

function refuseUnknownTower(vision, layer, strategy) {
  if (vision.model_type !== "clip_vision_model") {
    throw new Error(`The engine runs CLIP's image tower, not ${vision.model_type}.`);
  }
  if (!Number.isInteger(layer)) throw new Error("The engine reads one layer of the image tower, not several.");
  if (!["default", "full"].includes(strategy)) {
    throw new Error(`The engine knows the strategies default and full for image tokens, not ${strategy}.`);
  }
}

/** Per channel, what each of the 256 values of a pixel becomes: scaled and normalised in float32, as torch does. */
function pixelValues(processor) {
  const { image_mean: mean, image_std: std, rescale_factor: factor = 1 / 255 } = processor.image_processor ?? processor;
  const float = Math.fround;
  return mean.map((centre, channel) =>
    Float32Array.from({ length: 256 }, (_, value) => float(float(value * factor) - float(centre)) / float(std[channel])),
  );
}

function towerBlock(name, vision, norm, linear) {
  const { hidden_size: width, num_attention_heads: heads, intermediate_size: inner } = vision;
  const shape = { heads, keyHeads: heads, width: width / heads };
  const [query, key, value, output] = ["q_proj", "k_proj", "v_proj", "out_proj"].map((part) =>
    linear(`${name}.self_attn.${part}`, width, width),
  );
  const [before, between] = [norm(`${name}.layer_norm1`), norm(`${name}.layer_norm2`)];
  const [up, down] = [linear(`${name}.mlp.fc1`, width, inner), linear(`${name}.mlp.fc2`, inner, width)];
  const bend = activation(vision.hidden_act);
  return (x) => {
    const read = before(x);
    const all = x.length / width;
    const middle = add(x, output(attend(query(read), key(read), value(read), shape, () => all)));
    return add(middle, down(up(between(middle)).map(bend)));
  };
}

/** The two layers that bring patches into the language model's space. */
function projector(config, tensors, kernels) {
  const [from, to] = [config.vision_config.hidden_size, config.text_config.hidden_size];
  const linear = (name, inputs) => {
    const bias = `multi_modal_projector.${name}.bias`;
    const weight = tensors.read(`multi_modal_projector.${name}.weight`, [to, inputs]);
    return kernels.linear(weight, tensors.has(bias) ? tensors.read(bias, [to]) : null, inputs, to);
  };
  const [first, second] = [linear("linear_1", from), linear("linear_2", to)];
  const bend = activation(config.projector_hidden_act ?? "gelu");
  return (x) => second(first(x).map(bend));
}
