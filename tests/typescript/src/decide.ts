/** The deterministic part of a verdict: the checks of section 7 in their order, and the tiers. */

import {
  draw,
  flip,
  isAnswered,
  isAsked,
  isGivenFlips,
  openingPresent,
  sizesOf,
} from "./checks/answers.js";
import { arrivalTime, isTimed } from "./checks/arrival.js";
import {
  blockCount,
  inclusionProof,
  isEmbedded,
  isSampled,
  leafRepeated,
  tokenRow,
  wholeLeavesHold,
  windowEmbedding,
} from "./checks/openings.js";
import {
  answerDigest,
  bill,
  bindsAnswer,
  checkpointPrefix,
  clientNonce,
  fingerprints,
  keyWindow,
  manifestRoot,
  profile,
  requestDigest,
  sizes,
} from "./checks/receipt.js";
import { readEvidence, wholeBlocks, type Audit, type Evidence } from "./evidence.js";
import { CODES, Failure, type Code } from "./failure.js";
import { CheckStatus, Fault, Outcome, Tier } from "./gen/coin_protocol/v1/receipt_pb.js";
import type { Models } from "./models.js";

interface Check {
  readonly code: Code;
  /** Whether there is anything to look at. */
  readonly applies: (evidence: Evidence) => boolean;
  readonly run: (evidence: Evidence) => Failure | undefined;
}

const always = (): boolean => true;
const hasManifest = ({ manifest }: Evidence): boolean => manifest !== undefined;
const hasCheckpoints = ({ checkpoints }: Evidence): boolean => checkpoints.length > 0;
const isWhole = (evidence: Evidence): boolean => wholeBlocks(evidence).length > 0;
const isOpened = (evidence: Evidence): boolean => isSampled(evidence) || isWhole(evidence);

/** `SIGNATURE` and `STATEMENT` come before these: without them there is no evidence to look at. */
function checks({ wholeText, wholeEmbedding }: Models): Check[] {
  return [
    { code: "KEY_WINDOW", applies: always, run: keyWindow },
    { code: "PROFILE", applies: always, run: profile },
    { code: "CLIENT_NONCE", applies: always, run: clientNonce },
    { code: "REQUEST_DIGEST", applies: always, run: requestDigest },
    { code: "ANSWER_DIGEST", applies: bindsAnswer, run: answerDigest },
    { code: "BILL", applies: always, run: bill },
    { code: "MANIFEST_ROOT", applies: hasManifest, run: manifestRoot },
    { code: "SIZES", applies: hasManifest, run: sizes },
    { code: "CHECKPOINT_PREFIX", applies: hasCheckpoints, run: checkpointPrefix },
    {
      code: "FINGERPRINTS",
      applies: (known) => known.fingerprints !== undefined,
      run: fingerprints,
    },
    { code: "FLIP", applies: isGivenFlips, run: flip },
    { code: "DRAW", applies: isAnswered, run: draw },
    { code: "OPENING_PRESENT", applies: isAsked, run: openingPresent },
    { code: "INCLUSION_PROOF", applies: isOpened, run: inclusionProof },
    { code: "BLOCK_COUNT", applies: isSampled, run: blockCount },
    { code: "LEAF_REPEATED", applies: hasManifest, run: leafRepeated },
    { code: "TOKEN_ROW", applies: isSampled, run: tokenRow },
    { code: "WINDOW_EMBEDDING", applies: isEmbedded, run: windowEmbedding },
    { code: "WHOLE_LEAVES", applies: isWhole, run: wholeLeavesHold },
    { code: "WHOLE_TEXT", applies: isWhole, run: wholeText },
    { code: "WHOLE_EMBEDDING", applies: isWhole, run: wholeEmbedding },
    { code: "ARRIVAL_TIME", applies: hasCheckpoints, run: arrivalTime },
  ];
}

/** What all checks say; `evidence` is missing where signatures or statements fail. */
export interface Decision {
  readonly failure: Failure | undefined;
  readonly outcome: Outcome;
  readonly fault: Fault;
  readonly tiers: readonly Tier[];
  /** Of every code, in their order. */
  readonly statuses: ReadonlyMap<Code, CheckStatus>;
  readonly evidence: Evidence | undefined;
}

/** Whether drawn leaves were shown, or the manifest shows that there are none to draw. */
function isCommitted(evidence: Evidence): boolean {
  if (evidence.manifest === undefined) return false;
  return isSampled(evidence) || sizesOf(evidence).length === 0;
}

/** A tier is earned where all checks that it rests on have passed, or had nothing to look at. */
function tiersOf(evidence: Evidence, failure: Failure | undefined): Tier[] {
  const failed = failure === undefined ? CODES.length : CODES.indexOf(failure.code);
  const holds = (code: Code): boolean => CODES.indexOf(code) < failed;
  const tiers = [Tier.ASSERTED];
  if (!isCommitted(evidence) || !holds("WHOLE_LEAVES")) return tiers;
  tiers.push(Tier.COMMITTED);
  if (holds("ARRIVAL_TIME") && isTimed(evidence)) tiers.push(Tier.TIMED);
  if (holds("WHOLE_EMBEDDING") && isWhole(evidence)) tiers.push(Tier.OPENED);
  return tiers;
}

function decided(
  evidence: Evidence | undefined,
  failure: Failure | undefined,
  passed: ReadonlySet<Code>,
): Decision {
  const status = (code: Code): CheckStatus => {
    if (code === failure?.code) return CheckStatus.FAILED;
    return passed.has(code) ? CheckStatus.PASSED : CheckStatus.SKIPPED;
  };
  return {
    failure,
    outcome: failure?.outcome ?? Outcome.UNSPECIFIED,
    fault: failure?.fault ?? Fault.UNSPECIFIED,
    tiers: evidence === undefined ? [Tier.ASSERTED] : tiersOf(evidence, failure),
    statuses: new Map(CODES.map((code) => [code, status(code)])),
    evidence,
  };
}

export function decide(audit: Audit, models: Models): Decision {
  const evidence = readEvidence(audit);
  if (evidence instanceof Failure) {
    const signed: Code[] = evidence.code === "STATEMENT" ? ["SIGNATURE"] : [];
    return decided(undefined, evidence, new Set(signed));
  }
  const passed = new Set<Code>(["SIGNATURE", "STATEMENT"]);
  for (const { code, applies, run } of checks(models)) {
    if (!applies(evidence)) continue;
    const failure = run(evidence);
    if (failure !== undefined) return decided(evidence, failure, passed);
    passed.add(code);
  }
  return decided(evidence, undefined, passed);
}
