// Whole models, deltas and compressed artifacts in JavaScript (Node): a reference for docs/artifacts.md.
// Bases of F32 and F64; every refusal is an exception.

"use strict";

const { createHash } = require("node:crypto");
const zlib = require("node:zlib");

const READ = {
  F64: [8, (view, at) => view.getFloat64(at, true)],
  F32: [4, (view, at) => view.getFloat32(at, true)],
  F16: [2, (view, at) => half(view.getUint16(at, true))],
  U64: [8, (view, at) => Number(view.getBigUint64(at, true))],
  U32: [4, (view, at) => view.getUint32(at, true)],
  U16: [2, (view, at) => view.getUint16(at, true)],
  U8: [1, (view, at) => view.getUint8(at)],
  I8: [1, (view, at) => view.getInt8(at)],
};
const ROUND = { F32: Math.fround, F64: (x) => x };

function half(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

function demand(condition, message) {
  if (!condition) throw new Error(message);
}

// {metadata, tensors: {name: {dtype, shape, numbers}}} of a safetensors file in a Buffer.
function read(body) {
  demand(body.length >= 8, "cut off");
  const start = 8 + Number(body.readBigUInt64LE(0));
  demand(start <= body.length && body[8] === 0x7b, "no header");
  const { __metadata__: metadata = {}, ...header } = JSON.parse(body.toString("utf8", 8, start));
  const data = new DataView(body.buffer, body.byteOffset + start, body.length - start);
  const tensors = {};
  let at = 0;
  const entries = Object.entries(header).sort(([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0]);
  for (const [name, { dtype, shape, data_offsets: [first, last] }] of entries) {
    demand(Object.hasOwn(READ, dtype), `type ${dtype}`);
    const [width, get] = READ[dtype];
    const count = shape.reduce((product, side) => product * side, 1);
    demand(first === at && last - first === count * width && last <= data.byteLength, `the bytes of ${name}`);
    tensors[name] = { dtype, shape, numbers: Array.from({ length: count }, (_, i) => get(data, first + i * width)) };
    at = last;
  }
  demand(at === data.byteLength, "bytes of no tensor");
  return { metadata, tensors };
}

// The tensors that a delta makes of its base; both are Buffers.
function apply(body, baseBody) {
  const { metadata, tensors: parts } = read(body);
  const base = read(baseBody).tensors;
  demand(metadata["blackopt.base"] === createHash("sha256").update(baseBody).digest("hex"), "another base");
  const made = { ...base };
  for (const [name, shape] of Object.entries(JSON.parse(metadata["blackopt.shapes"]))) {
    demand(Object.hasOwn(base, name) && String(base[name].shape) === String(shape), `the shape of ${name}`);
    const { dtype, numbers } = base[name];
    const part = (kind) => {
      demand(Object.hasOwn(parts, `${kind}/${name}`), `no ${kind} of ${name}`);
      const found = parts[`${kind}/${name}`];
      delete parts[`${kind}/${name}`];
      demand(found.numbers.every(Number.isFinite), `${kind} of ${name} are not finite`);
      return found;
    };
    const result = numbers.slice();
    const values = part("values");
    if (metadata["blackopt.format"] === "sparse/1") {
      const gaps = part("gaps").numbers;
      demand(values.dtype === dtype && gaps.length === values.numbers.length, `the values of ${name}`);
      let place = 0;
      gaps.forEach((gap, i) => {
        place += gap;
        demand((gap > 0 || i === 0) && place < numbers.length, `the places of ${name}`);
        result[place] = values.numbers[i];
      });
    } else {
      const scales = part("scales").numbers;
      const blocks = metadata["blackopt.format"] === "int8/1";
      demand(blocks || metadata["blackopt.format"] === "float16/1", `format ${metadata["blackopt.format"]}`);
      demand(values.dtype === (blocks ? "I8" : "F16") && values.numbers.length === numbers.length, `values of ${name}`);
      const block = blocks ? Number(metadata["blackopt.block"]) : Math.max(1, numbers.length);
      demand(scales.length === Math.ceil(numbers.length / block) && scales.every((s) => s >= 0), `scales of ${name}`);
      for (let i = 0; i < numbers.length; i++) {
        const change = values.numbers[i] * scales[Math.floor(i / block)];
        result[i] = ROUND[dtype](numbers[i] + change);
      }
    }
    demand(result.every(Number.isFinite), `${name} is not finite`);
    made[name] = { dtype, shape, numbers: result };
  }
  demand(Object.keys(parts).length === 0, "parts of no tensor");
  return made;
}

// What is inside, with zlib; at most `most` bytes.
function expand(body, most) {
  if (body.toString("latin1", 0, 4) !== "BOZ1") {
    demand(body.length <= most, "too large");
    return body;
  }
  demand(body.length >= 16 && body[4] === 1 && body.readUIntBE(5, 3) === 0, "another codec");
  const size = Number(body.readBigUInt64LE(8));
  demand(size <= most, "too large");
  const { buffer, engine } = zlib.inflateSync(body.subarray(16), { maxOutputLength: Math.max(1, size), info: true });
  demand(buffer.length === size && engine.bytesWritten === body.length - 16, "another size");
  return buffer;
}

module.exports = { read, apply, expand };
