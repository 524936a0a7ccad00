/** When checkpoints came: no faster than tokens can be decoded, and whether that proves time. */

import type { Evidence } from "../evidence.js";
import { Failure } from "../failure.js";
import { couldDecode, instant, isInstant } from "../time.js";

export function arrivalTime({ audit, checkpoints, commitment }: Evidence): Failure | undefined {
  const { maxTokensPerSecond } = audit.policy;
  const { sentAt } = audit.receipt;
  const { startedAt } = commitment.message;
  for (const { message, seenAt } of checkpoints) {
    const { providerTime, tokenCount } = message;
    if (providerTime !== undefined && startedAt !== undefined) {
      const taken = instant(providerTime) - instant(startedAt);
      if (!couldDecode(tokenCount, taken, maxTokensPerSecond)) {
        const detail = "by the provider's own dates tokens came faster than they can be decoded";
        return Failure.ofProvider("ARRIVAL_TIME", detail);
      }
    }
    if (seenAt !== undefined && isInstant(sentAt)) {
      const taken = seenAt - instant(sentAt);
      if (!couldDecode(tokenCount, taken, maxTokensPerSecond)) {
        const detail = "by the client's clock tokens came faster than they can be decoded";
        return Failure.ofNobody("ARRIVAL_TIME", detail);
      }
    }
  }
  return undefined;
}

/** Whether the client saw every full block being committed to while the model ran. */
export function isTimed({ audit, checkpoints, commitment }: Evidence): boolean {
  const { blockSize } = audit.profile;
  const { sentAt, answerFirstAt } = audit.receipt;
  const fullBlocks = Number(commitment.message.reasoningTokens / BigInt(blockSize));
  const counts = checkpoints.map(({ message }) => message.blockCount);
  const areAll = counts.length === fullBlocks && counts.every((count, at) => count === at + 1);
  if (fullBlocks === 0 || !areAll || !isInstant(sentAt) || !isInstant(answerFirstAt)) return false;
  const times = checkpoints.flatMap(({ seenAt }) => (seenAt === undefined ? [] : [seenAt]));
  const clock = [instant(sentAt), ...times, instant(answerFirstAt)];
  const isForward = clock.every((time, at) => at === 0 || (clock[at - 1] ?? time) <= time);
  const [first, last] = [times.at(0), times.at(-1)];
  if (!isForward || first === undefined || last === undefined) return false;
  const between = BigInt(fullBlocks - 1) * BigInt(blockSize);
  return couldDecode(between, last - first, audit.policy.maxTokensPerSecond);
}
