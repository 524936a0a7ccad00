/** What a failed check says, and whom it contradicts (section 8). */

import { Fault, Outcome } from "./gen/coin_protocol/v1/receipt_pb.js";

/** The checks of section 7, in their order. */
export const CODES = [
  "SIGNATURE",
  "STATEMENT",
  "KEY_WINDOW",
  "PROFILE",
  "CLIENT_NONCE",
  "REQUEST_DIGEST",
  "ANSWER_DIGEST",
  "BILL",
  "MANIFEST_ROOT",
  "SIZES",
  "CHECKPOINT_PREFIX",
  "FINGERPRINTS",
  "FLIP",
  "DRAW",
  "OPENING_PRESENT",
  "INCLUSION_PROOF",
  "BLOCK_COUNT",
  "LEAF_REPEATED",
  "TOKEN_ROW",
  "WINDOW_EMBEDDING",
  "WHOLE_LEAVES",
  "WHOLE_TEXT",
  "WHOLE_EMBEDDING",
  "ARRIVAL_TIME",
] as const;

export type Code = (typeof CODES)[number];

export class Failure {
  private constructor(
    readonly code: Code,
    readonly outcome: Outcome,
    readonly fault: Fault,
    readonly detail: string,
  ) {}

  /** Something the provider signed is false, or it did not answer. */
  static ofProvider(code: Code, detail: string): Failure {
    return new Failure(code, Outcome.FAIL, Fault.PROVIDER, detail);
  }

  /** Client and provider disagree, and nothing signed tells who is wrong. */
  static ofNobody(code: Code, detail: string): Failure {
    return new Failure(code, Outcome.FAIL, Fault.UNATTRIBUTED, detail);
  }

  /** Nothing was found out. */
  static undecided(code: Code, detail: string): Failure {
    return new Failure(code, Outcome.INCONCLUSIVE, Fault.UNSPECIFIED, detail);
  }
}

/** What the client or the verifier wrote itself is malformed: nothing is decided. */
export class MalformedEvidence extends Error {
  override readonly name = "MalformedEvidence";
}
