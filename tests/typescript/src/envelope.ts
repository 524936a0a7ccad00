/** DSSE envelopes around the protocol's statements. */

import { concat, utf8 } from "./bytes.js";
import type { Envelope } from "./gen/coin_protocol/v1/envelope_pb.js";
import type { VerificationKey } from "./keys.js";
import { MOST } from "./limits.js";

export type StatementName =
  | "keyset"
  | "checkpoint"
  | "commitment"
  | "manifest"
  | "fingerprints"
  | "challenge"
  | "whole-challenge"
  | "opening"
  | "whole-opening"
  | "refusal"
  | "verdict";

export function payloadType(name: StatementName): string {
  return `application/vnd.coin.${name}.v1+protobuf`;
}

/** The bytes that a signature covers. */
export function preAuthenticationEncoding(type: string, payload: Uint8Array): Uint8Array {
  const head = `DSSEv1 ${utf8(type).length} ${type} ${payload.length} `;
  return concat(utf8(head), payload);
}

/** The key that made the first good signature, of those wanted; more than 16 are not read. */
export function signerAmong(
  envelope: Envelope,
  wantedType: string,
  keys: Iterable<VerificationKey>,
): VerificationKey | undefined {
  const { payload, payloadType: type, signatures } = envelope;
  if (type !== wantedType || signatures.length > MOST.signatures) return undefined;
  const signed = preAuthenticationEncoding(type, payload);
  const wanted = new Map([...keys].map((key) => [key.id, key]));
  const good = signatures.find(({ keyid, sig }) => wanted.get(keyid)?.signed(signed, sig));
  return good && wanted.get(good.keyid);
}

/** The key that signed the envelope as a statement of this name. */
export function signerOf(
  envelope: Envelope,
  name: StatementName,
  keys: Iterable<VerificationKey>,
): VerificationKey | undefined {
  return signerAmong(envelope, payloadType(name), keys);
}
