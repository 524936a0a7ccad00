/** Whether a bundle's evidence bears out its verdict (sections 2, 7 and 8). */

import { equal } from "./bytes.js";
import { exposed, isEmbedded } from "./checks/openings.js";
import { decide, type Decision } from "./decide.js";
import { signerOf } from "./envelope.js";
import { ProtocolError, orRefuse, ensure } from "./errors.js";
import { digest, wholeBlocks, type Audit, type Evidence } from "./evidence.js";
import type { Exposed } from "./exposure.js";
import { CODES, Failure, MalformedEvidence, type Code } from "./failure.js";
import type { Envelope } from "./gen/coin_protocol/v1/envelope_pb.js";
import {
  CheckStatus,
  Fault,
  Outcome,
  Tier,
  type Bundle,
  type Verdict,
} from "./gen/coin_protocol/v1/receipt_pb.js";
import type { VerificationKey } from "./keys.js";
import type { Models } from "./models.js";
import { VERDICT, parse } from "./statements.js";

/** What a reader brings to a bundle, besides the models. */
export type Trust = Pick<Audit, "roots" | "verifiers" | "profile" | "profileSha256" | "policy"> & {
  readonly policySha256: Uint8Array;
};

export interface BorneOut {
  readonly decision: Decision;
  readonly verdict: Verdict;
  /** Checks that were believed, for want of models. */
  readonly unchecked: readonly Code[];
}

function openVerdict(
  envelope: Envelope | undefined,
  verifiers: readonly VerificationKey[],
): Verdict {
  const shown = orRefuse(envelope, "InvalidInputError", "the bundle has no verdict");
  const signer = signerOf(shown, "verdict", verifiers);
  const { name } = orRefuse(signer, "SignatureError", "no known verifier signed the verdict");
  const statement = parse(VERDICT, shown.payload);
  const { message } = orRefuse(statement, "StatementError", "the verdict is malformed");
  const isOwn = message.verifier === name;
  ensure(isOwn, "VerificationError", "the verdict is in another verifier's name");
  return message;
}

const WITH_MODELS: readonly Code[] = ["WHOLE_TEXT", "WHOLE_EMBEDDING"];

/** Models that say what the verdict says. */
function believed({ checks }: Verdict): Models {
  const says = (code: Code) => (): Failure | undefined => {
    const failed = checks.some((check) => {
      return check.code === code && check.status === CheckStatus.FAILED;
    });
    return failed ? Failure.ofProvider(code, "the verdict says so") : undefined;
  };
  return { wholeText: says("WHOLE_TEXT"), wholeEmbedding: says("WHOLE_EMBEDDING") };
}

function decided(audit: Audit, models: Models): Decision {
  try {
    return decide(audit, models);
  } catch (error) {
    if (!(error instanceof MalformedEvidence)) throw error;
    throw new ProtocolError("InvalidInputError", error.message);
  }
}

function differs(part: string): never {
  const detail = `the evidence does not bear out the verdict's ${part}`;
  throw new ProtocolError("VerificationError", detail, part);
}

function same(holds: boolean, part: string): void {
  if (!holds) differs(part);
}

function isExposure(verdict: Verdict, evidence: Evidence | undefined): boolean {
  const nothing: Exposed = { tokens: 0n, embeddings: 0n, wholeBlocks: 0n };
  const opened = evidence === undefined ? nothing : exposed(evidence);
  const { tokens = 0n, blockEmbeddings = 0n, wholeBlocks: whole = 0n } = verdict.exposure ?? {};
  return (
    tokens === opened.tokens &&
    blockEmbeddings === opened.embeddings &&
    whole === opened.wholeBlocks
  );
}

function areStatuses({ checks }: Verdict, { statuses }: Decision): boolean {
  return (
    checks.length === CODES.length &&
    CODES.every((code, at) => {
      const check = checks[at];
      return check?.code === code && check.status === statuses.get(code);
    })
  );
}

/** Whether no check's failure speaks against an outcome that is the judge's. */
function couldJudge({ outcome, scores }: Verdict, { evidence, tiers }: Decision): boolean {
  const isCommitted = tiers.includes(Tier.COMMITTED);
  if (outcome === Outcome.PASS) return isCommitted;
  if (outcome !== Outcome.FAIL) return true;
  return isCommitted && scores.length > 0 && evidence !== undefined && isEmbedded(evidence);
}

function compare(verdict: Verdict, decision: Decision, commitmentSha256: Uint8Array): void {
  const { evidence, failure, tiers } = decision;
  same(equal(verdict.commitmentSha256, commitmentSha256), "commitment_sha256");
  same(verdict.tier === tiers.at(-1), "tier");
  same(verdict.tiers.join() === tiers.join(), "tiers");
  same(isExposure(verdict, evidence), "exposure");
  const commitment = evidence?.commitment.message;
  same(commitment === undefined || verdict.idSource === commitment.idSource, "id_source");
  same(commitment === undefined || verdict.abortReason === commitment.abortReason, "abort_reason");
  same(areStatuses(verdict, decision), "checks");
  if (failure !== undefined) {
    same(verdict.outcome === failure.outcome, "outcome");
    same(verdict.fault === failure.fault, "fault");
    return;
  }
  same(couldJudge(verdict, decision), "outcome");
  const fault = verdict.outcome === Outcome.FAIL ? Fault.PROVIDER : Fault.UNSPECIFIED;
  same(verdict.fault === fault, "fault");
}

/** Throws unless the evidence bears the verdict out. Without models some of it is believed. */
export function verifyBundle(bundle: Bundle, trust: Trust, models: Models | undefined): BorneOut {
  const verdict = openVerdict(bundle.verdict, trust.verifiers);
  const isUnder =
    equal(verdict.profileSha256, trust.profileSha256) &&
    equal(verdict.policySha256, trust.policySha256);
  ensure(isUnder, "InvalidInputError", "the verdict is under another profile or policy");
  const receipt = orRefuse(bundle.receipt, "InvalidInputError", "the bundle has no receipt");
  const { manifest, noManifest, rounds, wholeRounds } = bundle;
  const audit: Audit = { ...trust, receipt, manifest, noManifest, rounds, wholeRounds };
  const { commitment } = receipt;
  const decision = decided(audit, models ?? believed(verdict));
  const shown = orRefuse(commitment, "InvalidInputError", "the receipt has no commitment");
  compare(verdict, decision, digest(shown));
  const { evidence } = decision;
  const isBelieved =
    models === undefined && evidence !== undefined && wholeBlocks(evidence).length > 0;
  return { decision, verdict, unchecked: isBelieved ? WITH_MODELS : [] };
}
