/** Checks of what the client and the provider hold before anything is opened. */

import type { Timestamp } from "@bufbuild/protobuf/wkt";

import { equal, sha256 } from "../bytes.js";
import type { Evidence } from "../evidence.js";
import { Failure } from "../failure.js";
import type { KeyAlgorithm, PublicKey } from "../gen/coin_protocol/v1/keys_pb.js";
import {
  AbortReason,
  ReasoningCounting,
  type Usage,
} from "../gen/coin_protocol/v1/statements_pb.js";
import { isWithinWindow } from "../keyset.js";
import { blockLeaf } from "../leaves.js";
import { rootOf } from "../merkle.js";
import { instant, length } from "../time.js";

interface Dated {
  readonly listed: PublicKey;
  readonly date: Timestamp | undefined;
  readonly seenAt: bigint | undefined;
}

/** Every statement of the provider, with its date. */
function statements(evidence: Evidence): Dated[] {
  const { commitment, fingerprints, manifest, checkpoints, rounds, wholeRounds } = evidence;
  const all: Dated[] = [{ ...commitment, date: commitment.message.endedAt }];
  const others = [
    ...checkpoints,
    fingerprints,
    manifest,
    ...[...rounds, ...wholeRounds].flatMap(({ opening, refusal }) => [opening, refusal]),
  ];
  for (const signed of others) {
    if (signed !== undefined) all.push({ ...signed, date: signed.message.providerTime });
  }
  return all;
}

export function keyWindow(evidence: Evidence): Failure | undefined {
  const { clockSkew } = evidence.audit.policy;
  const skew = clockSkew === undefined ? 0n : length(clockSkew);
  for (const { listed, date, seenAt } of statements(evidence)) {
    if (date === undefined || !isWithinWindow(instant(date), listed)) {
      return Failure.ofNobody("KEY_WINDOW", "a statement is dated outside its key's window");
    }
    if (seenAt !== undefined && !isWithinWindow(seenAt - skew, listed)) {
      return Failure.ofNobody("KEY_WINDOW", "a statement came outside its key's window");
    }
  }
  return undefined;
}

export function profile(evidence: Evidence): Failure | undefined {
  const { profile: agreed, profileSha256 } = evidence.audit;
  if (!equal(evidence.commitment.message.profileSha256, profileSha256)) {
    return Failure.undecided("PROFILE", "the commitment is made of another profile");
  }
  const allowed = new Set<KeyAlgorithm>(agreed.keyAlgorithms);
  if (statements(evidence).some(({ listed }) => !allowed.has(listed.algorithm))) {
    return Failure.undecided("PROFILE", "a statement is signed with another algorithm");
  }
  return undefined;
}

export function clientNonce({ audit, commitment }: Evidence): Failure | undefined {
  if (equal(audit.receipt.clientNonce, commitment.message.clientNonce)) return undefined;
  return Failure.ofNobody("CLIENT_NONCE", "the commitment carries another nonce");
}

export function requestDigest({ audit, commitment }: Evidence): Failure | undefined {
  if (equal(sha256(audit.receipt.request), commitment.message.requestSha256)) return undefined;
  return Failure.ofNobody("REQUEST_DIGEST", "the commitment is to another request");
}

/** Whether the commitment binds the answer that the client received: not where it hung up. */
export function bindsAnswer({ commitment }: Evidence): boolean {
  const { abortReason } = commitment.message;
  return abortReason !== AbortReason.CLIENT_DISCONNECTED && abortReason !== AbortReason.CRASHED;
}

function isDigestOf(digest: Uint8Array | undefined, bytes: Uint8Array | undefined): boolean {
  if (digest === undefined || bytes === undefined) return digest === bytes;
  return equal(digest, sha256(bytes));
}

export function answerDigest({ audit, commitment }: Evidence): Failure | undefined {
  const { answerSha256, summarySha256 } = commitment.message;
  const { answer, summary } = audit.receipt;
  if (isDigestOf(answerSha256, answer) && isDigestOf(summarySha256, summary)) return undefined;
  return Failure.ofNobody("ANSWER_DIGEST", "the commitment is to another answer or summary");
}

/** A bill, apart from how it came. */
export type Billed = Omit<Usage, "$typeName" | "$unknown">;

/** Everything generated, however it is split. */
function generated(usage: Billed): bigint {
  const beside = usage.reasoningCounting === ReasoningCounting.BESIDE_COMPLETION;
  return usage.completionTokens + (beside ? usage.reasoningTokens : 0n);
}

/** Whether a bill counts what is committed, and its sums are right. */
export function billsWhatIsCommitted(usage: Billed, reasoning: bigint, answer: bigint): boolean {
  return (
    usage.reasoningCounting in ReasoningCounting &&
    usage.reasoningCounting !== ReasoningCounting.UNSPECIFIED &&
    usage.reasoningTokens === reasoning &&
    generated(usage) === reasoning + answer &&
    usage.cachedPromptTokens <= usage.promptTokens
  );
}

/** Whether two bills are for the same, split as each may be. */
export function billsAlike(told: Billed, signed: Billed): boolean {
  return (
    told.promptTokens === signed.promptTokens &&
    told.cachedPromptTokens === signed.cachedPromptTokens &&
    generated(told) === generated(signed)
  );
}

export function bill({ audit, commitment }: Evidence): Failure | undefined {
  const { usage, reasoningTokens, answerTokens } = commitment.message;
  if (usage === undefined || !billsWhatIsCommitted(usage, reasoningTokens, answerTokens)) {
    return Failure.ofProvider("BILL", "the bill counts other tokens than are committed to");
  }
  const { billed } = audit.receipt;
  if (billed !== undefined && !billsAlike(billed, usage)) {
    return Failure.ofNobody("BILL", "the client was told another bill");
  }
  return undefined;
}

/** Data of the block leaves that a manifest gives, in order. */
export function blockLeaves({ commitment, manifest }: Evidence): Uint8Array[] {
  let first = 0n;
  return (manifest?.message.blocks ?? []).map(({ tokenCount, tokenRoot }, block) => {
    const { sessionId } = commitment.message;
    const leaf = blockLeaf(sessionId, block, first, tokenCount, tokenRoot);
    first += BigInt(tokenCount);
    return leaf;
  });
}

export function manifestRoot(evidence: Evidence): Failure | undefined {
  const { commitment, manifest } = evidence;
  if (manifest === undefined) return undefined;
  if (!equal(manifest.message.commitmentSha256, commitment.sha256)) {
    return Failure.ofNobody("MANIFEST_ROOT", "the manifest is another commitment's");
  }
  if (!equal(rootOf(blockLeaves(evidence)), commitment.message.tokenRoot)) {
    return Failure.ofProvider("MANIFEST_ROOT", "the manifest gives another token root");
  }
  return undefined;
}

export function sizes({ audit, commitment, manifest }: Evidence): Failure | undefined {
  if (manifest === undefined) return undefined;
  const counts = manifest.message.blocks.map(({ tokenCount }) => tokenCount);
  const { blockSize } = audit.profile;
  const total = counts.reduce((sum, count) => sum + BigInt(count), 0n);
  const { blockCount, reasoningTokens } = commitment.message;
  if (counts.length !== blockCount || total !== reasoningTokens) {
    return Failure.ofProvider("SIZES", "the blocks do not add up to the signed sizes");
  }
  const areFull = counts.slice(0, -1).every((count) => count === blockSize);
  const last = counts.at(-1);
  if (!areFull || (last !== undefined && (last < 1 || last > blockSize))) {
    return Failure.ofProvider("SIZES", "a block other than the last one is short, or one is empty");
  }
  return undefined;
}

export function checkpointPrefix(evidence: Evidence): Failure | undefined {
  const { audit, checkpoints, commitment, manifest } = evidence;
  const leaves = blockLeaves(evidence);
  const { blockSize } = audit.profile;
  for (const { message } of checkpoints) {
    if (!equal(message.sessionId, commitment.message.sessionId)) {
      return Failure.ofNobody("CHECKPOINT_PREFIX", "a checkpoint is another session's");
    }
    const isOfReply =
      equal(message.profileSha256, commitment.message.profileSha256) &&
      equal(message.clientNonce, commitment.message.clientNonce);
    if (!isOfReply) {
      return Failure.ofProvider("CHECKPOINT_PREFIX", "a checkpoint is of another profile or nonce");
    }
    const isOfFullBlocks =
      message.tokenCount === BigInt(message.blockCount) * BigInt(blockSize) &&
      message.tokenCount <= commitment.message.reasoningTokens;
    if (!isOfFullBlocks) {
      return Failure.ofProvider("CHECKPOINT_PREFIX", "a checkpoint counts other than full blocks");
    }
    if (manifest === undefined) continue;
    if (!equal(rootOf(leaves.slice(0, message.blockCount)), message.tokenRoot)) {
      return Failure.ofProvider("CHECKPOINT_PREFIX", "a checkpoint is no prefix of the final tree");
    }
  }
  return undefined;
}

export function fingerprints({ commitment, fingerprints: made }: Evidence): Failure | undefined {
  if (made === undefined) return undefined;
  if (!equal(made.message.commitmentSha256, commitment.sha256)) {
    return Failure.ofNobody("FINGERPRINTS", "the fingerprints are another commitment's");
  }
  if (made.message.size !== commitment.message.blockCount) {
    return Failure.ofProvider("FINGERPRINTS", "the fingerprints do not cover all blocks");
  }
  return undefined;
}
