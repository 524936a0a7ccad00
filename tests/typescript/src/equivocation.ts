/** Evidence files: two statements that nobody honest signs both (section 11). */

import { equals } from "@bufbuild/protobuf";

import { equal, hex } from "./bytes.js";
import { ProtocolError, orRefuse, ensure } from "./errors.js";
import { signerOf } from "./envelope.js";
import type { Envelope } from "./gen/coin_protocol/v1/envelope_pb.js";
import type {
  CommitmentEquivocation,
  Evidence,
  HeadEquivocation,
} from "./gen/coin_protocol/v1/evidence_pb.js";
import {
  AbortReason,
  CommitmentSchema,
  type Commitment,
} from "./gen/coin_protocol/v1/statements_pb.js";
import { isWithinWindow, openKeySet, type KeyRing } from "./keyset.js";
import type { VerificationKey } from "./keys.js";
import { openHead, type Head, type NoteKey } from "./notes.js";
import { COMMITMENT, parse, type Statement } from "./statements.js";
import { instant } from "./time.js";

export interface Finding {
  readonly kind: "commitments" | "heads";
  /** Who signed both. */
  readonly party: string;
  /** The session's id, or the size of the tree. */
  readonly subject: string;
  readonly first: string;
  readonly second: string;
  /** Keys that signed and were revoked, whenever that was. */
  readonly revoked: readonly string[];
}

/** Whom the reader believes; undefined where nobody said. */
export interface Trust {
  readonly roots: readonly VerificationKey[] | undefined;
  readonly log: NoteKey | undefined;
}

interface Signed extends Statement<Commitment> {
  readonly key: VerificationKey;
}

function openCommitment(envelope: Envelope | undefined, ring: KeyRing): Signed {
  const shown = orRefuse(envelope, "InvalidInputError", "a commitment is missing");
  const signer = signerOf(shown, "commitment", ring.keys);
  const key = orRefuse(signer, "SignatureError", "no key of the key set signed a commitment");
  const statement = parse(COMMITMENT, shown.payload);
  const commitment = orRefuse(statement, "StatementError", "a commitment is malformed");
  const { provider, endedAt } = commitment.message;
  ensure(provider === ring.keySet.owner, "StatementError", "a commitment is another provider's");
  const listed = ring.listed(key);
  const isDated = endedAt !== undefined && isWithinWindow(instant(endedAt), listed);
  ensure(isDated, "KeyWindowError", "a commitment is dated outside its key's window");
  return { ...commitment, key };
}

function startedAlike(first: Commitment, second: Commitment): boolean {
  return (
    equal(first.profileSha256, second.profileSha256) &&
    first.model === second.model &&
    equal(first.clientNonce, second.clientNonce) &&
    equal(first.requestSha256, second.requestSha256) &&
    equal(first.flipAnchor, second.flipAnchor) &&
    first.startedAt?.seconds === second.startedAt?.seconds &&
    first.startedAt?.nanos === second.startedAt?.nanos
  );
}

/** Whether one marks a crash that could have come before what the other says. */
function isCrashBefore(crash: Commitment, other: Commitment): boolean {
  const isSameTree =
    crash.blockCount === other.blockCount &&
    crash.reasoningTokens === other.reasoningTokens &&
    equal(crash.tokenRoot, other.tokenRoot);
  return (
    crash.abortReason === AbortReason.CRASHED &&
    crash.answerTokens === 0n &&
    crash.usage?.promptTokens === 0n &&
    startedAlike(crash, other) &&
    (crash.blockCount < other.blockCount || isSameTree)
  );
}

function verifyCommitments(
  shown: CommitmentEquivocation,
  roots: readonly VerificationKey[] | undefined,
): Finding {
  const pinned = orRefuse(roots, "InvalidInputError", "name the provider's roots");
  const envelope = orRefuse(shown.keySet, "InvalidInputError", "the key set is missing");
  const ring = openKeySet(envelope, pinned);
  const signed = [openCommitment(shown.first, ring), openCommitment(shown.second, ring)] as const;
  const [first, second] = [signed[0].message, signed[1].message];
  const areOfOneSession = equal(first.sessionId, second.sessionId);
  ensure(areOfOneSession, "VerificationError", "two sessions have two commitments");
  const differ = !equals(CommitmentSchema, first, second);
  ensure(differ, "VerificationError", "both say the same");
  const isExplained = isCrashBefore(first, second) || isCrashBefore(second, first);
  ensure(!isExplained, "VerificationError", "a crash explains both");
  const revoked = signed.filter(({ key }) => ring.listed(key).revokedAt !== undefined);
  return {
    kind: "commitments",
    party: ring.keySet.owner,
    subject: hex(first.sessionId),
    first: hex(signed[0].sha256),
    second: hex(signed[1].sha256),
    revoked: [...new Set(revoked.map(({ key }) => key.id))],
  };
}

/** The origin is whatever the heads name: a log's key may bear another name. */
function openShownHead(note: Uint8Array, log: NoteKey): Head {
  try {
    return openHead(note, log, { origin: undefined, witnesses: [], quorum: 0 });
  } catch (error) {
    if (error instanceof ProtocolError && error.code === "LimitError") {
      throw new ProtocolError("StatementError", error.message);
    }
    throw error;
  }
}

function verifyHeads(shown: HeadEquivocation, key: NoteKey | undefined): Finding {
  const log = orRefuse(key, "InvalidInputError", "name the log's key");
  const [first, second] = [openShownHead(shown.first, log), openShownHead(shown.second, log)];
  const areOfOneLog = first.origin === second.origin && first.size === second.size;
  ensure(areOfOneLog, "VerificationError", "the heads are of two logs, or of two sizes");
  const differ = !equal(first.root, second.root);
  ensure(differ, "VerificationError", "both heads have one root");
  return {
    kind: "heads",
    party: first.origin,
    subject: String(first.size),
    first: hex(first.root),
    second: hex(second.root),
    revoked: [],
  };
}

export function verifyEquivocation({ of }: Evidence, trust: Trust): Finding {
  if (of.case === "commitments") return verifyCommitments(of.value, trust.roots);
  if (of.case === "heads") return verifyHeads(of.value, trust.log);
  throw new ProtocolError("InvalidInputError", "the file shows nothing");
}
