/** Leaves of a verifier's log (section 11). */

import { equal, strictText, tag } from "./bytes.js";
import { ProtocolError, ensure } from "./errors.js";
import { MOST } from "./limits.js";
import { HASH_BYTES } from "./merkle.js";
import { SESSION_ID_BYTES } from "./statements.js";

export type LogLeaf =
  | {
      readonly kind: "commitment";
      readonly provider: string;
      readonly sessionId: Uint8Array;
      readonly commitmentSha256: Uint8Array;
    }
  | {
      readonly kind: "verdict";
      readonly commitmentSha256: Uint8Array;
      readonly verdictSha256: Uint8Array;
    };

const COMMITMENT_TAG = tag("coin.log.commitment.v1");
const VERDICT_TAG = tag("coin.log.verdict.v1");
const LENGTH_BYTES = 2;

function behind(prefix: Uint8Array, data: Uint8Array): Uint8Array | undefined {
  const isTagged = equal(data.subarray(0, prefix.length), prefix);
  return isTagged ? data.subarray(prefix.length) : undefined;
}

function providerName(bytes: Uint8Array): string {
  try {
    return strictText(bytes);
  } catch {
    throw new ProtocolError("StatementError", "the provider's name is no UTF-8");
  }
}

function malformedUnless(holds: boolean): void {
  ensure(holds, "StatementError", "the leaf is malformed");
}

export function readLogLeaf(data: Uint8Array): LogLeaf {
  ensure(data.length <= MOST.logLeafBytes, "LimitError", "the leaf is too long");
  const verdict = behind(VERDICT_TAG, data);
  if (verdict !== undefined) {
    malformedUnless(verdict.length === 2 * HASH_BYTES);
    return {
      kind: "verdict",
      commitmentSha256: verdict.subarray(0, HASH_BYTES),
      verdictSha256: verdict.subarray(HASH_BYTES),
    };
  }
  const commitment = behind(COMMITMENT_TAG, data);
  if (commitment === undefined || commitment.length < LENGTH_BYTES) {
    throw new ProtocolError("StatementError", "the leaf is of no kind that is known");
  }
  const nameEnd = LENGTH_BYTES + Buffer.from(commitment).readUInt16BE();
  const sessionEnd = nameEnd + SESSION_ID_BYTES;
  malformedUnless(nameEnd > LENGTH_BYTES && nameEnd - LENGTH_BYTES <= MOST.nameBytes);
  malformedUnless(commitment.length === sessionEnd + HASH_BYTES);
  return {
    kind: "commitment",
    provider: providerName(commitment.subarray(LENGTH_BYTES, nameEnd)),
    sessionId: commitment.subarray(nameEnd, sessionEnd),
    commitmentSha256: commitment.subarray(sessionEnd),
  };
}
