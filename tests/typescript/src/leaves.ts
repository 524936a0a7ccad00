/** Data of the leaves that a provider commits to (section 4). */

import { concat, sha256, shake256, tag, u32, u64 } from "./bytes.js";

/** `fp[id]`: what the token table holds of one id. */
export function fingerprint(id: number, row: Uint8Array): Uint8Array {
  return sha256(tag("coin.fp.v1"), u32(id), row);
}

export interface TokenPlace {
  readonly sessionId: Uint8Array;
  readonly block: number;
  readonly position: number;
}

export function tokenLeaf(place: TokenPlace, salt: Uint8Array, print: Uint8Array): Uint8Array {
  const { sessionId, block, position } = place;
  return concat(tag("coin.token.v1"), sessionId, u32(block), u32(position), salt, print);
}

/** `first` counts the tokens of all earlier blocks, `count` those of this one. */
export function blockLeaf(
  sessionId: Uint8Array,
  block: number,
  first: bigint,
  count: number,
  tokenRoot: Uint8Array,
): Uint8Array {
  return concat(tag("coin.block.v1"), sessionId, u32(block), u64(first), u32(count), tokenRoot);
}

export function fingerprintLeaf(
  sessionId: Uint8Array,
  block: number,
  salt: Uint8Array,
  windows: readonly Uint8Array[],
): Uint8Array {
  const head = [tag("coin.bemb.v1"), sessionId, u32(block), salt, u32(windows.length)];
  return concat(...head, ...windows);
}

export const BLOCK_SALT_BYTES = 32;
export const TOKEN_SALT_BYTES = 16;

/** Salts of tokens that follow one another; the last one is short where bytes are missing. */
export function cutSalts(bytes: Uint8Array): Uint8Array[] {
  const count = Math.ceil(bytes.length / TOKEN_SALT_BYTES);
  return Array.from({ length: count }, (_, place) => {
    return bytes.subarray(place * TOKEN_SALT_BYTES, (place + 1) * TOKEN_SALT_BYTES);
  });
}

export interface Salts {
  readonly block: Uint8Array;
  readonly tokens: readonly Uint8Array[];
}

/** The salts of a block of `count` tokens: the block's own, then one for each token. */
export function saltsOf(sessionSecret: Uint8Array, block: number, count: number): Salts {
  const stream = shake256(
    concat(tag("coin.salt.v1"), sessionSecret, u32(block)),
    BLOCK_SALT_BYTES + count * TOKEN_SALT_BYTES,
  );
  const tokens = cutSalts(stream.subarray(BLOCK_SALT_BYTES));
  return { block: stream.subarray(0, BLOCK_SALT_BYTES), tokens };
}
