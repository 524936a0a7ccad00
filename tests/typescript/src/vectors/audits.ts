/** Vectors of whole audits, and of the files that hold them. */

import { fromBinary, toBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";

import { sha256, unbase64 } from "../bytes.js";
import { verifyBundle, type Trust } from "../bundle.js";
import { decide } from "../decide.js";
import type { Audit } from "../evidence.js";
import { readBundle, readReceipt } from "../files.js";
import { EnvelopeSchema } from "../gen/coin_protocol/v1/envelope_pb.js";
import { PolicySchema, ProfileSchema } from "../gen/coin_protocol/v1/profile_pb.js";
import {
  Fault,
  Outcome,
  ReceiptSchema,
  RoundSchema,
  Tier,
} from "../gen/coin_protocol/v1/receipt_pb.js";
import type { Fields, Json } from "../json.js";
import { SMALL_MODELS } from "../models.js";
import { pinned, pinnedRoots } from "./signed.js";

function message<D extends DescMessage>(schema: D, base64: string): MessageShape<D> {
  return fromBinary(schema, unbase64(base64));
}

function trustIn(input: Fields): Trust {
  const verifiers = input.object("verifiers");
  const [profile, policy] = [input.base64("profile"), input.base64("policy")];
  return {
    roots: pinnedRoots(input.texts("provider_roots")),
    verifiers: verifiers.keys().map((name) => pinned(name, verifiers.text(name))),
    profile: fromBinary(ProfileSchema, profile),
    profileSha256: sha256(profile),
    policy: fromBinary(PolicySchema, policy),
    policySha256: sha256(policy),
  };
}

function auditIn(vector: Fields): Audit {
  const manifest = vector.optionalText("manifest");
  return {
    ...trustIn(vector),
    receipt: message(ReceiptSchema, vector.text("receipt")),
    manifest: manifest === undefined ? undefined : message(EnvelopeSchema, manifest),
    noManifest: undefined,
    rounds: vector.texts("rounds").map((round) => message(RoundSchema, round)),
    wholeRounds: vector.texts("whole_rounds").map((round) => message(RoundSchema, round)),
  };
}

function outcomeName(outcome: Outcome): string {
  return `OUTCOME_${Outcome[outcome]}`;
}

function faultName(fault: Fault): string {
  return `FAULT_${Fault[fault]}`;
}

function tierNames(tiers: readonly Tier[]): string[] {
  return tiers.map((tier) => `TIER_${Tier[tier]}`);
}

export function evidence(vector: Fields): Json {
  const { failure, outcome, fault, tiers } = decide(auditIn(vector), SMALL_MODELS);
  return {
    failed: failure?.code ?? null,
    outcome: outcomeName(outcome),
    fault: faultName(fault),
    tiers: tierNames(tiers),
  };
}

function verifyBundleIn(input: Fields): Json {
  const models = input.has("models") ? SMALL_MODELS : undefined;
  const bundle = readBundle(input.base64("bundle"));
  const { decision, verdict, unchecked } = verifyBundle(bundle, trustIn(input), models);
  return {
    failed: decision.failure?.code ?? null,
    outcome: outcomeName(verdict.outcome),
    fault: faultName(verdict.fault),
    tiers: tierNames(verdict.tiers),
    unchecked,
  };
}

export const BUNDLES = { verify_bundle: verifyBundleIn };

function readReceiptIn(input: Fields): Json {
  const receipt = toBinary(ReceiptSchema, readReceipt(input.base64("file")));
  return { protobuf: Buffer.from(receipt).toString("base64") };
}

export const RECEIPTS = { read_receipt: readReceiptIn };
