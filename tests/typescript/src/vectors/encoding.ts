/** Vectors of the bytes that are hashed, and of whole commitments. */

import { hex, tag, unhex } from "../bytes.js";
import { ensure } from "../errors.js";
import type { Fields, Json } from "../json.js";
import {
  blockLeaf,
  fingerprint,
  fingerprintLeaf,
  saltsOf,
  tokenLeaf,
  type TokenPlace,
} from "../leaves.js";
import { leafHash, rootOf } from "../merkle.js";
import { SESSION_ID_BYTES } from "../statements.js";

function hashed(data: Uint8Array): Json {
  return { data: hex(data), leaf_hash: hex(leafHash(data)) };
}

function blockSalts(input: Fields): Json {
  const secret = input.bytes("session_secret");
  const salts = saltsOf(secret, input.number("block"), input.number("tokens"));
  return { block_salt: hex(salts.block), token_salts: salts.tokens.map(hex) };
}

function placed(input: Fields): TokenPlace {
  return {
    sessionId: input.bytes("session_id"),
    block: input.number("block"),
    position: input.number("position"),
  };
}

export const ENCODING: Readonly<Record<string, (input: Fields) => Json>> = {
  tag: (input) => ({ bytes: hex(tag(input.text("name"))) }),
  token_fingerprint: (input) => {
    return { fingerprint: hex(fingerprint(input.number("token_id"), input.bytes("row"))) };
  },
  block_salts: blockSalts,
  token_leaf: (input) => {
    return hashed(tokenLeaf(placed(input), input.bytes("salt"), input.bytes("fingerprint")));
  },
  block_leaf: (input) => {
    const [block, tokens] = [input.number("block"), input.number("tokens")];
    const [session, root] = [input.bytes("session_id"), input.bytes("token_root")];
    return hashed(blockLeaf(session, block, input.integer("first"), tokens, root));
  },
  fingerprint_leaf: (input) => {
    const [session, salt] = [input.bytes("session_id"), input.bytes("block_salt")];
    const windows = input.texts("windows").map(unhex);
    return hashed(fingerprintLeaf(session, input.number("block"), salt, windows));
  },
};

const SECRET_BYTES = 32;

interface Block {
  readonly index: number;
  readonly first: number;
  readonly ids: readonly number[];
}

function cutBlocks(ids: readonly number[], size: number): Block[] {
  return Array.from({ length: Math.ceil(ids.length / size) }, (_, index) => {
    const first = index * size;
    return { index, first, ids: ids.slice(first, first + size) };
  });
}

function commit(input: Fields): Json {
  const [session, secret] = [input.bytes("session_id"), input.bytes("session_secret")];
  const size = input.number("block_size");
  const prints = input.texts("rows").map((row, id) => fingerprint(id, unhex(row)));
  const ids = input.numbers("token_ids");
  const areInputs =
    session.length === SESSION_ID_BYTES &&
    secret.length === SECRET_BYTES &&
    ids.every((id) => prints[id] !== undefined);
  ensure(areInputs, "InvalidInputError", "an id without a row, or no session");
  const windows = input.lists("windows").map((block) => block.map(unhex));
  const blocks = cutBlocks(ids, size).map(({ index, first, ids: own }) => {
    const salts = saltsOf(secret, index, own.length);
    const leaves = own.map((id, position) => {
      const place = { sessionId: session, block: index, position };
      return tokenLeaf(place, salts.tokens[position] ?? secret, prints[id] ?? secret);
    });
    const root = rootOf(leaves);
    return {
      count: own.length,
      root,
      leaf: blockLeaf(session, index, BigInt(first), own.length, root),
      embedding: fingerprintLeaf(session, index, salts.block, windows[index] ?? []),
    };
  });
  const leaves = blocks.map(({ leaf }) => leaf);
  const full = blocks.filter(({ count }) => count === size).length;
  return {
    token_table_root: hex(rootOf(prints)),
    blocks: blocks.map(({ count, root }) => ({ token_count: count, token_root: hex(root) })),
    checkpoints: Array.from({ length: full }, (_, at) => ({
      block_count: at + 1,
      token_count: (at + 1) * size,
      token_root: hex(rootOf(leaves.slice(0, at + 1))),
    })),
    token_root: hex(rootOf(leaves)),
    fingerprint_root: hex(rootOf(blocks.map(({ embedding }) => embedding))),
  };
}

export const COMMITMENTS = { commit };
