/** Instants and lengths of time, cut to microseconds. */

import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";

const SECOND = 1_000_000n;
const NANOS_IN_MICRO = 1000n;
const NANOS_IN_SECOND = 1_000_000_000;

// 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, the range that protobuf gives timestamps.
const FIRST_SECOND = -62_135_596_800n;
const LAST_SECOND = 253_402_300_799n;

export function isInstant(time: Timestamp | undefined): time is Timestamp {
  return (
    time !== undefined &&
    time.seconds >= FIRST_SECOND &&
    time.seconds <= LAST_SECOND &&
    time.nanos >= 0 &&
    time.nanos < NANOS_IN_SECOND
  );
}

/** Microseconds since 1970. */
export function instant({ seconds, nanos }: Timestamp): bigint {
  return seconds * SECOND + BigInt(nanos) / NANOS_IN_MICRO;
}

/** Microseconds. */
export function length({ seconds, nanos }: Duration): bigint {
  return seconds * SECOND + BigInt(nanos) / NANOS_IN_MICRO;
}

/** Whether `tokens` could be decoded in so many microseconds at a rate in tokens a second. */
export function couldDecode(tokens: bigint, time: bigint, tokensPerSecond: number): boolean {
  return Number(tokens) <= (Number(time) / Number(SECOND)) * tokensPerSecond;
}
