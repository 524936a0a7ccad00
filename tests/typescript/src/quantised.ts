/** `int8-symmetric` vectors: a float32 scale, little endian, then a signed byte an entry. */

const SCALE_BYTES = 4;
const LEAST_NORMAL = 2 ** -126;
const GREATEST = 127;
/** How much more than rounding a norm may be off, for what binary64 loses on the way. */
const SLACK = 1e-6;

export interface Quantised {
  readonly scale: number;
  readonly entries: Int8Array;
}

function isScale(scale: number): boolean {
  return Number.isFinite(scale) && scale >= LEAST_NORMAL;
}

/** The vector that `bytes` encode, or undefined where they are no encoding of this dimension. */
export function decode(bytes: Uint8Array, dimension: number): Quantised | undefined {
  if (bytes.length !== SCALE_BYTES + dimension) return undefined;
  const scale = new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true);
  const entries = Int8Array.from(bytes.subarray(SCALE_BYTES));
  const greatest = entries.reduce((most, entry) => Math.max(most, Math.abs(entry)), 0);
  return isScale(scale) && greatest === GREATEST ? { scale, entries } : undefined;
}

export function numbers({ scale, entries }: Quantised): number[] {
  return Array.from(entries, (entry) => entry * scale);
}

function roundHalfToEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** The encoding of a vector, or undefined where it is zero, not finite or too small for one. */
export function encode(vector: readonly number[]): Uint8Array | undefined {
  const greatest = vector.reduce((most, entry) => Math.max(most, Math.abs(entry)), 0);
  const scale = Math.fround(greatest / GREATEST);
  if (!vector.every(Number.isFinite) || !isScale(scale)) return undefined;
  const bytes = Buffer.alloc(SCALE_BYTES + vector.length);
  bytes.writeFloatLE(scale);
  vector.forEach((entry, at) => bytes.writeInt8(roundHalfToEven(entry / scale), SCALE_BYTES + at));
  return bytes;
}

/** Whether a unit vector could have been rounded to this one: each entry moved half a step. */
export function isOfUnitNorm({ scale, entries }: Quantised): boolean {
  const squares = entries.reduce((sum, entry) => sum + entry * entry, 0);
  const norm = scale * Math.sqrt(squares);
  return Math.abs(norm - 1) <= (scale * Math.sqrt(entries.length)) / 2 + SLACK;
}

/** Whether these are all windows of a block of `tokenCount` tokens, each of norm 1. */
export function areWindows(
  windows: readonly Uint8Array[],
  dimension: number,
  windowTokens: number,
  tokenCount: number,
): boolean {
  return (
    windows.length === Math.ceil(tokenCount / windowTokens) &&
    windows.every((window) => {
      const vector = decode(window, dimension);
      return vector !== undefined && isOfUnitNorm(vector);
    })
  );
}
