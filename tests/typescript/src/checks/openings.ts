/** Checks of what was opened: where it stands in the trees, and what it is. */

import { equal, hex } from "../bytes.js";
import { wholeBlocks, type Evidence } from "../evidence.js";
import type { Exposed } from "../exposure.js";
import { Failure } from "../failure.js";
import type {
  BlockOpening,
  EdgeOpening,
  Opening,
  TokenOpening,
  WholeBlock,
} from "../gen/coin_protocol/v1/opening_pb.js";
import {
  BLOCK_SALT_BYTES,
  cutSalts,
  fingerprint,
  fingerprintLeaf,
  TOKEN_SALT_BYTES,
  tokenLeaf,
} from "../leaves.js";
import { HASH_BYTES, includes, leafHash, rootOf, rootOfHashes } from "../merkle.js";
import { areWindows } from "../quantised.js";
import { blockLeaves } from "./receipt.js";

function openings({ rounds }: Evidence): Opening[] {
  return rounds.flatMap(({ opening }) => (opening === undefined ? [] : [opening.message]));
}

function edges(evidence: Evidence): EdgeOpening[] {
  return openings(evidence).flatMap(({ edge }) => (edge === undefined ? [] : [edge]));
}

function sampledBlocks(evidence: Evidence): BlockOpening[] {
  return openings(evidence).flatMap(({ blocks }) => blocks);
}

interface PlacedToken {
  readonly block: number;
  readonly token: TokenOpening;
}

/** Every token that was opened by itself: drawn ones, and those of the right edge. */
function tokens(evidence: Evidence): PlacedToken[] {
  return openings(evidence).flatMap(({ blocks, tokenBlocks, edge }) => {
    const drawn = [...blocks, ...tokenBlocks].flatMap((block) =>
      block.tokens.map((token) => ({ block: block.blockIndex, token })),
    );
    if (edge?.lastToken === undefined) return drawn;
    return [...drawn, { block: edge.blockIndex, token: edge.lastToken }];
  });
}

function leafOf({ commitment }: Evidence, { block, token }: PlacedToken): Uint8Array {
  const { sessionId } = commitment.message;
  const place = { sessionId, block, position: token.position };
  return leafHash(tokenLeaf(place, token.salt, fingerprint(token.tokenId, token.row)));
}

interface PlacedBlock {
  readonly blockIndex: number;
  readonly blockProof: readonly Uint8Array[];
}

interface Embedded extends PlacedBlock {
  readonly blockSalt: Uint8Array;
  readonly windows: readonly Uint8Array[];
  readonly fingerprintProof: readonly Uint8Array[];
}

function embedded(evidence: Evidence): Embedded[] {
  return [...sampledBlocks(evidence), ...wholeBlocks(evidence)];
}

/** Whether any challenge for samples was answered. */
export function isSampled(evidence: Evidence): boolean {
  return openings(evidence).length > 0;
}

export function isEmbedded(evidence: Evidence): boolean {
  return embedded(evidence).length > 0;
}

/** How much stands open after all that was answered. */
export function exposed(evidence: Evidence): Exposed {
  const places = tokens(evidence).map(({ block, token }) => `${block}:${token.position}`);
  const blocks = sampledBlocks(evidence).map(({ blockIndex }) => blockIndex);
  const whole = wholeBlocks(evidence).map(({ blockIndex }) => blockIndex);
  return {
    tokens: BigInt(new Set(places).size),
    embeddings: BigInt(new Set(blocks).size),
    wholeBlocks: BigInt(new Set(whole).size),
  };
}

export function inclusionProof(evidence: Evidence): Failure | undefined {
  const { commitment, fingerprints, manifest } = evidence;
  const { sessionId, tokenRoot, blockCount } = commitment.message;
  const leaves = blockLeaves(evidence);
  const fail = (detail: string): Failure => Failure.ofProvider("INCLUSION_PROOF", detail);
  const placed: PlacedBlock[] = [...embedded(evidence), ...edges(evidence)];
  for (const { blockIndex, blockProof } of placed) {
    const leaf = leaves[blockIndex];
    const isThere =
      leaf !== undefined &&
      includes(leafHash(leaf), BigInt(blockIndex), BigInt(blockCount), blockProof, tokenRoot);
    if (!isThere) return fail(`block ${blockIndex} is not where the token root puts it`);
  }
  for (const { blockIndex, blockSalt, windows, fingerprintProof } of embedded(evidence)) {
    if (fingerprints === undefined) return fail("no fingerprints are signed");
    if (blockSalt.length !== BLOCK_SALT_BYTES) {
      return fail(`block ${blockIndex} has a salt of ${blockSalt.length} bytes`);
    }
    const { size, fingerprintRoot } = fingerprints.message;
    const leaf = leafHash(fingerprintLeaf(sessionId, blockIndex, blockSalt, windows));
    if (!includes(leaf, BigInt(blockIndex), BigInt(size), fingerprintProof, fingerprintRoot)) {
      return fail(`the embedding of block ${blockIndex} is not the one committed`);
    }
  }
  for (const placedToken of tokens(evidence)) {
    const { block, token } = placedToken;
    if (token.salt.length !== TOKEN_SALT_BYTES) {
      const what = `token ${token.position} of block ${block}`;
      return fail(`${what} has a salt of ${token.salt.length} bytes`);
    }
    const entry = manifest?.message.blocks[block];
    const isThere =
      entry !== undefined &&
      includes(
        leafOf(evidence, placedToken),
        BigInt(token.position),
        BigInt(entry.tokenCount),
        token.proof,
        entry.tokenRoot,
      );
    if (!isThere) return fail(`token ${token.position} of block ${block} is not the one committed`);
  }
  return undefined;
}

function cutHashes(bytes: Uint8Array): Uint8Array[] {
  return Array.from({ length: Math.ceil(bytes.length / HASH_BYTES) }, (_, place) =>
    bytes.subarray(place * HASH_BYTES, (place + 1) * HASH_BYTES),
  );
}

interface Listed {
  readonly blockIndex: number;
  readonly tokenLeafHashes: Uint8Array;
}

function listed(evidence: Evidence): Listed[] {
  return [...sampledBlocks(evidence), ...edges(evidence)];
}

export function blockCount(evidence: Evidence): Failure | undefined {
  for (const { blockIndex, tokenLeafHashes } of listed(evidence)) {
    const entry = evidence.manifest?.message.blocks[blockIndex];
    const hashes = cutHashes(tokenLeafHashes);
    const isWhole =
      entry !== undefined &&
      hashes.length === entry.tokenCount &&
      equal(rootOfHashes(hashes), entry.tokenRoot);
    if (!isWhole) {
      const detail = `block ${blockIndex} has other leaves than it counts tokens`;
      return Failure.ofProvider("BLOCK_COUNT", detail);
    }
  }
  return undefined;
}

export function leafRepeated(evidence: Evidence): Failure | undefined {
  const roots = (evidence.manifest?.message.blocks ?? []).map(({ tokenRoot }) => hex(tokenRoot));
  if (new Set(roots).size < roots.length) {
    return Failure.ofProvider("LEAF_REPEATED", "two blocks share a token root");
  }
  const places = new Map<string, string>();
  const shown = [
    ...listed(evidence).flatMap(({ blockIndex, tokenLeafHashes }) =>
      cutHashes(tokenLeafHashes).map((leaf, position) => ({ leaf, blockIndex, position })),
    ),
    ...tokens(evidence).map((placed) => ({
      leaf: leafOf(evidence, placed),
      blockIndex: placed.block,
      position: placed.token.position,
    })),
    ...wholeBlocks(evidence).flatMap((block) =>
      (wholeLeaves(evidence, block) ?? []).map((data, position) => ({
        leaf: leafHash(data),
        blockIndex: block.blockIndex,
        position,
      })),
    ),
  ];
  for (const { leaf, blockIndex, position } of shown) {
    const place = `${blockIndex}:${position}`;
    if ((places.get(hex(leaf)) ?? place) !== place) {
      return Failure.ofProvider("LEAF_REPEATED", "two leaves have one hash");
    }
    places.set(hex(leaf), place);
  }
  return undefined;
}

/** Whether a fingerprint stands at this id in the profile's token table. */
function isOfTable(
  { audit }: Evidence,
  id: number,
  print: Uint8Array,
  proof: readonly Uint8Array[],
): boolean {
  const { tokenizer } = audit.profile;
  if (tokenizer === undefined) return false;
  const size = BigInt(tokenizer.vocabularySize);
  return includes(leafHash(print), BigInt(id), size, proof, tokenizer.tokenTableRoot);
}

export function tokenRow(evidence: Evidence): Failure | undefined {
  for (const { token } of tokens(evidence)) {
    const print = fingerprint(token.tokenId, token.row);
    if (!isOfTable(evidence, token.tokenId, print, token.tableProof)) {
      const detail = `the row of token id ${token.tokenId} is not the table's`;
      return Failure.ofProvider("TOKEN_ROW", detail);
    }
  }
  return undefined;
}

export function windowEmbedding(evidence: Evidence): Failure | undefined {
  const { embedding } = evidence.audit.profile;
  const fail = (detail: string): Failure => Failure.ofProvider("WINDOW_EMBEDDING", detail);
  for (const { blockIndex, windows } of embedded(evidence)) {
    const count = evidence.manifest?.message.blocks[blockIndex]?.tokenCount;
    if (embedding === undefined || count === undefined) return fail("nothing says what it is");
    const dimension = embedding.projection?.dimension ?? embedding.dimension;
    if (!areWindows(windows, dimension, embedding.windowTokens, count)) {
      return fail(`block ${blockIndex} has not all its windows, or one is no unit vector`);
    }
  }
  return undefined;
}

/** Data of a block's token leaves, or undefined where an id has no full salt or table entry. */
function wholeLeaves({ commitment }: Evidence, block: WholeBlock): Uint8Array[] | undefined {
  const { sessionId } = commitment.message;
  const prints = new Map(block.vocabulary.map((entry) => [entry.tokenId, entry.fingerprint]));
  const salts = cutSalts(block.tokenSalts);
  const leaves = block.tokenIds.map((id, position) => {
    const print = prints.get(id);
    const salt = salts[position];
    if (print === undefined || salt?.length !== TOKEN_SALT_BYTES) return undefined;
    return tokenLeaf({ sessionId, block: block.blockIndex, position }, salt, print);
  });
  return leaves.every((leaf) => leaf !== undefined) ? leaves : undefined;
}

function listsItsIds({ tokenIds, vocabulary }: WholeBlock): boolean {
  const distinct = [...new Set(tokenIds)].sort((left, right) => left - right);
  const shown = vocabulary.map(({ tokenId }) => tokenId);
  return distinct.length === shown.length && distinct.every((id, place) => id === shown[place]);
}

export function wholeLeavesHold(evidence: Evidence): Failure | undefined {
  const fail = (detail: string): Failure => Failure.ofProvider("WHOLE_LEAVES", detail);
  for (const block of wholeBlocks(evidence)) {
    const entry = evidence.manifest?.message.blocks[block.blockIndex];
    const isVocabulary =
      listsItsIds(block) &&
      block.vocabulary.every((id) => isOfTable(evidence, id.tokenId, id.fingerprint, id.proof));
    if (!isVocabulary) {
      return fail(`block ${block.blockIndex} does not show the table's rows of its ids`);
    }
    const leaves = wholeLeaves(evidence, block);
    const isBlock =
      entry !== undefined &&
      leaves !== undefined &&
      leaves.length === entry.tokenCount &&
      equal(rootOf(leaves), entry.tokenRoot);
    if (!isBlock) return fail(`the ids of block ${block.blockIndex} give another token root`);
  }
  return undefined;
}
