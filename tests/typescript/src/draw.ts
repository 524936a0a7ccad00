/** What a challenge opens: the flip chain, the joint seed and the sample (section 6). */

import { equal, sha256, shake256, tag, u32 } from "./bytes.js";

export const FLIPS = 64;
const WORD_BYTES = 8;
const WORDS = 1n << 64n;

/** `H^steps(value)` of the flip chain. */
export function flipForward(value: Uint8Array, steps: number): Uint8Array {
  let flip = value;
  for (let step = 0; step < steps; step++) flip = sha256(tag("coin.flip.v1"), flip);
  return flip;
}

/** Whether a flip is the link of that index, 1 to 64, of the chain that ends in the anchor. */
export function flipLeads(flip: Uint8Array, index: number, anchor: Uint8Array): boolean {
  return index >= 1 && index <= FLIPS && equal(flipForward(flip, index), anchor);
}

export interface Asked {
  readonly fingerprintsSha256: Uint8Array;
  readonly nonce: Uint8Array;
  readonly round: number;
}

export type Purpose = "coin.challenge.v1" | "coin.whole.v1";

export function jointSeed(purpose: Purpose, asked: Asked, flip: Uint8Array): Uint8Array {
  return sha256(tag(purpose), asked.fingerprintsSha256, asked.nonce, flip, u32(asked.round));
}

/** SHAKE-256 of a seed, read as 64-bit words. */
export class Words {
  readonly #seed: Uint8Array;
  #stream: Buffer;
  #at = 0;

  constructor(seed: Uint8Array) {
    this.#seed = seed;
    this.#stream = Buffer.alloc(0);
  }

  next(): bigint {
    if (this.#at === this.#stream.length) {
      const length = Math.max(1024, 2 * this.#stream.length);
      this.#stream = Buffer.from(shake256(this.#seed, length));
    }
    const word = this.#stream.readBigUInt64BE(this.#at);
    this.#at += WORD_BYTES;
    return word;
  }

  /** An integer below `bound`, each as likely: words past the last whole multiple are skipped. */
  below(bound: bigint): bigint {
    const limit = WORDS - (WORDS % bound);
    let word = this.next();
    while (word >= limit) word = this.next();
    return word % bound;
  }

  /** The first `count` of a shuffle of 0 to `size - 1`; all of them where there are no more. */
  sample(count: number, size: number): number[] {
    const moved = new Map<number, number>();
    const drawn: number[] = [];
    for (let step = 0; step < Math.min(count, size); step++) {
      const other = step + Number(this.below(BigInt(size - step)));
      drawn.push(moved.get(other) ?? other);
      moved.set(other, moved.get(step) ?? step);
    }
    return drawn;
  }
}

/** How many positions of each block are drawn, in runs. */
export interface Runs {
  /** Tokens drawn together, 0 where none are. */
  readonly run: number;
  readonly cells: number;
}

export function runsOf(tokensPerBlock: number, runTokens: number): Runs {
  const run = Math.min(Math.max(runTokens, 1), tokensPerBlock);
  return { run, cells: run === 0 ? 0 : Math.floor(tokensPerBlock / run) };
}

/** Positions of a block of `size` tokens, in the order in which their runs were drawn. */
function positions(words: Words, size: number, { run, cells }: Runs): number[] {
  if (run === 0) return [];
  return words.sample(cells, Math.ceil(size / run)).flatMap((cell) => {
    const first = cell * run;
    const length = Math.min(run, size - first);
    return Array.from({ length }, (_, place) => first + place);
  });
}

export interface Sampling {
  readonly blocks: number;
  readonly tokenBlocks: number;
  readonly tokensPerBlock: number;
}

/** Positions drawn in each block, in order; of token blocks no embedding is opened. */
export interface Draw {
  readonly blocks: ReadonlyMap<number, readonly number[]>;
  readonly tokenBlocks: ReadonlyMap<number, readonly number[]>;
}

/** `sizes` are the token counts of all blocks. */
export function drawSampled(
  seed: Uint8Array,
  asked: Sampling,
  sizes: readonly number[],
  runTokens: number,
): Draw {
  const words = new Words(seed);
  const drawn = words.sample(asked.blocks + asked.tokenBlocks, sizes.length);
  const runs = runsOf(asked.tokensPerBlock, runTokens);
  const placed = drawn.map((block) => [block, positions(words, sizes[block] ?? 0, runs)] as const);
  return {
    blocks: new Map(placed.slice(0, asked.blocks)),
    tokenBlocks: new Map(placed.slice(asked.blocks)),
  };
}

export function drawWhole(seed: Uint8Array, blocks: number, blockCount: number): number[] {
  return new Words(seed).sample(blocks, blockCount);
}
