/** The small models of docs/vectors.md: a tokenizer of 300 ids, an embedding of 16 numbers. */

import { concat, equal, shake256, tag, utf8 } from "./bytes.js";
import { Failure } from "./failure.js";
import { wholeBlocks, type Evidence } from "./evidence.js";
import type { EmbeddingSpec } from "./gen/coin_protocol/v1/profile_pb.js";
import { decode, numbers } from "./quantised.js";

const DIMENSION = 16;
const LETTERS = 26;
const FIRST_PAIR = 256;
const VOCABULARY = 300;
const LETTER_A = 0x61;
const NO_PIECE = 256;
/** The profile's longest input, less the special pieces at both ends. */
const MOST_PIECES = 6;
const MIDDLE = 32_767.5;

/** The bytes of one id, none where it is outside the vocabulary. */
function bytesOf(id: number): Uint8Array {
  if (id < FIRST_PAIR) return Uint8Array.of(id);
  if (id >= VOCABULARY) return Uint8Array.of();
  const pair = id - FIRST_PAIR;
  return Uint8Array.of(LETTER_A + Math.floor(pair / LETTERS), LETTER_A + (pair % LETTERS));
}

const LENIENT = new TextDecoder("utf-8", { ignoreBOM: true });

/** The text of ids: what is no UTF-8 becomes U+FFFD. */
export function spell(ids: readonly number[]): string {
  return LENIENT.decode(concat(...ids.map(bytesOf)));
}

type Vector = readonly number[];

function dot(left: Vector, right: Vector): number {
  return left.reduce((sum, entry, at) => sum + entry * (right[at] ?? 0), 0);
}

function unit(vector: Vector): Vector {
  const norm = Math.sqrt(dot(vector, vector));
  return vector.map((entry) => entry / norm);
}

/** The sum of vectors, each times its weight. */
function weighed(vectors: readonly Vector[], weights: readonly number[]): Vector {
  const length = vectors[0]?.length ?? 0;
  return Array.from({ length }, (_, at) =>
    vectors.reduce((sum, vector, which) => sum + (vector[at] ?? 0) * (weights[which] ?? 0), 0),
  );
}

function pieceVector(piece: number): Vector {
  const stream = Buffer.from(shake256(utf8(`piece ${piece}`), 2 * DIMENSION));
  return Array.from({ length: DIMENSION }, (_, at) => stream.readUInt16BE(2 * at) - MIDDLE);
}

function embedInput(pieces: readonly number[]): Vector {
  const vectors = (pieces.length === 0 ? [NO_PIECE] : pieces).map(pieceVector);
  return unit(
    weighed(
      vectors,
      vectors.map(() => 1),
    ),
  );
}

/** The unit vector of a text, longer ones in parts. */
function embed(text: string): Vector {
  const pieces = [...utf8(text)];
  const count = Math.max(1, Math.ceil(pieces.length / MOST_PIECES));
  const parts = Array.from({ length: count }, (_, part) =>
    pieces.slice(part * MOST_PIECES, (part + 1) * MOST_PIECES),
  );
  return unit(
    weighed(
      parts.map(embedInput),
      parts.map(({ length }) => Math.max(1, length)),
    ),
  );
}

const WORD_BYTES = 8;

/** The seeded Gaussian matrix, its rows one after the other. */
function projectionMatrix(seed: Uint8Array, from: number, to: number): number[] {
  const pairs = Math.ceil((from * to) / 2);
  const stream = Buffer.from(
    shake256(concat(tag("coin.projection.v1"), seed), 2 * WORD_BYTES * pairs),
  );
  const uniform = (word: number): number =>
    (Number(stream.readBigUInt64BE(word * WORD_BYTES)) + 0.5) / 2 ** 64;
  return Array.from({ length: pairs }, (_, pair) => {
    const radius = Math.sqrt(-2 * Math.log(uniform(2 * pair)));
    const angle = 2 * Math.PI * uniform(2 * pair + 1);
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  }).flat();
}

function projected(vector: Vector, { projection }: EmbeddingSpec): Vector {
  if (projection === undefined) return vector;
  const { seed, dimension } = projection;
  const matrix = projectionMatrix(seed, vector.length, dimension);
  const rows = vector.map((_, row) => matrix.slice(row * dimension, (row + 1) * dimension));
  return unit(weighed(rows, vector));
}

function windowsOf(ids: readonly number[], length: number): (readonly number[])[] {
  return Array.from({ length: Math.ceil(ids.length / length) }, (_, window) =>
    ids.slice(window * length, (window + 1) * length),
  );
}

function wholeText(evidence: Evidence): Failure | undefined {
  const wrong = wholeBlocks(evidence).find(
    ({ text, tokenIds }) => !equal(utf8(text), utf8(spell(tokenIds))),
  );
  if (wrong === undefined) return undefined;
  const detail = `the text of block ${wrong.blockIndex} is not what its ids spell`;
  return Failure.ofProvider("WHOLE_TEXT", detail);
}

function wholeEmbedding(evidence: Evidence): Failure | undefined {
  const { policy, profile } = evidence.audit;
  const { embedding } = profile;
  if (embedding === undefined) return undefined;
  const dimension = embedding.projection?.dimension ?? embedding.dimension;
  for (const { blockIndex, tokenIds, windows } of wholeBlocks(evidence)) {
    const computed = windowsOf(tokenIds, embedding.windowTokens).map((ids) =>
      projected(embed(spell(ids)), embedding),
    );
    const areClose = computed.every((vector, at) => {
      const committed = decode(windows[at] ?? Uint8Array.of(), dimension);
      if (committed === undefined) return false;
      return dot(unit(numbers(committed)), vector) >= policy.minRecomputedCosine;
    });
    if (!areClose) {
      const detail = `the embeddings of block ${blockIndex} are not those of its text`;
      return Failure.ofProvider("WHOLE_EMBEDDING", detail);
    }
  }
  return undefined;
}

/** What blocks opened whole are held against. */
export interface Models {
  readonly wholeText: (evidence: Evidence) => Failure | undefined;
  readonly wholeEmbedding: (evidence: Evidence) => Failure | undefined;
}

export const SMALL_MODELS: Models = { wholeText, wholeEmbedding };
