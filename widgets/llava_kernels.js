// Matrix products, where the time goes: in WebAssembly with SIMD, or in plain JavaScript where that is missing.
//
// Weights are packed into panels of 8 outputs: for each panel, input by input, 8 numbers that are read in a row. A tile is
// one panel times one row of x or four; it adds up in float32 (WebAssembly) or in double (JavaScript).

const PANEL = 8; // outputs computed at once: two registers of four float32
const TILE = 4; // rows of x that share each read of a panel
const PAGE = 65536; // bytes by which WebAssembly's memory grows

/** (outputs, inputs) weights as torch's Linear has them, or (inputs, outputs) if `byInput`, in panels. */
function packed(weights, inputs, outputs, byInput) {
  const panels = new Float32Array(Math.ceil(outputs / PANEL) * PANEL * inputs);
  for (let output = 0; output < outputs; output += 1) {
    const start = Math.floor(output / PANEL) * PANEL * inputs + (output % PANEL);
    const [first, step] = byInput ? [output, outputs] : [output * inputs, 1];
    for (let input = 0; input < inputs; input += 1) panels[start + input * PANEL] = weights[first + input * step];
  }
  return panels;
}

function padded(bias, outputs) {
  const all = new Float32Array(Math.ceil(outputs / PANEL) * PANEL);
  if (bias) all.set(bias);
  return all;
}

/** Rows of `width` numbers, of which the first `kept` are wanted. */
function unpadded(rows, width, kept) {
  if (width === kept) return rows.slice();
  const result = new Float32Array((rows.length / width) * kept);
  for (let from = 0, to = 0; from < rows.length; from += width, to += kept) result.set(rows.subarray(from, from + kept), to);
  return result;
}

/** Products in plain JavaScript. */
class ScriptKernels {
  name = "JavaScript";

  /** A function from x (rows * inputs) to x W + bias (rows * outputs), both Float32Array. */
  linear(weights, bias, inputs, outputs, byInput = false) {
    const panels = packed(weights, inputs, outputs, byInput);
    const biases = padded(bias, outputs);
    return (x) => {
      const rows = x.length / inputs;
      const out = new Float32Array(rows * biases.length);
      for (let panel = 0; panel < biases.length; panel += PANEL) {
        for (let row = 0; row < rows; row += 1) {
          const sums = scriptTile(x, row * inputs, panels, panel * inputs, inputs, biases.subarray(panel, panel + PANEL));
          out.set(sums, row * biases.length + panel);
        }
      }
      return unpadded(out, biases.length, outputs);
    };
  }
}

/** One panel times one row of x. */
function scriptTile(x, xStart, panels, panelStart, inputs, biases) {
  let [a, b, c, d, e, f, g, h] = biases;
  for (let input = 0, w = panelStart; input < inputs; input += 1, w += PANEL) {
    const value = x[xStart + input];
    a += value * panels[w];
    b += value * panels[w + 1];
    c += value * panels[w + 2];
    d += value * panels[w + 3];
    e += value * panels[w + 4];
    f += value * panels[w + 5];
    g += value * panels[w + 6];
    h += value * panels[w + 7];
  }
  return [a, b, c, d, e, f, g, h];
}

/** Products in WebAssembly; weights stay in its memory, x and the result pass through it. */
class WasmKernels {
  name = "WebAssembly SIMD";

  constructor() {
    this.memory = new WebAssembly.Memory({ initial: 1 });
    this.used = 0;
    const module = new WebAssembly.Module(tileModule());
    this.tiles = new WebAssembly.Instance(module, { env: { memory: this.memory } }).exports;
  }

  static supported() {
    return typeof WebAssembly === "object" && WebAssembly.validate(tileModule());
  }

  /** Address of so many float32 in WebAssembly's memory, which grows as needed. */
  allocate(count) {
    const address = this.used;
    this.used += Math.ceil((4 * count) / 16) * 16;
    const missing = this.used - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE));
    return address;
  }

  store(values) {
    const address = this.allocate(values.length);
    this.view(address, values.length).set(values);
    return address;
  }

  view(address, count) {
    return new Float32Array(this.memory.buffer, address, count);
  }

  /** Room for x and the result of one product; it is used again by the next. */
  room(count) {
    if (!this.desk || this.desk.count < count) this.desk = { address: this.allocate(2 * count), count: 2 * count };
    return this.desk.address;
  }

  linear(weights, bias, inputs, outputs, byInput = false) {
    const panels = this.store(packed(weights, inputs, outputs, byInput));
    const biases = padded(bias, outputs);
    const biasAddress = this.store(biases);
    const width = biases.length;
    return (x) => {
      const rows = x.length / inputs;
      const xAddress = this.room(x.length + rows * width);
      const outAddress = xAddress + 4 * x.length;
      this.view(xAddress, x.length).set(x);
      for (let panel = 0; panel < width; panel += PANEL) {
        const [w, b, out] = [panels + 4 * panel * inputs, biasAddress + 4 * panel, outAddress + 4 * panel];
        this.column(xAddress, w, b, out, 4 * width, inputs, rows);
      }
      return unpadded(this.view(outAddress, rows * width), width, outputs);
    };
  }

  /** One panel times all rows of x: four at a time, the rest one by one. All but `inputs` and `rows` are in bytes. */
  column(x, w, bias, out, outStride, inputs, rows) {
    let row = 0;
    const { one, four } = this.tiles;
    for (; row + TILE <= rows; row += TILE) four(x + 4 * row * inputs, w, bias, out + row * outStride, outStride, inputs);
    for (; row < rows; row += 1) one(x + 4 * row * inputs, w, bias, out + row * outStride, outStride, inputs);
  }
}

const bestKernels = () => (WasmKernels.supported() ? new WasmKernels() : new ScriptKernels());

// ---- the WebAssembly module, assembled here: two functions, `one` and `four`, named for their rows of x ----

const I32 = 0x7f;
const V128 = 0x7b;
const NOTHING = 0x40; // type of a block without a result
const END = 0x0b;

const get = (local) => [0x20, local];
const set = (local) => [0x21, local];
const i32 = (value) => [0x41, ...signed(value)];
const i32Add = 0x6a;
const i32Multiply = 0x6c;
const i32Less = 0x49; // unsigned
const i32And = 0x71;
const simd = (code) => [0xfd, ...unsigned(code)];
const loadVector = (offset) => [...simd(0), 2, ...unsigned(offset)]; // 2: addresses are multiples of 2 ** 2
const loadSplat = (offset) => [...simd(9), 2, ...unsigned(offset)]; // one float32 into all four lanes
const storeVector = (offset) => [...simd(11), 2, ...unsigned(offset)];
const addVectors = simd(228);
const multiplyVectors = simd(230);
const advance = (local, bytes) => [...get(local), ...i32(bytes), i32Add, ...set(local)];
/** The body, again and again while the condition holds. */
const loopWhile = (condition, body) => [
  0x02, NOTHING, 0x03, NOTHING, ...condition, 0x45, 0x0d, 1, ...body, 0x0c, 0, END, END,
]; // block, loop, if zero leave the block, ..., go on with the loop

/** LEB128, as WebAssembly writes its integers. */
function unsigned(value) {
  return value < 128 ? [value] : [(value % 128) + 128, ...unsigned(Math.floor(value / 128))];
}

function signed(value) {
  const rest = value >> 7;
  const done = (rest === 0 && !(value & 64)) || (rest === -1 && value & 64);
  return done ? [value & 127] : [(value & 127) | 128, ...signed(rest)];
}

const sized = (bytes) => [...unsigned(bytes.length), ...bytes];
const list = (items) => [...unsigned(items.length), ...items.flat()];
const text = (word) => sized([...new TextEncoder().encode(word)]);
const section = (id, items) => [id, ...sized(list(items))];

function tileModule() {
  const parameters = Array(6).fill(I32);
  return new Uint8Array([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    ...section(1, [[0x60, ...list(parameters), 0]]), // one type: six integers to nothing
    ...section(2, [[...text("env"), ...text("memory"), 2, 0, 1]]), // a memory of at least one page
    ...section(3, [0, 0]), // two functions of type 0
    ...section(7, [[...text("one"), 0, 0], [...text("four"), 0, 1]]),
    ...section(10, [sized(tileFunction(1)), sized(tileFunction(TILE))]),
  ]);
}

/** (x, w, bias, out, outStride, inputs): one panel times `rows` rows of x, which lie one behind the other. */
function tileFunction(rows) {
  const [x, w, bias, out, outStride, inputs, end] = [0, 1, 2, 3, 4, 5, 6];
  const each = (make) => Array.from({ length: rows }, (_, row) => make(row)).flat();
  const rowX = (row) => (row === 0 ? x : end + row); // pointers to the rows after the first
  const firstVector = end + rows;
  const [left, right, value] = [firstVector, firstVector + 1, firstVector + 2];
  const sum = (row, half) => firstVector + 3 + 2 * row + half;
  const step = (i) => [
    ...get(w), ...loadVector(32 * i), ...set(left), ...get(w), ...loadVector(32 * i + 16), ...set(right),
    ...each((row) => [
      ...get(rowX(row)), ...loadSplat(4 * i), ...set(value),
      ...[left, right].flatMap((part, half) => [
        ...get(sum(row, half)), ...get(value), ...get(part), ...multiplyVectors, ...addVectors, ...set(sum(row, half)),
      ]),
    ]),
  ];
  const steps = (count) => [
    ...Array.from({ length: count }, (_, i) => step(i)).flat(),
    ...advance(w, 32 * count), ...each((row) => advance(rowX(row), 4 * count)),
  ];
  const xBytes = [...get(inputs), ...i32(4), i32Multiply];
  const before = [...get(x), ...get(end), i32Less];
  return [
    ...list([[rows, I32], [3 + 2 * rows, V128]]), // locals: end and pointers, vectors
    ...each((row) => (row ? [...get(rowX(row - 1)), ...xBytes, i32Add, ...set(rowX(row))] : [])),
    ...each((row) => [0, 1].flatMap((half) => [...get(bias), ...loadVector(16 * half), ...set(sum(row, half))])),
    ...get(x), ...get(inputs), ...i32(-4), i32And, ...i32(4), i32Multiply, i32Add, ...set(end), // four inputs at a time
    ...loopWhile(before, steps(4)),
    ...get(end), ...get(inputs), ...i32(3), i32And, ...i32(4), i32Multiply, i32Add, ...set(end), // the rest
    ...loopWhile(before, steps(1)),
    ...each((row) => [
      ...[0, 1].flatMap((half) => [...get(out), ...get(sum(row, half)), ...storeVector(16 * half)]),
      ...get(out), ...get(outStride), i32Add, ...set(out),
    ]),
    END,
  ];
}
