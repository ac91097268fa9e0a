// Keyed noise and keyed candidates in JavaScript: a reference for docs/artifacts.md, equal to the last bit.

"use strict";

const WORD = (1n << 64n) - 1n;
const NORMAL = 0;
const SIGN = 1;
const TABLE = 2;

// Philox4x64-10: cipher key (seed, "blackopt"), counter (block, stream, key, kind). All are BigInts.
function philox(seed, block, stream, key, kind) {
  let [k0, k1] = [seed, 0x74706f6b63616c62n];
  let x = [block, stream, key, kind];
  for (let round = 0; round < 10; round++) {
    const first = 0xd2e7470ee14c6c93n * x[0];
    const second = 0xca5a826395121157n * x[2];
    x = [(second >> 64n) ^ x[1] ^ k0, second & WORD, (first >> 64n) ^ x[3] ^ k1, first & WORD];
    k0 = (k0 + 0x9e3779b97f4a7c15n) & WORD;
    k1 = (k1 + 0xbb67ae8584caa73bn) & WORD;
  }
  return x;
}

const horner = (x, coefficients) => coefficients.reduceRight((sum, c) => sum * x + c);

// Every step is exact but the last: p = m 2^e with m from sqrt(1/2) to sqrt(2). Math.log need not be the same everywhere.
function naturalLog(p) {
  let [m, exponent] = [p, 0];
  while (m < 0.7071067811865476) [m, exponent] = [2 * m, exponent - 1];
  const s = (m - 1) / (m + 1);
  return exponent * 0.6931471805599453 + s * horner(s * s, [2, 2 / 3, 2 / 5, 2 / 7, 2 / 9, 2 / 11]);
}

// PPND7 of AS 241 at (half + 1/2) / 2^32.
function normal(half) {
  const q = (half - 2147483647.5) * 2 ** -32;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    const above = horner(r, [3.3871327179, 50.434271938, 159.29113202, 59.10937472]);
    return (above * q) / horner(r, [1, 17.895169469, 78.757757664, 67.1875636]);
  }
  const r = Math.sqrt(-naturalLog(0.5 - Math.abs(q))) - 1.6;
  const above = horner(r, [1.4234372777, 2.75681539, 1.3067284816, 0.17023821103]);
  return (Math.sign(q) * above) / horner(r, [1, 0.7370016425, 0.12021132975]);
}

// Normal number i of a key, or of the table, which is stream 1 of key 0.
function drawn(seed, stream, key, kind, i) {
  const word = philox(seed, i / 8n + 1n, stream, key, kind)[Number(i % 8n) >> 1];
  return normal(Number((word >> (32n * (i & 1n))) & 0xffffffffn));
}

// The nearest number of 12 significant bits, the even one of two that are equally near.
function to12Bits(number) {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, number);
  const bits = view.getBigUint64(0);
  view.setBigUint64(0, ((bits + (1n << 40n) - 1n + ((bits >> 41n) & 1n)) >> 41n) << 41n);
  return view.getFloat64(0);
}

// The number at one position; seed, key and position are BigInts. A real implementation makes the table once.
function noise(seed, key, kind, position) {
  if (kind === NORMAL) return drawn(seed, 0n, key, 0n, position);
  if (kind === SIGN) {
    const word = philox(seed, position / 256n + 1n, 0n, key, 1n)[Number((position / 64n) % 4n)];
    return (word >> (position % 64n)) & 1n ? 1 : -1;
  }
  const block = position >> 14n;
  const word = philox(seed, block / 4n + 1n, 0n, key, 2n)[Number(block % 4n)];
  const number = to12Bits(drawn(seed, 1n, 0n, 2n, (word + (position & 0x3fffn)) & 0x3fffffn));
  return word >> 63n ? number : -number;
}

// What the 24 bytes say; `bytes` is a Uint8Array.
function decode(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length !== 24 || bytes[0] !== 0x4b || bytes[1] >> 1 > TABLE) throw new Error("not a candidate by key");
  const sigma = view.getFloat64(16, true);
  if (!(sigma > 0 && sigma < Infinity)) throw new Error("sigma must be positive and finite");
  return {
    version: view.getUint16(2, true) + view.getUint32(4, true) * 65536,
    key: view.getBigUint64(8, true),
    sign: bytes[1] & 1 ? -1 : 1,
    sigma,
    kind: bytes[1] >> 1,
  };
}

// The candidate's values where the centre, a Float32Array or Float64Array, has these; as a new array of its type.
function perturb(centre, candidate, seed, offset = 0n) {
  const step = candidate.sign * candidate.sigma;
  const moved = (i) => noise(seed, candidate.key, candidate.kind, offset + BigInt(i));
  if (candidate.kind === TABLE && centre instanceof Float32Array) {
    return centre.map((value, i) => value + Math.fround(moved(i) * Math.fround(step)));
  }
  return centre.map((value, i) => value + moved(i) * step);
}

module.exports = { noise, to12Bits, decode, perturb };
