// How numbers and pictures come out of what packing.py stored in the page.

const NONE = 65535; // in arrays of positions: no picture, no name, no class
const ARRAY_TYPES = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array };

async function inflate(block) {
  const stream = new Blob([block]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** {name: typed array}, each with its `width`: the number of items of one feature. */
async function unpack(manifest, block) {
  const buffer = await inflate(block);
  const arrays = {};
  for (const [name, { dtype, shape, offset }] of Object.entries(manifest)) {
    const count = shape.reduce((product, n) => product * n, 1);
    arrays[name] = new ARRAY_TYPES[dtype](buffer, offset, count);
    arrays[name].width = shape.slice(1).reduce((product, n) => product * n, 1);
    arrays[name].shape = shape;
  }
  return arrays;
}

const row = (array, i) => array.subarray(i * array.width, (i + 1) * array.width);

/** Pictures in sprite sheets; a sheet is decoded when its first picture is drawn. */
class Sprites {
  constructor(layout, bytes) {
    this.layout = layout;
    this.decoded = [];
    let start = 0;
    this.blobs = layout.lengths.map((length) => {
      const part = new Uint8Array(bytes.buffer, bytes.byteOffset + start, length);
      start += length;
      return new Blob([part], { type: "image/webp" });
    });
  }

  sheet(number) {
    this.decoded[number] ??= createImageBitmap(this.blobs[number]).then((bitmap) => (this.decoded[number] = bitmap));
    return this.decoded[number];
  }

  /** Draws picture `index` over the whole canvas, at once when its sheet is decoded. */
  draw(canvas, index) {
    const { size, columns, per_sheet } = this.layout;
    const place = index % per_sheet;
    const paint = (bitmap) => {
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      const [x, y] = [(place % columns) * size, Math.floor(place / columns) * size];
      context.drawImage(bitmap, x, y, size, size, 0, 0, canvas.width, canvas.height);
    };
    const sheet = this.sheet(Math.floor(index / per_sheet));
    if (sheet instanceof Promise) sheet.then(paint);
    else paint(sheet);
  }
}
