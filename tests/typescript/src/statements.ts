/** Statements, parsed from the exact bytes that were signed; refused outside their limits. */

import { fromBinary, type DescMessage, type Message, type MessageShape } from "@bufbuild/protobuf";

import { sha256, utf8 } from "./bytes.js";
import type { StatementName } from "./envelope.js";
import { KeySetSchema, type KeySet, type PublicKey } from "./gen/coin_protocol/v1/keys_pb.js";
import {
  ChallengeSchema,
  OpeningSchema,
  RefusalReason,
  RefusalSchema,
  WholeBlockChallengeSchema,
  WholeBlockOpeningSchema,
  type Challenge,
  type Opening,
  type Refusal,
  type WholeBlockChallenge,
  type WholeBlockOpening,
} from "./gen/coin_protocol/v1/opening_pb.js";
import { Outcome, VerdictSchema, type Verdict } from "./gen/coin_protocol/v1/receipt_pb.js";
import {
  AbortReason,
  CheckpointSchema,
  CommitmentSchema,
  FingerprintsSchema,
  IdSource,
  ManifestSchema,
  type Checkpoint,
  type Commitment,
  type Fingerprints,
  type Manifest,
} from "./gen/coin_protocol/v1/statements_pb.js";
import { VerificationKey } from "./keys.js";
import { LEAST_NONCE_BYTES, MOST, MOST_NONCE_BYTES } from "./limits.js";
import { HASH_BYTES } from "./merkle.js";
import { instant, isInstant } from "./time.js";
import { holdsKnownFields } from "./wire.js";

/** A message that was parsed, and the digest of the payload by which it is known. */
export interface Statement<M extends Message> {
  readonly message: M;
  readonly sha256: Uint8Array;
}

export const SESSION_ID_BYTES = 16;
const CHALLENGE_NONCE_BYTES = 32;

/** The message that `payload` spells, or undefined where it spells none of version 1. */
function spelled<D extends DescMessage>(
  schema: D,
  payload: Uint8Array,
): MessageShape<D> | undefined {
  try {
    return holdsKnownFields(schema, payload) ? fromBinary(schema, payload) : undefined;
  } catch {
    return undefined;
  }
}

function isName(text: string): boolean {
  const { length } = utf8(text);
  return length >= 1 && length <= MOST.nameBytes;
}

function isFromTo(value: number | bigint, least: number, most: number): boolean {
  return value >= least && value <= most;
}

function isClientNonce(nonce: Uint8Array): boolean {
  return isFromTo(nonce.length, LEAST_NONCE_BYTES, MOST_NONCE_BYTES);
}

function areDigests(...values: readonly Uint8Array[]): boolean {
  return values.every((value) => value.length === HASH_BYTES);
}

/** The key that a key set lists, or undefined where it is none. */
export function listedKey(listed: PublicKey): VerificationKey | undefined {
  const key = VerificationKey.fromSpki(listed.name, listed.spki);
  return key?.algorithm === listed.algorithm ? key : undefined;
}

function isListed(listed: PublicKey): boolean {
  const { notBefore, notAfter, revokedAt } = listed;
  return (
    listedKey(listed) !== undefined &&
    isInstant(notBefore) &&
    isInstant(notAfter) &&
    instant(notBefore) < instant(notAfter) &&
    (revokedAt === undefined || isInstant(revokedAt))
  );
}

function isKeySet({ owner, keys, issuedAt }: KeySet): boolean {
  if (!isName(owner) || !isInstant(issuedAt) || keys.length > MOST.keys) return false;
  const ids = new Set(keys.map((listed) => listedKey(listed)?.id));
  return ids.size === keys.length && keys.every(isListed);
}

function isCommitment(message: Commitment): boolean {
  const digests = [message.profileSha256, message.requestSha256, message.answerSha256];
  if (message.summarySha256 !== undefined) digests.push(message.summarySha256);
  return (
    areDigests(...digests, message.tokenRoot, message.flipAnchor) &&
    isName(message.provider) &&
    isName(message.model) &&
    message.sessionId.length === SESSION_ID_BYTES &&
    isClientNonce(message.clientNonce) &&
    isFromTo(message.blockCount, 0, MOST.blocks) &&
    isFromTo(message.reasoningTokens, 0, MOST.tokens) &&
    isFromTo(message.answerTokens, 0, MOST.tokens) &&
    message.idSource !== IdSource.UNSPECIFIED &&
    message.idSource in IdSource &&
    message.usage !== undefined &&
    message.abortReason in AbortReason &&
    isInstant(message.startedAt) &&
    isInstant(message.endedAt) &&
    (message.answersUntil === undefined || isInstant(message.answersUntil))
  );
}

function isCheckpoint(message: Checkpoint): boolean {
  return (
    areDigests(message.profileSha256, message.tokenRoot) &&
    message.sessionId.length === SESSION_ID_BYTES &&
    isClientNonce(message.clientNonce) &&
    isFromTo(message.blockCount, 1, MOST.blocks) &&
    isFromTo(message.tokenCount, 1, MOST.tokens) &&
    isInstant(message.providerTime)
  );
}

function isFingerprints(message: Fingerprints): boolean {
  return (
    areDigests(message.commitmentSha256, message.fingerprintRoot) &&
    isFromTo(message.size, 0, MOST.blocks) &&
    isInstant(message.providerTime)
  );
}

function isManifest(message: Manifest): boolean {
  return (
    areDigests(message.commitmentSha256, ...message.blocks.map((block) => block.tokenRoot)) &&
    message.blocks.length <= MOST.blocks &&
    isInstant(message.providerTime)
  );
}

function isAsked(message: Challenge | WholeBlockChallenge): boolean {
  return (
    areDigests(message.fingerprintsSha256) &&
    isName(message.verifier) &&
    message.nonce.length === CHALLENGE_NONCE_BYTES &&
    isFromTo(message.round, 1, MOST.challenges) &&
    isInstant(message.deadline)
  );
}

function isChallenge(message: Challenge): boolean {
  const { blocks, tokenBlocks, tokensPerBlock } = message;
  return (
    isAsked(message) &&
    isFromTo(blocks, 0, MOST.blocks) &&
    isFromTo(tokenBlocks, 0, MOST.blocks) &&
    isFromTo(tokensPerBlock, tokenBlocks > 0 ? 1 : 0, MOST.tokens) &&
    blocks + tokenBlocks > 0
  );
}

function isWholeChallenge(message: WholeBlockChallenge): boolean {
  return isAsked(message) && isFromTo(message.blocks, 1, MOST.blocks);
}

/** What is inside the blocks is held against the trees, where nothing malformed fits. */
function isOpening(message: Opening | WholeBlockOpening): boolean {
  return (
    areDigests(message.challengeSha256, message.flip) &&
    isFromTo(message.flipIndex, 1, MOST.challenges) &&
    isInstant(message.providerTime)
  );
}

function isRefusal(message: Refusal): boolean {
  return (
    areDigests(message.challengeSha256) &&
    message.reason !== RefusalReason.UNSPECIFIED &&
    message.reason in RefusalReason &&
    message.answered.length <= MOST.challenges &&
    isInstant(message.providerTime)
  );
}

function isVerdict(message: Verdict): boolean {
  return (
    areDigests(message.commitmentSha256, message.profileSha256, message.policySha256) &&
    isName(message.verifier) &&
    message.outcome !== Outcome.UNSPECIFIED &&
    message.outcome in Outcome &&
    isInstant(message.decidedAt)
  );
}

/** How one kind of statement is read: its schema, and the limits of version 1. */
export interface Kind<D extends DescMessage> {
  readonly name: StatementName;
  readonly schema: D;
  readonly isWithinLimits: (message: MessageShape<D>) => boolean;
}

function kind<D extends DescMessage>(
  name: StatementName,
  schema: D,
  isWithinLimits: (message: MessageShape<D>) => boolean,
): Kind<D> {
  return { name, schema, isWithinLimits };
}

export const KEY_SET = kind("keyset", KeySetSchema, isKeySet);
export const COMMITMENT = kind("commitment", CommitmentSchema, isCommitment);
export const CHECKPOINT = kind("checkpoint", CheckpointSchema, isCheckpoint);
export const FINGERPRINTS = kind("fingerprints", FingerprintsSchema, isFingerprints);
export const MANIFEST = kind("manifest", ManifestSchema, isManifest);
export const CHALLENGE = kind("challenge", ChallengeSchema, isChallenge);
export const WHOLE_CHALLENGE = kind("whole-challenge", WholeBlockChallengeSchema, isWholeChallenge);
export const OPENING = kind("opening", OpeningSchema, isOpening);
export const WHOLE_OPENING = kind("whole-opening", WholeBlockOpeningSchema, isOpening);
export const REFUSAL = kind("refusal", RefusalSchema, isRefusal);
export const VERDICT = kind("verdict", VerdictSchema, isVerdict);

/** Every kind, by its name. */
export const KINDS: ReadonlyMap<string, Kind<DescMessage>> = new Map(
  [
    KEY_SET,
    COMMITMENT,
    CHECKPOINT,
    FINGERPRINTS,
    MANIFEST,
    CHALLENGE,
    WHOLE_CHALLENGE,
    OPENING,
    WHOLE_OPENING,
    REFUSAL,
    VERDICT,
  ].map((known) => [known.name, known as Kind<DescMessage>]),
);

/** The statement that `payload` makes, or undefined where it keeps not to its limits. */
export function parse<D extends DescMessage>(
  { schema, isWithinLimits }: Kind<D>,
  payload: Uint8Array,
): Statement<MessageShape<D>> | undefined {
  const message = spelled(schema, payload);
  if (message === undefined || !isWithinLimits(message)) return undefined;
  return { message, sha256: sha256(payload) };
}
