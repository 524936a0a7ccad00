/** What an audit rests on: signatures checked first, then statements parsed. */

import type { DescMessage, Message, MessageShape } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import type { Timestamp } from "@bufbuild/protobuf/wkt";

import { equal, sha256 } from "./bytes.js";
import { payloadType, signerOf } from "./envelope.js";
import { Failure, MalformedEvidence } from "./failure.js";
import type { Envelope } from "./gen/coin_protocol/v1/envelope_pb.js";
import type { KeySet, PublicKey } from "./gen/coin_protocol/v1/keys_pb.js";
import type {
  AnsweredChallenge,
  Challenge,
  Opening,
  Refusal,
  WholeBlock,
  WholeBlockChallenge,
  WholeBlockOpening,
} from "./gen/coin_protocol/v1/opening_pb.js";
import type { Policy, Profile } from "./gen/coin_protocol/v1/profile_pb.js";
import type { Receipt, Round } from "./gen/coin_protocol/v1/receipt_pb.js";
import type {
  Checkpoint,
  Commitment,
  Fingerprints,
  Manifest,
} from "./gen/coin_protocol/v1/statements_pb.js";
import type { VerificationKey } from "./keys.js";
import { KeyRing } from "./keyset.js";
import {
  CHALLENGE,
  CHECKPOINT,
  COMMITMENT,
  FINGERPRINTS,
  KEY_SET,
  MANIFEST,
  OPENING,
  REFUSAL,
  WHOLE_CHALLENGE,
  WHOLE_OPENING,
  parse,
  type Kind,
  type Statement,
} from "./statements.js";
import { instant, isInstant, length } from "./time.js";

/** Everything that a reader brings to an audit. */
export interface Audit {
  readonly roots: readonly VerificationKey[];
  readonly verifiers: readonly VerificationKey[];
  readonly profile: Profile;
  readonly profileSha256: Uint8Array;
  readonly policy: Policy;
  readonly receipt: Receipt;
  readonly manifest: Envelope | undefined;
  /** Why none came, where it was asked for. */
  readonly noManifest: string | undefined;
  readonly rounds: readonly Round[];
  readonly wholeRounds: readonly Round[];
}

/** A statement of the provider, with the key that signed it and when another clock saw it come. */
export interface Signed<M extends Message> extends Statement<M> {
  readonly listed: PublicKey;
  readonly seenAt: bigint | undefined;
}

/** Who asked: a verifier that is known here, another one, or neither, as far as one can tell. */
export type Asker = "known" | "stranger" | "nobody";

/** A challenge that was answered before, as an opening or a refusal shows it. */
export interface Earlier {
  readonly entry: AnsweredChallenge;
  readonly challenge: Statement<Challenge> | undefined;
  readonly wholeChallenge: Statement<WholeBlockChallenge> | undefined;
  readonly asker: Asker;
}

/** An opening or a refusal. */
export interface Answer<M extends Message> extends Signed<M> {
  readonly earlier: readonly Earlier[];
}

/** A challenge and what came of it; `noAnswer` says why nothing came. */
export interface Played<C extends Message, O extends Message> {
  readonly challenge: Statement<C>;
  readonly sentAt: bigint;
  readonly receivedAt: bigint;
  readonly opening: Answer<O> | undefined;
  readonly refusal: Answer<Refusal> | undefined;
  readonly noAnswer: string | undefined;
}

export interface Evidence {
  readonly audit: Audit;
  readonly keySet: KeySet;
  readonly commitment: Signed<Commitment>;
  readonly checkpoints: readonly Signed<Checkpoint>[];
  readonly manifest: Signed<Manifest> | undefined;
  readonly fingerprints: Signed<Fingerprints> | undefined;
  readonly rounds: readonly Played<Challenge, Opening>[];
  readonly wholeRounds: readonly Played<WholeBlockChallenge, WholeBlockOpening>[];
}

/** Raised inside this module alone, to leave it with the failure. */
class Refused extends Error {
  constructor(readonly failure: Failure) {
    super(failure.detail);
  }
}

/** What was signed, before any of it is parsed. */
interface Sealed<D extends DescMessage> {
  readonly kind: Kind<D>;
  readonly envelope: Envelope;
  readonly listed: PublicKey;
  readonly seenAt: bigint | undefined;
}

function refuse(code: "SIGNATURE" | "STATEMENT", detail: string): never {
  const failure =
    code === "SIGNATURE" ? Failure.ofNobody(code, detail) : Failure.ofProvider(code, detail);
  throw new Refused(failure);
}

function readKeys({ receipt, roots }: Audit): KeyRing {
  const { keySet } = receipt;
  if (keySet === undefined) throw new MalformedEvidence("the receipt holds no key set");
  if (signerOf(keySet, "keyset", roots) === undefined) {
    refuse("SIGNATURE", "no pinned root signed the key set");
  }
  const statement = parse(KEY_SET, keySet.payload);
  return new KeyRing((statement ?? refuse("STATEMENT", "the key set is malformed")).message);
}

/** Throws where no key of the set signed the envelope as a statement of this kind. */
function seal<D extends DescMessage>(
  kind: Kind<D>,
  envelope: Envelope,
  seenAt: bigint | undefined,
  ring: KeyRing,
): Sealed<D> {
  const key = signerOf(envelope, kind.name, ring.keys);
  if (key === undefined) refuse("SIGNATURE", `no key of the key set signed the ${kind.name}`);
  return { kind, envelope, listed: ring.listed(key), seenAt };
}

function open<D extends DescMessage>(sealed: Sealed<D>): Signed<MessageShape<D>> {
  const { kind, envelope, listed, seenAt } = sealed;
  const statement = parse(kind, envelope.payload);
  return { ...(statement ?? refuse("STATEMENT", `the ${kind.name} is malformed`)), listed, seenAt };
}

/** A challenge that a known verifier signed in its own name, to these fingerprints and in time. */
function readChallenge<C extends Challenge | WholeBlockChallenge>(
  kind: Kind<GenMessage<C>>,
  round: Round,
  audit: Audit,
): Statement<C> {
  const { challenge: envelope, sentAt } = round;
  const { fingerprints } = audit.receipt;
  if (envelope === undefined) throw new MalformedEvidence("a round has no challenge");
  const signer = signerOf(envelope, kind.name, audit.verifiers);
  const challenge = parse(kind, envelope.payload);
  if (challenge === undefined || signer?.name !== challenge.message.verifier) {
    throw new MalformedEvidence("a challenge is malformed, or no known verifier's");
  }
  const { deadline, fingerprintsSha256 } = challenge.message;
  if (audit.manifest === undefined || fingerprints === undefined) {
    throw new MalformedEvidence("a challenge without fingerprints or manifest");
  }
  if (!equal(fingerprintsSha256, digest(fingerprints))) {
    throw new MalformedEvidence("a challenge of other fingerprints");
  }
  const given = audit.policy.challengeDeadline;
  const isFair =
    isInstant(sentAt) &&
    isInstant(deadline) &&
    (given === undefined || 2n * (instant(deadline) - instant(sentAt)) >= length(given));
  if (!isFair) throw new MalformedEvidence("a challenge gave too little time");
  return challenge;
}

interface Timed {
  readonly sentAt: Timestamp;
  readonly receivedAt: Timestamp;
}

/** Whether a round has both its times, and one answer or says why there is none. */
export function isRound(round: Round): round is Round & Timed {
  const { opening, refusal, noAnswer, sentAt, receivedAt } = round;
  const answers = [opening, refusal, noAnswer].filter((answer) => answer !== undefined);
  return answers.length === 1 && isInstant(sentAt) && isInstant(receivedAt);
}

/** A round whose challenge was read, and whose answer was not. */
interface Asked<C extends Message> {
  readonly round: Round;
  readonly challenge: Statement<C>;
  readonly sentAt: bigint;
  readonly receivedAt: bigint;
}

function readAsked<C extends Challenge | WholeBlockChallenge>(
  kind: Kind<GenMessage<C>>,
  round: Round,
  audit: Audit,
): Asked<C> {
  if (!isRound(round))
    throw new MalformedEvidence("a round lacks its times, or has not one answer");
  const { sentAt, receivedAt } = round;
  const challenge = readChallenge(kind, round, audit);
  return { round, challenge, sentAt: instant(sentAt), receivedAt: instant(receivedAt) };
}

interface SealedRound<C extends Message, O extends DescMessage> extends Asked<C> {
  readonly opening: Sealed<O> | undefined;
  readonly refusal: Sealed<typeof REFUSAL.schema> | undefined;
}

function sealRound<C extends Message, O extends DescMessage>(
  asked: Asked<C>,
  kind: Kind<O>,
  ring: KeyRing,
): SealedRound<C, O> {
  const { opening, refusal } = asked.round;
  return {
    ...asked,
    opening: opening && seal(kind, opening, asked.receivedAt, ring),
    refusal: refusal && seal(REFUSAL, refusal, asked.receivedAt, ring),
  };
}

function askerOf(
  envelope: Envelope,
  name: "challenge" | "whole-challenge",
  { verifiers }: Audit,
  ring: KeyRing,
): Asker {
  if (signerOf(envelope, name, verifiers) !== undefined) return "known";
  const isProviders = signerOf(envelope, name, ring.keys) !== undefined;
  return envelope.signatures.length > 0 && !isProviders ? "stranger" : "nobody";
}

function readEarlier(entry: AnsweredChallenge, audit: Audit, ring: KeyRing): Earlier {
  const { challenge: envelope } = entry;
  if (envelope === undefined) {
    return { entry, challenge: undefined, wholeChallenge: undefined, asker: "nobody" };
  }
  const isWhole = envelope.payloadType === payloadType("whole-challenge");
  return {
    entry,
    challenge: isWhole ? undefined : parse(CHALLENGE, envelope.payload),
    wholeChallenge: isWhole ? parse(WHOLE_CHALLENGE, envelope.payload) : undefined,
    asker: askerOf(envelope, isWhole ? "whole-challenge" : "challenge", audit, ring),
  };
}

type Showing = Message & { readonly answered: readonly AnsweredChallenge[] };

function openAnswer<M extends Showing>(
  sealed: Sealed<GenMessage<M>>,
  audit: Audit,
  ring: KeyRing,
): Answer<M> {
  const signed = open(sealed);
  const earlier = signed.message.answered.map((entry) => readEarlier(entry, audit, ring));
  return { ...signed, earlier };
}

function openRound<C extends Message, O extends Showing>(
  { challenge, sentAt, receivedAt, round, opening, refusal }: SealedRound<C, GenMessage<O>>,
  audit: Audit,
  ring: KeyRing,
): Played<C, O> {
  return {
    challenge,
    sentAt,
    receivedAt,
    noAnswer: round.noAnswer,
    opening: opening && openAnswer(opening, audit, ring),
    refusal: refusal && openAnswer(refusal, audit, ring),
  };
}

/** What the client wrote down, each with its envelope sealed. */
function sealReceipt({ receipt, manifest }: Audit, ring: KeyRing) {
  const { commitment, fingerprints, answerLastAt } = receipt;
  if (commitment === undefined) throw new MalformedEvidence("the receipt holds no commitment");
  const answered = answerLastAt && instant(answerLastAt);
  const checkpoints = receipt.checkpoints.map(({ checkpoint, seenAt }) => {
    if (checkpoint === undefined || !isInstant(seenAt)) {
      throw new MalformedEvidence("a checkpoint is without its time");
    }
    return seal(CHECKPOINT, checkpoint, instant(seenAt), ring);
  });
  return {
    commitment: seal(COMMITMENT, commitment, answered, ring),
    checkpoints,
    fingerprints: fingerprints && seal(FINGERPRINTS, fingerprints, undefined, ring),
    manifest: manifest && seal(MANIFEST, manifest, undefined, ring),
  };
}

function collect(audit: Audit): Evidence {
  const asked = audit.rounds.map((round) => readAsked(CHALLENGE, round, audit));
  const wholeAsked = audit.wholeRounds.map((round) => readAsked(WHOLE_CHALLENGE, round, audit));
  const ring = readKeys(audit);
  const sealed = sealReceipt(audit, ring);
  const rounds = asked.map((round) => sealRound(round, OPENING, ring));
  const wholeRounds = wholeAsked.map((round) => sealRound(round, WHOLE_OPENING, ring));
  const evidence: Evidence = {
    audit,
    keySet: ring.keySet,
    commitment: open(sealed.commitment),
    fingerprints: sealed.fingerprints && open(sealed.fingerprints),
    checkpoints: sealed.checkpoints.map((checkpoint) => open(checkpoint)),
    manifest: sealed.manifest && open(sealed.manifest),
    rounds: rounds.map((round) => openRound(round, audit, ring)),
    wholeRounds: wholeRounds.map((round) => openRound(round, audit, ring)),
  };
  if (evidence.commitment.message.provider !== ring.keySet.owner) {
    refuse("STATEMENT", "the key set is another provider's than the commitment names");
  }
  return evidence;
}

/** The evidence of an audit, or the failure of `SIGNATURE` or `STATEMENT`. */
export function readEvidence(audit: Audit): Evidence | Failure {
  try {
    return collect(audit);
  } catch (error) {
    if (error instanceof Refused) return error.failure;
    throw error;
  }
}

export function digest(envelope: Envelope): Uint8Array {
  return sha256(envelope.payload);
}

export function wholeBlocks({ wholeRounds }: Evidence): WholeBlock[] {
  return wholeRounds.flatMap(({ opening }) => opening?.message.blocks ?? []);
}
