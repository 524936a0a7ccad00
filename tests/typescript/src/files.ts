/** Files: receipts, bundles and evidence, as protobuf or in protobuf's JSON form. */

import {
  fromBinary,
  fromJsonString,
  type DescMessage,
  type MessageShape,
} from "@bufbuild/protobuf";

import { strictText } from "./bytes.js";
import { ProtocolError, ensure } from "./errors.js";
import { isRound } from "./evidence.js";
import {
  BundleSchema,
  ReceiptSchema,
  type Bundle,
  type Receipt,
} from "./gen/coin_protocol/v1/receipt_pb.js";
import { EvidenceSchema, type Evidence } from "./gen/coin_protocol/v1/evidence_pb.js";
import { MOST, MOST_NONCE_BYTES } from "./limits.js";
import { parseJson } from "./json.js";
import { isJsonForm } from "./jsonform.js";
import { isInstant } from "./time.js";

const SPACES = new Set([0x09, 0x0a, 0x0d, 0x20]);
const BRACE = 0x7b;

function isJson(file: Uint8Array): boolean {
  return file.find((byte) => !SPACES.has(byte)) === BRACE;
}

function fromJsonFile<D extends DescMessage>(schema: D, file: Uint8Array): MessageShape<D> {
  const text = strictText(file);
  const isForm = isJsonForm(schema, text, parseJson(text));
  ensure(isForm, "InvalidInputError", "a field stands twice, or a day is none");
  return fromJsonString(schema, text);
}

function read<D extends DescMessage>(schema: D, file: Uint8Array): MessageShape<D> {
  try {
    return isJson(file) ? fromJsonFile(schema, file) : fromBinary(schema, file);
  } catch (error) {
    throw new ProtocolError("InvalidInputError", `the file cannot be read: ${String(error)}`);
  }
}

function invalidUnless(holds: boolean, detail: string): asserts holds {
  ensure(holds, "InvalidInputError", detail);
}

function isReceiptWithoutFormat(receipt: Receipt): boolean {
  const { keySet, commitment, sentAt, answerFirstAt, answerLastAt, checkpoints } = receipt;
  return (
    keySet !== undefined &&
    commitment !== undefined &&
    isInstant(sentAt) &&
    (answerFirstAt === undefined || isInstant(answerFirstAt)) &&
    (answerLastAt === undefined || isInstant(answerLastAt)) &&
    checkpoints.every(({ checkpoint, seenAt }) => checkpoint !== undefined && isInstant(seenAt))
  );
}

function checkReceipt(receipt: Receipt): void {
  invalidUnless(receipt.format === "coin.receipt.v1", "the file is no receipt of version 1");
  invalidUnless(isReceiptWithoutFormat(receipt), "the receipt lacks a part, or a time is none");
  const { length } = receipt.clientNonce;
  ensure(length <= MOST_NONCE_BYTES, "LimitError", "the client's nonce is too long");
}

export function readReceipt(file: Uint8Array): Receipt {
  const receipt = read(ReceiptSchema, file);
  checkReceipt(receipt);
  return receipt;
}

export function readBundle(file: Uint8Array): Bundle {
  const bundle = read(BundleSchema, file);
  invalidUnless(bundle.format === "coin.bundle.v1", "the file is no bundle of version 1");
  invalidUnless(bundle.receipt !== undefined, "the bundle has no receipt");
  invalidUnless(bundle.verdict !== undefined, "the bundle has no verdict");
  checkReceipt(bundle.receipt);
  for (const rounds of [bundle.rounds, bundle.wholeRounds]) {
    ensure(rounds.length <= MOST.challenges, "LimitError", "the bundle has too many rounds");
    invalidUnless(rounds.every(isRound), "a round lacks its times, or has not one answer");
  }
  return bundle;
}

export function readEvidenceFile(file: Uint8Array): Evidence {
  const evidence = read(EvidenceSchema, file);
  invalidUnless(evidence.format === "coin.evidence.v1", "the file is no evidence of version 1");
  return evidence;
}
