/** Keys and their ids (section 5). */

import { createPublicKey, verify, type KeyObject } from "node:crypto";

import { concat, equal, hex, sha256, tag, u16, u8, utf8 } from "./bytes.js";
import { KeyAlgorithm } from "./gen/coin_protocol/v1/keys_pb.js";
import { MOST } from "./limits.js";

/** Root keys sign under this name, whoever's they are. */
export const ROOT = "root";

const FIELD = (1n << 255n) - 19n;
const ORDER_8 = littleEndian("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
const SMALL_ORDER = new Set([0n, 1n, FIELD - 1n, ORDER_8, FIELD - ORDER_8]);
const ED25519_BYTES = 32;

/** DER of a P-256 key (RFC 5480), up to and with the mark of a point that is not compressed. */
const P256_HEAD = Buffer.from("3059301306072a8648ce3d020106082a8648ce3d03010703420004", "hex");

function littleEndian(digits: string): bigint {
  return BigInt(`0x${Buffer.from(digits, "hex").reverse().toString("hex")}`);
}

/** The order of an Ed25519 point follows from its y alone. */
function isOfSmallOrder(spki: Uint8Array): boolean {
  const y = littleEndian(hex(spki.subarray(-ED25519_BYTES))) & ((1n << 255n) - 1n);
  return SMALL_ORDER.has(y % FIELD);
}

function algorithmOf(key: KeyObject): KeyAlgorithm | undefined {
  if (key.asymmetricKeyType === "ed25519") return KeyAlgorithm.ED25519;
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (curve === "prime256v1") return KeyAlgorithm.ECDSA_P256_SHA256;
  return undefined;
}

/** One key has one encoding, or it would have two ids. */
function isCanonical(key: KeyObject, spki: Uint8Array): boolean {
  if (key.asymmetricKeyType === "ec" && !equal(spki.subarray(0, P256_HEAD.length), P256_HEAD)) {
    return false;
  }
  return equal(key.export({ format: "der", type: "spki" }), spki);
}

export class VerificationKey {
  /** Hex. */
  readonly id: string;

  private constructor(
    readonly name: string,
    readonly algorithm: KeyAlgorithm,
    readonly spki: Uint8Array,
    readonly key: KeyObject,
  ) {
    const named = utf8(name);
    const bound = concat(tag("coin.key.v1"), u16(named.length), named, u8(algorithm), spki);
    this.id = hex(sha256(bound));
  }

  /** The key, or undefined where the bytes are none that signatures may be checked with. */
  static fromSpki(name: string, spki: Uint8Array): VerificationKey | undefined {
    const { length } = utf8(name);
    if (length < 1 || length > MOST.nameBytes) return undefined;
    let key: KeyObject;
    try {
      key = createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" });
    } catch {
      return undefined;
    }
    const algorithm = algorithmOf(key);
    if (algorithm === undefined || !isCanonical(key, spki)) return undefined;
    if (algorithm === KeyAlgorithm.ED25519 && isOfSmallOrder(spki)) return undefined;
    return new VerificationKey(name, algorithm, spki, key);
  }

  static fromPem(name: string, pem: string): VerificationKey | undefined {
    try {
      const spki = createPublicKey(pem).export({ format: "der", type: "spki" });
      return VerificationKey.fromSpki(name, spki);
    } catch {
      return undefined;
    }
  }

  /** Whether `signature` is this key's over `data`. */
  signed(data: Uint8Array, signature: Uint8Array): boolean {
    if (this.algorithm === KeyAlgorithm.ED25519) return verify(null, data, this.key, signature);
    return verify("sha256", data, { key: this.key, dsaEncoding: "der" }, signature);
  }
}
