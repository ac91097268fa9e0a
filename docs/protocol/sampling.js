// What a unit is served in a window of candidates by key, in JavaScript (Node): a reference for docs/protocol.md.

"use strict";

const crypto = require("node:crypto");
const { read } = require("./delta.js");
const { decode, perturb } = require("./keyed.js");

function bucket(campaign, salt, unit) {
  const hex = crypto.createHash("sha1").update(`${campaign}.${salt}.${unit}`, "utf8").digest("hex");
  const scaled = (BigInt(`0x${hex.slice(0, 15)}`) * 1000000n) / 0xfffffffffffffffn;
  return Math.min(Number(scaled), 999999);
}

const within = ([lower, upper], at) => lower <= at && at < upper;

// The numbers of a centre's file, tensor by tensor in the order of its metadata; those of a candidate, if one is given.
function numbersOf(body, candidate) {
  const { metadata, tensors } = read(body);
  const [order, still] = [JSON.parse(metadata["blackopt.order"]), JSON.parse(metadata["blackopt.still"])];
  const seed = BigInt(metadata["blackopt.seed"]);
  let offset = 0n; // counted through the tensors that take noise
  return order.flatMap((name) => {
    const centre = Float32Array.from(tensors[name].numbers);
    if (!candidate || still.includes(name)) return [...centre];
    const moved = perturb(centre, candidate, seed, offset);
    offset += BigInt(centre.length);
    return [...moved];
  });
}

// pushes: the bodies of the live arms of one window. centres: the files by version. null: the unit is in no arm.
function serve(pushes, centres, unit) {
  const { campaign, placement } = pushes[0];
  const at = unit === "" ? -1 : bucket(campaign, placement.salt, unit);
  const candidates = pushes.map((push) => decode(Buffer.from(push.artifact.body, "base64")));
  const index = pushes.findIndex((push) => within(push.placement.slice, at));
  if (index >= 0) {
    const { version, key, sign } = candidates[index];
    const values = numbersOf(centres[version], candidates[index]);
    return { arm: pushes[index].arm, version, key: String(key), sign, values };
  }
  if (!within(placement.control, at)) return null;
  return { arm: "control", version: candidates[0].version, key: null, sign: null, values: numbersOf(centres[candidates[0].version]) };
}

module.exports = { serve };
