// Rows of a table in a safetensors file (https://github.com/huggingface/safetensors#format).

/** A half-precision number as a double. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The table `name` of a safetensors file: `rows(ids)` are those rows, one after the other. */
export function table(file, name) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  const { dtype, shape, data_offsets: place } = header[name];
  const [count, width = 1] = shape;
  const start = 8 + length + place[0];
  const bytes = { F16: 2, BF16: 2, F32: 4 }[dtype];
  if (!bytes) throw new Error(`${name}: number format ${dtype}; expected F16, BF16 or F32`);
  const read = {
    F16: (at) => half(view.getUint16(at, true)),
    BF16: (at) => {
      scratch.setUint32(0, view.getUint16(at, true) << 16);
      return scratch.getFloat32(0);
    },
    F32: (at) => view.getFloat32(at, true),
  }[dtype];
  const scratch = new DataView(new ArrayBuffer(4));
  return {
    count,
    width,
    rows(ids) {
      const found = new Float32Array(ids.length * width);
      ids.forEach((id, row) => {
        for (let i = 0; i < width; i++) {
          found[row * width + i] = read(start + (id * width + i) * bytes);
        }
      });
      return found;
    },
  };
}
