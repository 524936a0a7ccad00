/** C2SP notes: verifier keys, heads of logs and the cosignatures of witnesses (section 11). */

import { concat, equal, hex, sha256, strictText, unbase64, utf8 } from "./bytes.js";
import { ProtocolError, orRefuse, ensure } from "./errors.js";
import { VerificationKey } from "./keys.js";
import { MOST } from "./limits.js";
import { HASH_BYTES, continues, rootOf } from "./merkle.js";

export const ED25519 = 1;
export const COSIGNATURE = 4;
const KEY_HASH_BYTES = 4;
const KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;
const TIME_BYTES = 8;
const NOTE_BYTES = 128 * 1024;
const SIZES = 1n << 63n;
const TIMES = 1n << 63n;
/** DER of an Ed25519 key, up to its 32 bytes (RFC 8410). */
const SPKI_HEAD = Buffer.from("302a300506032b6570032100", "hex");

/** A name has no space of Unicode and no plus, which parts it from its key's hash. */
function isName(name: string): boolean {
  return /^[^\s+\u0085]+$/u.test(name) && utf8(name).length <= MOST.noteNameBytes;
}

/** Base64 with its padding, and no other form of the same bytes. */
function decoded(text: string): Uint8Array | undefined {
  try {
    return unbase64(text);
  } catch {
    return undefined;
  }
}

export interface NoteKey {
  readonly name: string;
  readonly keyHash: Uint8Array;
  readonly algorithm: number;
  readonly publicKey: Uint8Array;
  readonly key: VerificationKey;
}

export function readNoteKey(vkey: string): NoteKey {
  const invalid = "InvalidInputError";
  ensure(utf8(vkey).length <= MOST.noteLineBytes, "LimitError", "the key is too long");
  const parts = /^([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/u.exec(vkey);
  const [, name = "", hash = "", base64 = ""] = orRefuse(parts ?? undefined, invalid, "no key");
  ensure(isName(name), invalid, "the name is none");
  const typed = orRefuse(decoded(base64), invalid, "the key is not in base64");
  const [algorithm] = typed;
  const publicKey = typed.subarray(1);
  const isKnown = algorithm === ED25519 || algorithm === COSIGNATURE;
  ensure(isKnown && publicKey.length === KEY_BYTES, invalid, "no key of a known algorithm");
  const keyHash = sha256(utf8(`${name}\n`), typed).subarray(0, KEY_HASH_BYTES);
  ensure(hex(keyHash) === hash, invalid, "the hash is another key's");
  const made = VerificationKey.fromSpki("note", concat(SPKI_HEAD, publicKey));
  const key = orRefuse(made, invalid, "the key is of small order");
  return { name, keyHash, algorithm, publicKey, key };
}

interface SignatureLine {
  readonly name: string;
  readonly keyHash: Uint8Array;
  readonly signature: Uint8Array;
}

interface Note {
  /** What is signed, with its last newline. */
  readonly text: string;
  readonly signatures: readonly SignatureLine[];
}

function readSignatureLine(line: string): SignatureLine | undefined {
  const [, name = "", base64 = ""] = /^\u2014 (\S+) (\S+)$/u.exec(line) ?? [];
  const bytes = decoded(base64);
  if (!isName(name) || bytes === undefined || bytes.length <= KEY_HASH_BYTES) return undefined;
  return {
    name,
    keyHash: bytes.subarray(0, KEY_HASH_BYTES),
    signature: bytes.subarray(KEY_HASH_BYTES),
  };
}

function noteText(note: Uint8Array): string {
  try {
    return strictText(note);
  } catch {
    throw new ProtocolError("StatementError", "the note is no UTF-8");
  }
}

function readNote(note: Uint8Array): Note {
  ensure(note.length <= NOTE_BYTES, "LimitError", "the note is too long");
  const whole = noteText(note);
  const lines = whole.split("\n");
  const areShort = lines.every((line) => utf8(line).length <= MOST.noteLineBytes);
  ensure(areShort, "LimitError", "a line of the note is too long");
  const isPlain = !/[\u0000-\u0009\u000b-\u001f]/u.test(whole);
  ensure(isPlain, "StatementError", "the note has control characters");
  const border = whole.lastIndexOf("\n\n");
  const isNote = border >= 0 && whole.endsWith("\n") && border + 2 < whole.length;
  ensure(isNote, "StatementError", "the note has no signatures");
  const signed = whole.slice(border + 2, -1).split("\n");
  ensure(signed.length <= MOST.noteSignatures, "LimitError", "the note has too many signatures");
  const signatures = signed.map((line) =>
    orRefuse(readSignatureLine(line), "StatementError", "a signature line is malformed"),
  );
  return { text: whole.slice(0, border + 1), signatures };
}

/** The signatures that name this key, none of them looked at yet. */
function signaturesOf({ signatures }: Note, { name, keyHash }: NoteKey): Uint8Array[] {
  return signatures
    .filter((line) => line.name === name && equal(line.keyHash, keyHash))
    .map(({ signature }) => signature);
}

function isLogSignature(text: string, signature: Uint8Array, { key }: NoteKey): boolean {
  return signature.length === SIGNATURE_BYTES && key.signed(utf8(text), signature);
}

/** The time of a witness's signature, or undefined where it is not good. */
function cosignedAt(text: string, timed: Uint8Array, { key }: NoteKey): bigint | undefined {
  if (timed.length !== TIME_BYTES + SIGNATURE_BYTES) return undefined;
  const at = Buffer.from(timed).readBigUInt64BE();
  const signed = utf8(`cosignature/v1\ntime ${at}\n${text}`);
  const isGood = at < TIMES && key.signed(signed, timed.subarray(TIME_BYTES));
  return isGood ? at : undefined;
}

export interface Cosignature {
  readonly name: string;
  readonly at: bigint;
}

export interface Head {
  readonly origin: string;
  readonly size: bigint;
  readonly root: Uint8Array;
  readonly extensions: readonly string[];
  readonly cosignatures: readonly Cosignature[];
}

function readHead(text: string): Omit<Head, "cosignatures"> | undefined {
  const [origin = "", size = "", base64 = "", ...extensions] = text.slice(0, -1).split("\n");
  const root = decoded(base64);
  const isHead =
    origin !== "" &&
    utf8(origin).length <= MOST.noteNameBytes &&
    /^(?:0|[1-9][0-9]{0,18})$/.test(size) &&
    BigInt(size) < SIZES &&
    extensions.every((line) => line !== "");
  if (!isHead || root?.length !== HASH_BYTES) return undefined;
  return { origin, size: BigInt(size), root, extensions };
}

export interface Wanted {
  /** The log's origin; undefined where the head may name it. */
  readonly origin: string | undefined;
  readonly witnesses: readonly NoteKey[];
  /** How many witnesses must have signed. */
  readonly quorum: number;
}

function checkWitnesses(log: NoteKey, { witnesses, quorum }: Wanted): void {
  const keys = [log, ...witnesses].map(({ publicKey }) => hex(publicKey));
  const areWitnesses =
    log.algorithm === ED25519 &&
    witnesses.every(({ algorithm }) => algorithm === COSIGNATURE) &&
    new Set(keys).size === keys.length &&
    quorum >= 0 &&
    quorum <= witnesses.length;
  ensure(areWitnesses, "InvalidInputError", "these can never be witnesses of this log");
}

function cosignature(note: Note, witness: NoteKey): Cosignature[] {
  const times = signaturesOf(note, witness).map((timed) =>
    orRefuse(cosignedAt(note.text, timed, witness), "SignatureError", "a cosignature is wrong"),
  );
  const latest = times.reduce((late, at) => (at > late ? at : late), -1n);
  return times.length === 0 ? [] : [{ name: witness.name, at: latest }];
}

/** The head that a note is, signed by the log and by as many witnesses as are wanted. */
export function openHead(bytes: Uint8Array, log: NoteKey, wanted: Wanted): Head {
  checkWitnesses(log, wanted);
  const note = readNote(bytes);
  const byLog = signaturesOf(note, log);
  const isLogs =
    byLog.length > 0 && byLog.every((signature) => isLogSignature(note.text, signature, log));
  ensure(isLogs, "SignatureError", "the log did not sign the head");
  const cosignatures = wanted.witnesses
    .flatMap((witness) => cosignature(note, witness))
    .sort((left, right) => Buffer.compare(utf8(left.name), utf8(right.name)));
  const isQuorum = cosignatures.length >= wanted.quorum;
  ensure(isQuorum, "SignatureError", "too few witnesses signed the head");
  const head = orRefuse(readHead(note.text), "StatementError", "the note is no head");
  const isWanted = wanted.origin === undefined || head.origin === wanted.origin;
  ensure(isWanted, "StatementError", "the head is another log's");
  return { ...head, cosignatures };
}

/** Throws unless the newer head's tree continues the older one's. */
export function checkGrowth(older: Head, newer: Head, proof: readonly Uint8Array[]): void {
  const empty = rootOf([]);
  const areRoots = [older, newer].every(({ size, root }) => size > 0n || equal(root, empty));
  const grew =
    older.size === 0n
      ? proof.length === 0
      : continues(older.size, newer.size, older.root, newer.root, proof);
  ensure(areRoots && grew, "ConsistencyProofError", "the log has not only grown");
}
