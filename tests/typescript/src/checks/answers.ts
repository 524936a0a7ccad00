/** Checks of what came of each challenge: flips, draws, and whether it was answered. */

import { equal, hex } from "../bytes.js";
import { FLIPS, drawSampled, drawWhole, flipLeads, jointSeed, type Draw } from "../draw.js";
import { digest, type Answer, type Earlier, type Evidence, type Played } from "../evidence.js";
import { Ledger } from "../exposure.js";
import { Failure } from "../failure.js";
import type { ExposureCaps } from "../gen/coin_protocol/v1/profile_pb.js";
import {
  RefusalReason,
  type Challenge,
  type Opening,
  type Refusal,
  type TokenOpening,
  type WholeBlockChallenge,
  type WholeBlockOpening,
} from "../gen/coin_protocol/v1/opening_pb.js";
import { instant } from "../time.js";

type Sampled = Played<Challenge, Opening>;
type Whole = Played<WholeBlockChallenge, WholeBlockOpening>;

/** Token counts of all blocks, as the manifest gives them. */
export function sizesOf({ manifest }: Evidence): number[] {
  return (manifest?.message.blocks ?? []).map(({ tokenCount }) => tokenCount);
}

function runTokens({ audit }: Evidence): number {
  return audit.profile.caps?.runTokens ?? 0;
}

type AnyOpening = Opening | WholeBlockOpening;

/** The opening that answers a round's challenge: one to another challenge says nothing of it. */
function openingOf<O extends AnyOpening>(
  round: Played<Challenge | WholeBlockChallenge, O>,
): Answer<O> | undefined {
  const { challenge, opening } = round;
  if (opening === undefined) return undefined;
  return equal(opening.message.challengeSha256, challenge.sha256) ? opening : undefined;
}

function openingsOf({ rounds, wholeRounds }: Evidence): Answer<AnyOpening>[] {
  const all: Played<Challenge | WholeBlockChallenge, AnyOpening>[] = [...rounds, ...wholeRounds];
  return all.flatMap((round) => openingOf(round) ?? []);
}

/** A link of the chain, and the challenge that it was given to. */
interface Given {
  readonly challenge: string;
  readonly index: number;
  readonly flip: Uint8Array;
}

/** What a round shows of the chain: its own link, and those given before. */
function givenIn(round: Played<Challenge | WholeBlockChallenge, AnyOpening>): Given[] {
  const opening = openingOf(round);
  const before = ((opening ?? round.refusal)?.earlier ?? []).map(({ entry }) => ({
    challenge: entry.challenge === undefined ? "" : hex(digest(entry.challenge)),
    index: entry.flipIndex,
    flip: entry.flip,
  }));
  if (opening === undefined) return before;
  const { flipIndex: index, flip: own } = opening.message;
  return [{ challenge: hex(round.challenge.sha256), index, flip: own }, ...before];
}

function given({ rounds, wholeRounds }: Evidence): Given[] {
  return [...rounds, ...wholeRounds].flatMap((round: Sampled | Whole) => givenIn(round));
}

/** Whether a challenge is to these fingerprints; one of another commitment was given nothing. */
function isOfThese({ fingerprints }: Evidence, { challenge, wholeChallenge }: Earlier): boolean {
  const asked = (challenge ?? wholeChallenge)?.message.fingerprintsSha256;
  return asked !== undefined && fingerprints !== undefined && equal(asked, fingerprints.sha256);
}

/** Whether an opening shows what was given every link before its own, in their order. */
function passesOverNone(evidence: Evidence, { earlier, message }: Answer<AnyOpening>): boolean {
  return (
    earlier.length === message.flipIndex - 1 &&
    earlier.every((shown, at) => {
      const isNext = shown.entry.flipIndex === at + 1;
      return isNext && shown.asker !== "nobody" && isOfThese(evidence, shown);
    })
  );
}

export function flip(evidence: Evidence): Failure | undefined {
  const { flipAnchor } = evidence.commitment.message;
  const served = new Map<number, string>();
  const indices = new Map<string, number>();
  for (const { challenge, index, flip: shown } of given(evidence)) {
    if (!flipLeads(shown, index, flipAnchor)) {
      return Failure.ofProvider("FLIP", "a flip does not lead to the anchor");
    }
    if ((served.get(index) ?? challenge) !== challenge) {
      return Failure.ofProvider("FLIP", "a flip served two challenges");
    }
    if ((indices.get(challenge) ?? index) !== index) {
      return Failure.ofProvider("FLIP", "a challenge was given two flips");
    }
    served.set(index, challenge);
    indices.set(challenge, index);
  }
  const openings = openingsOf(evidence);
  if (!openings.every((opening) => passesOverNone(evidence, opening))) {
    return Failure.ofProvider("FLIP", "a link of the chain was passed over");
  }
  const askers = openings.flatMap(({ earlier }) => earlier.map(({ asker }) => asker));
  if (!askers.includes("stranger")) return undefined;
  return Failure.undecided("FLIP", "it is said that strangers asked first");
}

function drawOf(evidence: Evidence, challenge: Challenge, shown: Uint8Array): Draw {
  const seed = jointSeed("coin.challenge.v1", challenge, shown);
  return drawSampled(seed, challenge, sizesOf(evidence), runTokens(evidence));
}

function wholeDrawOf(
  evidence: Evidence,
  challenge: WholeBlockChallenge,
  shown: Uint8Array,
): number[] {
  const seed = jointSeed("coin.whole.v1", challenge, shown);
  return drawWhole(seed, challenge.blocks, sizesOf(evidence).length);
}

function isSubset(opened: readonly number[], drawn: Iterable<number>): boolean {
  const allowed = new Set(drawn);
  return new Set(opened).size === opened.length && opened.every((item) => allowed.has(item));
}

function covers(opened: readonly number[], drawn: Iterable<number>): boolean {
  const shown = new Set(opened);
  return [...drawn].every((item) => shown.has(item));
}

interface Opened {
  readonly blockIndex: number;
  readonly tokens: readonly TokenOpening[];
}

type Compare = (opened: readonly number[], drawn: Iterable<number>) => boolean;

/** Whether blocks, and the positions of each that is there, compare so with those drawn. */
function compares(
  blocks: readonly Opened[],
  drawn: ReadonlyMap<number, readonly number[]>,
  compare: Compare,
): boolean {
  const indices = blocks.map(({ blockIndex }) => blockIndex);
  return (
    compare(indices, drawn.keys()) &&
    blocks.every(({ blockIndex, tokens }) => {
      const positions = tokens.map(({ position }) => position);
      return compare(positions, drawn.get(blockIndex) ?? []);
    })
  );
}

function openingCompares(evidence: Evidence, round: Sampled, compare: Compare): boolean {
  const opening = openingOf(round)?.message;
  if (opening === undefined) return true;
  const drawn = drawOf(evidence, round.challenge.message, opening.flip);
  return (
    compares(opening.blocks, drawn.blocks, compare) &&
    compares(opening.tokenBlocks, drawn.tokenBlocks, compare)
  );
}

function wholeOpeningCompares(evidence: Evidence, round: Whole, compare: Compare): boolean {
  const opening = openingOf(round)?.message;
  if (opening === undefined) return true;
  const drawn = wholeDrawOf(evidence, round.challenge.message, opening.flip);
  const indices = opening.blocks.map(({ blockIndex }) => blockIndex);
  return compare(indices, drawn);
}

function allCompare(evidence: Evidence, compare: Compare): boolean {
  return (
    evidence.rounds.every((round) => openingCompares(evidence, round, compare)) &&
    evidence.wholeRounds.every((round) => wholeOpeningCompares(evidence, round, compare))
  );
}

export function draw(evidence: Evidence): Failure | undefined {
  if (allCompare(evidence, isSubset)) return undefined;
  return Failure.ofProvider("DRAW", "what was opened was not drawn, or twice");
}

/** Why nothing came, where no provider is to blame for it. */
const BLAMELESS = new Set([
  "UNAVAILABLE",
  "PERMISSION_DENIED",
  "UNAUTHENTICATED",
  "RETENTION_ENDED",
]);

function silence(of: "answer" | "manifest", why: string): Failure | undefined {
  if (!BLAMELESS.has(why)) return undefined;
  return Failure.undecided("OPENING_PRESENT", `no ${of} came: ${why}`);
}

/** A date after which the provider owes no answer. */
function isReleased(evidence: Evidence, at: bigint): boolean {
  const { answersUntil } = evidence.commitment.message;
  return answersUntil !== undefined && at > instant(answersUntil);
}

function showsEdge({ opening }: Sampled, sizes: readonly number[]): boolean {
  if (opening === undefined) return true;
  const edge = opening.message.edge;
  const last = (sizes.at(-1) ?? 0) - 1;
  return edge?.blockIndex === sizes.length - 1 && edge.lastToken?.position === last;
}

/** What the listed challenges opened. */
function ledgerOf(evidence: Evidence, caps: ExposureCaps, earlier: readonly Earlier[]): Ledger {
  const ledger = new Ledger(sizesOf(evidence), caps);
  for (const shown of earlier) {
    const { challenge, wholeChallenge, entry } = shown;
    if (!isOfThese(evidence, shown)) continue;
    if (challenge !== undefined) ledger.sampled(drawOf(evidence, challenge.message, entry.flip));
    if (wholeChallenge !== undefined) {
      ledger.whole(wholeDrawOf(evidence, wholeChallenge.message, entry.flip));
    }
  }
  return ledger;
}

/** Whether all that is listed was asked by verifiers, known or not, and each once. */
function areAnswers(earlier: readonly Earlier[]): boolean {
  const challenges = earlier.map(({ challenge, wholeChallenge }) => challenge ?? wholeChallenge);
  const known = challenges.flatMap((asked) => (asked === undefined ? [] : [hex(asked.sha256)]));
  return earlier.every(({ asker }) => asker !== "nobody") && new Set(known).size === earlier.length;
}

/** Whether what a refusal lists shows that answering could have passed a cap. */
function isBorneOut(evidence: Evidence, refusal: Answer<Refusal>, allows: Allows): boolean {
  const { caps } = evidence.audit.profile;
  const { earlier, message } = refusal;
  if (caps === undefined || !areAnswers(earlier)) return false;
  if (message.reason === RefusalReason.FLIPS_USED_UP) return earlier.length >= FLIPS;
  return !allows(ledgerOf(evidence, caps, earlier));
}

/** Whether a challenge may be answered besides what a ledger has open. */
type Allows = (ledger: Ledger) => boolean;

function presence(evidence: Evidence, round: Sampled | Whole, allows: Allows): Failure | undefined {
  const { challenge, opening, refusal, noAnswer, receivedAt, sentAt } = round;
  const { deadline } = challenge.message;
  const fail = (detail: string): Failure => Failure.ofProvider("OPENING_PRESENT", detail);
  const isLate = deadline === undefined || receivedAt > instant(deadline);
  if ((noAnswer !== undefined || isLate) && isReleased(evidence, sentAt)) {
    return Failure.undecided("OPENING_PRESENT", "no answer was owed any more");
  }
  if (noAnswer !== undefined) return silence("answer", noAnswer) ?? fail("no answer came");
  const answer = (opening ?? refusal)?.message.challengeSha256;
  if (answer === undefined || !equal(answer, challenge.sha256)) {
    return fail("the answer is to another challenge");
  }
  if (isLate) return fail("the answer was late");
  if (refusal === undefined || isBorneOut(evidence, refusal, allows)) return undefined;
  return fail("the refusal shows no cap in the way");
}

export function isAsked({ audit, rounds, wholeRounds }: Evidence): boolean {
  return rounds.length + wholeRounds.length > 0 || audit.noManifest !== undefined;
}

export function isGivenFlips(evidence: Evidence): boolean {
  return given(evidence).length > 0;
}

/** Whether anything was opened in answer to what was asked. */
export function isAnswered(evidence: Evidence): boolean {
  return openingsOf(evidence).length > 0;
}

export function openingPresent(evidence: Evidence): Failure | undefined {
  const { noManifest } = evidence.audit;
  if (noManifest !== undefined) {
    const fail = Failure.ofProvider("OPENING_PRESENT", "no manifest came");
    return silence("manifest", noManifest) ?? fail;
  }
  const sizes = sizesOf(evidence);
  for (const round of evidence.rounds) {
    const asked = round.challenge.message;
    const failure = presence(evidence, round, (ledger) => ledger.allowsSampled(asked));
    if (failure !== undefined) return failure;
    if (!openingCompares(evidence, round, covers) || !showsEdge(round, sizes)) {
      return Failure.ofProvider("OPENING_PRESENT", "something that was drawn is not opened");
    }
  }
  for (const round of evidence.wholeRounds) {
    const { blocks } = round.challenge.message;
    const failure = presence(evidence, round, (ledger) => ledger.allowsWhole(blocks));
    if (failure !== undefined) return failure;
    if (!wholeOpeningCompares(evidence, round, covers)) {
      return Failure.ofProvider("OPENING_PRESENT", "a block that was drawn is not opened");
    }
  }
  return undefined;
}
