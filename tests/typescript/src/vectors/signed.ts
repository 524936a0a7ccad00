/** Vectors of keys, envelopes and statements. */

import { fromBinary, fromJson, type DescMessage, type Message } from "@bufbuild/protobuf";
import { TimestampSchema, type Timestamp } from "@bufbuild/protobuf/wkt";

import { hex } from "../bytes.js";
import { preAuthenticationEncoding, signerAmong } from "../envelope.js";
import { orRefuse, ensure } from "../errors.js";
import { EnvelopeSchema } from "../gen/coin_protocol/v1/envelope_pb.js";
import { KeyAlgorithm } from "../gen/coin_protocol/v1/keys_pb.js";
import { ShapeError, type Fields, type Json } from "../json.js";
import { ROOT, VerificationKey } from "../keys.js";
import {
  continuesKeySet,
  isWithinWindow,
  openKeySet,
  readKeySet,
  type KeyRing,
} from "../keyset.js";
import { KINDS, parse } from "../statements.js";
import { instant } from "../time.js";

function keyIn(name: string, spki: Uint8Array): VerificationKey {
  return orRefuse(VerificationKey.fromSpki(name, spki), "InvalidInputError", "no key");
}

export function pinned(name: string, pem: string): VerificationKey {
  return orRefuse(VerificationKey.fromPem(name, pem), "InvalidInputError", "no key in PEM");
}

export function pinnedRoots(pems: readonly string[]): VerificationKey[] {
  return pems.map((pem) => pinned(ROOT, pem));
}

function spelled({ keySet, keys }: KeyRing): Json {
  const keyids = keys.map(({ id }) => id);
  return { owner: keySet.owner, sequence: String(keySet.sequence), keyids };
}

function timestamp(text: string): Timestamp {
  return fromJson(TimestampSchema, text);
}

function keyWindow(input: Fields): Json {
  const revoked = input.optionalText("revoked_at");
  const window = {
    notBefore: timestamp(input.text("not_before")),
    notAfter: timestamp(input.text("not_after")),
    revokedAt: revoked === undefined ? undefined : timestamp(revoked),
  };
  const counts = isWithinWindow(instant(timestamp(input.text("at"))), window);
  ensure(counts, "KeyWindowError", "the key was not valid then");
  return "ok";
}

export const KEYS: Readonly<Record<string, (input: Fields) => Json>> = {
  read_key: (input) => {
    const { algorithm, id } = keyIn(input.text("name"), input.bytes("spki"));
    return { algorithm: `KEY_ALGORITHM_${KeyAlgorithm[algorithm]}`, keyid: id };
  },
  key_window: keyWindow,
  read_key_set: (input) => spelled(readKeySet(input.base64("payload"))),
  continues: (input) => {
    const [older, newer] = [input.base64("older"), input.base64("newer")];
    return { continues: continuesKeySet(readKeySet(older), readKeySet(newer)) };
  },
  open_key_set: (input) => {
    const envelope = fromBinary(EnvelopeSchema, input.base64("envelope"));
    return spelled(openKeySet(envelope, pinnedRoots(input.texts("roots"))));
  },
};

function verifyEnvelope(input: Fields): Json {
  const envelope = fromBinary(EnvelopeSchema, input.base64("envelope"));
  const keys = input.objects("keys").map((key) => keyIn(key.text("name"), key.bytes("spki")));
  const signer = signerAmong(envelope, input.text("payload_type"), keys);
  return { keyid: orRefuse(signer, "SignatureError", "no listed key signed").id };
}

export const ENVELOPES: Readonly<Record<string, (input: Fields) => Json>> = {
  pae: (input) => {
    const [type, payload] = [input.text("payload_type"), input.bytes("payload")];
    return { bytes: hex(preAuthenticationEncoding(type, payload)) };
  },
  verify_signature: (input) => {
    const key = keyIn("key", input.bytes("spki"));
    const isGood = key.signed(input.bytes("data"), input.bytes("signature"));
    ensure(isGood, "SignatureError", "the signature is not this key's");
    return "ok";
  },
  verify_envelope: verifyEnvelope,
};

function isMessage(value: unknown): value is Message & Record<string, unknown> {
  return typeof value === "object" && value !== null && "$typeName" in value;
}

function asJson(value: unknown): Json {
  if (typeof value === "bigint") return Number(value);
  if (typeof value === "string" || typeof value === "number") return value;
  if (Array.isArray(value)) return value.map(asJson);
  throw new ShapeError("a field of no kind that vectors name");
}

/** The value of a field, by its path of names as in the .proto and of indices. */
function fieldAt(desc: DescMessage, message: unknown, path: readonly string[]): Json {
  const [name, ...rest] = path;
  if (name === undefined) return asJson(message);
  const field = desc.fields.find((candidate) => candidate.name === name);
  if (field === undefined || !isMessage(message)) throw new ShapeError(`no field ${name}`);
  const value = message[field.localName];
  if (field.message === undefined) return asJson(value);
  if (!Array.isArray(value)) return fieldAt(field.message, value, rest);
  const [index, ...inner] = rest;
  const elements: readonly unknown[] = value;
  return fieldAt(field.message, elements[Number(index)], inner);
}

function readStatement(input: Fields): Json {
  const name = input.text("statement");
  const kind = KINDS.get(name);
  if (kind === undefined) throw new ShapeError(`no statement ${name}`);
  const statement = parse(kind, input.base64("payload"));
  const { message, sha256 } = orRefuse(statement, "StatementError", `the ${name} is malformed`);
  const values = input.texts("fields").map((path) => {
    return [path, fieldAt(kind.schema, message, path.split("."))] as const;
  });
  return { sha256: hex(sha256), fields: Object.fromEntries(values) };
}

export const STATEMENTS = { read_statement: readStatement };
