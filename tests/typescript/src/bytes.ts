/** Bytes as the protocol writes them: big endian, tagged, hashed with SHA-256. */

import { createHash } from "node:crypto";

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts);
}

export function equal(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** Throws a TypeError for anything but pairs of hex digits. */
export function unhex(text: string): Uint8Array {
  if (!/^(?:[0-9a-f]{2})*$/i.test(text)) throw new TypeError(`not hex: ${text}`);
  return Buffer.from(text, "hex");
}

/** Throws a TypeError for anything but padded base64 of the standard alphabet. */
export function unbase64(text: string): Uint8Array {
  const bytes = Buffer.from(text, "base64");
  if (bytes.toString("base64") !== text) throw new TypeError(`not base64: ${text}`);
  return bytes;
}

export function utf8(text: string): Uint8Array {
  return Buffer.from(text, "utf8");
}

const STRICT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Throws a TypeError where the bytes are no UTF-8. */
export function strictText(bytes: Uint8Array): string {
  return STRICT.decode(bytes);
}

export function u8(value: number): Uint8Array {
  return Uint8Array.of(value);
}

export function u16(value: number): Uint8Array {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

/** `T(x)`: one length byte, then the ASCII text. */
export function tag(text: string): Uint8Array {
  return concat(u8(text.length), utf8(text));
}

export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

export function shake256(data: Uint8Array, length: number): Uint8Array {
  return createHash("shake256", { outputLength: length }).update(data).digest();
}
