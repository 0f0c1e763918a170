// Files of the model: fetched with progress, and tensors read out of safetensors as float32.

const JSON_FILES = { config: "config.json", generation: "generation_config.json", tokenizer: "tokenizer.json" };
const PROCESSORS = ["processor_config.json", "preprocessor_config.json"]; // of transformers 5, and before
const WEIGHTS = "model.safetensors";
const HALF_EXPONENTS = 1024; // float16 numbers that share sign and exponent

/** All files of the model and the SAE; onProgress(fraction) rises to 1 with the bytes that have arrived. */
async function fetchModel({ llava, sae }, onProgress) {
  const progress = new Progress(onProgress);
  const opened = await Promise.all([
    ...Object.values(JSON_FILES).map((name) => progress.open(llava, name)),
    progress.open(llava, PROCESSORS[0]).catch(() => progress.open(llava, PROCESSORS[1])),
    progress.open(sae, "config.json"),
    progress.open(llava, WEIGHTS),
    progress.open(sae, WEIGHTS),
  ]); // only when all lengths are known, a fraction of them is
  const files = await Promise.all(opened.map((file) => progress.read(file)));
  const parsed = files.slice(0, -2).map((bytes, i) => parseJson(bytes, opened[i].address));
  const [config, generation, tokenizer, processor, saeConfig] = parsed;
  const [tensors, saeTensors] = files.slice(-2).map((bytes, i) => new Tensors(bytes, opened.at(i - 2).address));
  const dictionary = { config: saeConfig, tensors: saeTensors };
  return { config, generation, tokenizer, processor, tensors, sae: dictionary, bytes: progress.arrived };
}

function parseJson(bytes, address) {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new Error(`${address} is not JSON; the model's files are damaged or incomplete.`);
  }
}

/** Bytes that have arrived of those that were announced, over all files. */
class Progress {
  constructor(onProgress) {
    Object.assign(this, { onProgress, announced: 0, arrived: 0, told: 0 });
  }

  async open(folder, name) {
    const address = `${folder}${name}`;
    const answer = await fetch(address).catch(() => {
      throw new Error(`${address} could not be loaded: the server does not answer.`);
    });
    if (!answer.ok) throw new Error(`${address} could not be loaded: the server answers ${answer.status}.`);
    const packed = answer.headers.get("Content-Encoding"); // then the length is that of the packed bytes
    this.announced += packed ? 0 : Number(answer.headers.get("Content-Length") ?? 0);
    return { address, reader: answer.body.getReader() };
  }

  /** Never falls, and stays within 1 where less was announced than arrives. */
  tell() {
    this.told = Math.max(this.told, Math.min(1, this.arrived / Math.max(1, this.announced)));
    this.onProgress(this.told);
  }

  async read({ reader }) {
    const parts = [];
    let arrived = 0;
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      parts.push(part.value);
      arrived += part.value.length;
      this.arrived += part.value.length;
      this.tell();
    }
    const bytes = new Uint8Array(arrived);
    let start = 0;
    for (const part of parts) {
      bytes.set(part, start);
      start += part.length;
    }
    return bytes;
  }
}

/** Tensors of one safetensors file: names, shapes, and values as float32. */
class Tensors {
  constructor(bytes, address) {
    Object.assign(this, { bytes, address });
    const damaged = new Error(`${address} is not a complete safetensors file.`);
    if (bytes.length < 8) throw damaged;
    const headerLength = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    this.start = 8 + headerLength;
    if (this.start > bytes.length) throw damaged;
    const { __metadata__: _, ...header } = parseJson(bytes.subarray(8, this.start), address);
    this.entries = new Map(Object.entries(header).map(([name, entry]) => [plainName(name), entry]));
    const end = Math.max(0, ...Object.values(header).map(({ data_offsets: [, last] }) => last));
    if (this.start + end > bytes.length) throw damaged;
  }

  has(name) {
    return this.entries.has(name);
  }

  entry(name) {
    if (!this.has(name)) throw new Error(`${this.address} has no tensor ${name}.`);
    return this.entries.get(name);
  }

  shape(name) {
    return this.entry(name).shape;
  }

  /** Values of a tensor of that shape, as a Float32Array. */
  read(name, shape) {
    const { dtype, shape: stored, data_offsets: [first, last] } = this.entry(name);
    if (stored.join() !== shape.join()) {
      throw new Error(`${name} in ${this.address} has shape (${stored}), where config.json calls for (${shape}).`);
    }
    const raw = this.bytes.slice(this.start + first, this.start + last).buffer; // a copy, aligned
    if (dtype === "F32") return new Float32Array(raw);
    if (dtype === "F16") return fromHalf(new Uint16Array(raw));
    throw new Error(`${name} in ${this.address} is stored as ${dtype}; the engine reads F16 and F32.`);
  }
}

/** A tensor's name without the wrappers that versions of transformers put into it or leave out. */
const plainName = (name) => name.split(".").filter((part) => part !== "model" && part !== "vision_model").join(".");

/** float16, given as its bits, as float32: every number of the 65,536 is looked up in a table. */
function fromHalf(bits) {
  halfTable.values ??= Float32Array.from({ length: 65536 }, (_, half) => halfTable(half));
  const { values } = halfTable;
  const floats = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i += 1) floats[i] = values[bits[i]];
  return floats;
}

function halfTable(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = (half % HALF_EXPONENTS) / HALF_EXPONENTS;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction) : sign * 2 ** -14 * fraction;
}
