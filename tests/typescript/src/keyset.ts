/** Key sets: whose keys count, and when. */

import { orRefuse } from "./errors.js";
import { signerOf } from "./envelope.js";
import type { Envelope } from "./gen/coin_protocol/v1/envelope_pb.js";
import type { KeySet, PublicKey } from "./gen/coin_protocol/v1/keys_pb.js";
import type { VerificationKey } from "./keys.js";
import { KEY_SET, listedKey, parse } from "./statements.js";
import { instant, isInstant } from "./time.js";

/** Where a key's window holds. Its end, and its revocation, lie outside. */
export interface Window {
  readonly notBefore?: PublicKey["notBefore"];
  readonly notAfter?: PublicKey["notAfter"];
  readonly revokedAt?: PublicKey["revokedAt"];
}

export function isWithinWindow(time: bigint, { notBefore, notAfter, revokedAt }: Window): boolean {
  if (!isInstant(notBefore) || !isInstant(notAfter)) return false;
  if (revokedAt !== undefined && time >= instant(revokedAt)) return false;
  return instant(notBefore) <= time && time < instant(notAfter);
}

/** A key set that was parsed, with its keys. */
export class KeyRing {
  readonly #listed: ReadonlyMap<VerificationKey, PublicKey>;

  constructor(readonly keySet: KeySet) {
    const pairs = keySet.keys.flatMap((listed): [VerificationKey, PublicKey][] => {
      const key = listedKey(listed);
      return key === undefined ? [] : [[key, listed]];
    });
    this.#listed = new Map(pairs);
  }

  get keys(): VerificationKey[] {
    return [...this.#listed.keys()];
  }

  listed(key: VerificationKey): PublicKey {
    return orRefuse(this.#listed.get(key), "InvalidInputError", "the key is not of this set");
  }
}

export function readKeySet(payload: Uint8Array): KeyRing {
  const statement = parse(KEY_SET, payload);
  const { message } = orRefuse(statement, "StatementError", "the key set is malformed");
  return new KeyRing(message);
}

/** The key set in an envelope that one of the pinned roots signed. */
export function openKeySet(envelope: Envelope, roots: readonly VerificationKey[]): KeyRing {
  const root = signerOf(envelope, "keyset", roots);
  orRefuse(root, "SignatureError", "no pinned root signed the key set");
  return readKeySet(envelope.payload);
}

/** Whether a reader of the older key set may take the newer in its place. */
export function continuesKeySet(older: KeyRing, newer: KeyRing): boolean {
  const ids = new Set(newer.keys.map(({ id }) => id));
  return (
    older.keySet.owner === newer.keySet.owner &&
    older.keySet.sequence < newer.keySet.sequence &&
    older.keys.every(({ id }) => ids.has(id))
  );
}
