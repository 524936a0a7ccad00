/** Vectors of the coin flip and the draw. */

import { fromBinary } from "@bufbuild/protobuf";

import { hex } from "../bytes.js";
import {
  FLIPS,
  Words,
  drawSampled,
  drawWhole,
  flipForward,
  flipLeads,
  jointSeed,
  type Draw,
} from "../draw.js";
import { ensure } from "../errors.js";
import { ChallengeSchema, WholeBlockChallengeSchema } from "../gen/coin_protocol/v1/opening_pb.js";
import { ShapeError, type Fields, type Json } from "../json.js";
import { HASH_BYTES } from "../merkle.js";

const TAGS = { challenge: "coin.challenge.v1", whole: "coin.whole.v1" } as const;

function flipChain(input: Fields): Json {
  const secret = input.bytes("secret");
  const flips = Array.from({ length: FLIPS }, (_, at) => flipForward(secret, FLIPS - 1 - at));
  return { anchor: hex(flipForward(secret, FLIPS)), flips: flips.map(hex) };
}

function verifyFlip(input: Fields): Json {
  const [flip, index] = [input.bytes("flip"), Number(input.integer("index"))];
  const leads = flip.length === HASH_BYTES && flipLeads(flip, index, input.bytes("anchor"));
  ensure(leads, "VerificationError", "the flip does not lead to the anchor");
  return "ok";
}

function seed(input: Fields): Json {
  const kind = input.text("kind");
  if (kind !== "challenge" && kind !== "whole") throw new ShapeError(`no challenge ${kind}`);
  const asked = {
    fingerprintsSha256: input.bytes("fingerprints_sha256"),
    nonce: input.bytes("nonce"),
    round: input.number("round"),
  };
  return { seed: hex(jointSeed(TAGS[kind], asked, input.bytes("flip"))) };
}

function below(input: Fields): Json {
  const words = new Words(input.bytes("seed"));
  return { values: input.texts("bounds").map((bound) => String(words.below(BigInt(bound)))) };
}

function listed(blocks: Draw["blocks"]): Json {
  return [...blocks].map(([index, positions]) => {
    return { index, positions: [...positions].sort((left, right) => left - right) };
  });
}

function spelled(draw: Draw): Json {
  return { blocks: listed(draw.blocks), token_blocks: listed(draw.tokenBlocks) };
}

function draw(input: Fields): Json {
  const asked = {
    blocks: input.number("blocks"),
    tokenBlocks: input.number("token_blocks"),
    tokensPerBlock: input.number("tokens_per_block"),
  };
  const sizes = input.numbers("token_counts");
  return spelled(drawSampled(input.bytes("seed"), asked, sizes, input.number("run_tokens")));
}

function drawnBy(input: Fields): Json {
  const challenge = fromBinary(ChallengeSchema, input.base64("challenge"));
  const joint = jointSeed(TAGS.challenge, challenge, input.bytes("flip"));
  const sizes = input.numbers("token_counts");
  return spelled(drawSampled(joint, challenge, sizes, input.number("run_tokens")));
}

function drawnWholeBy(input: Fields): Json {
  const challenge = fromBinary(WholeBlockChallengeSchema, input.base64("challenge"));
  const joint = jointSeed(TAGS.whole, challenge, input.bytes("flip"));
  return { blocks: drawWhole(joint, challenge.blocks, input.number("block_count")) };
}

export const DRAWS: Readonly<Record<string, (input: Fields) => Json>> = {
  flip_chain: flipChain,
  verify_flip: verifyFlip,
  seed,
  below,
  draw,
  draw_whole: (input) => {
    const [blocks, count] = [input.number("blocks"), input.number("block_count")];
    return { blocks: drawWhole(input.bytes("seed"), blocks, count) };
  },
  drawn_by: drawnBy,
  drawn_whole_by: drawnWholeBy,
};
