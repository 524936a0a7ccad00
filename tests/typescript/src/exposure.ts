/** What challenges have opened of a commitment, and the caps on it (section 6). */

import { runsOf, type Draw, type Sampling } from "./draw.js";
import type { ExposureCaps } from "./gen/coin_protocol/v1/profile_pb.js";

const MILLION = 1_000_000n;

export type Caps = Omit<ExposureCaps, "$typeName" | "$unknown" | "runTokens">;

export interface Exposed {
  readonly tokens: bigint;
  readonly embeddings: bigint;
  readonly wholeBlocks: bigint;
}

function share(ppm: number, of: bigint): bigint {
  return (BigInt(ppm) * of) / MILLION;
}

function greater(left: bigint, right: bigint): bigint {
  return left > right ? left : right;
}

function lesser(left: bigint, right: bigint): bigint {
  return left < right ? left : right;
}

/** The most that may be opened of a commitment of this size; never more than there is. */
export function capsOf(caps: Caps, tokens: bigint, blockCount: number): Exposed {
  const blocks = BigInt(blockCount);
  const whole = caps.wholeBlocksPpm === 0 ? 0n : greater(share(caps.wholeBlocksPpm, blocks), 1n);
  return {
    tokens: lesser(greater(share(caps.tokensPpm, tokens), BigInt(caps.minTokens)), tokens),
    embeddings: lesser(greater(share(caps.blocksPpm, blocks), BigInt(caps.minBlocks)), blocks),
    wholeBlocks: lesser(whole, blocks),
  };
}

/** What has been opened of one commitment, and what may be; nothing is opened twice. */
export class Ledger {
  readonly #tokens = new Set<string>();
  readonly #embeddings = new Set<number>();
  readonly #whole = new Set<number>();

  /** `sizes` are the token counts of all blocks. */
  constructor(
    readonly sizes: readonly number[],
    readonly caps: Caps & { readonly runTokens: number },
  ) {}

  get exposed(): Exposed {
    return {
      tokens: BigInt(this.#tokens.size),
      embeddings: BigInt(this.#embeddings.size),
      wholeBlocks: BigInt(this.#whole.size),
    };
  }

  #open(block: number, positions: readonly number[]): void {
    for (const position of positions) this.#tokens.add(`${block}:${position}`);
  }

  sampled(draw: Draw): void {
    for (const [block, positions] of [...draw.blocks, ...draw.tokenBlocks]) {
      this.#open(block, positions);
    }
    for (const block of draw.blocks.keys()) this.#embeddings.add(block);
    this.#tokens.add(this.#edge);
  }

  whole(blocks: readonly number[]): void {
    for (const block of blocks) this.#whole.add(block);
  }

  /** Whether all of this could be opened besides what is open, and no cap passed. */
  #allows(more: Exposed): boolean {
    const tokens = this.sizes.reduce((sum, size) => sum + BigInt(size), 0n);
    const blocks = BigInt(this.sizes.length);
    const most = capsOf(this.caps, tokens, this.sizes.length);
    const open = this.exposed;
    return (
      lesser(open.tokens + more.tokens, tokens) <= most.tokens &&
      lesser(open.embeddings + more.embeddings, blocks) <= most.embeddings &&
      lesser(open.wholeBlocks + more.wholeBlocks, blocks) <= most.wholeBlocks
    );
  }

  /** Whether a challenge may be answered: by what it could open, as if it were not open already. */
  allowsSampled({ blocks, tokenBlocks, tokensPerBlock }: Sampling): boolean {
    const { run, cells } = runsOf(tokensPerBlock, this.caps.runTokens);
    const drawn = Math.min(blocks + tokenBlocks, this.sizes.length) * run * cells;
    const edge = this.#tokens.has(this.#edge) ? 0 : 1;
    return this.#allows({
      tokens: BigInt(drawn + edge),
      embeddings: BigInt(Math.min(blocks, this.sizes.length)),
      wholeBlocks: 0n,
    });
  }

  allowsWhole(blocks: number): boolean {
    const wholeBlocks = BigInt(Math.min(blocks, this.sizes.length));
    return this.#allows({ tokens: 0n, embeddings: 0n, wholeBlocks });
  }

  /** The last token of all. */
  get #edge(): string {
    return `${this.sizes.length - 1}:${(this.sizes.at(-1) ?? 0) - 1}`;
  }
}
