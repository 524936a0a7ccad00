/** Vectors of a verifier's log, and of evidence that two statements contradict each other. */

import { hex, unhex } from "../bytes.js";
import { verifyEquivocation } from "../equivocation.js";
import { readEvidenceFile } from "../files.js";
import type { Fields, Json } from "../json.js";
import { readLogLeaf } from "../logleaf.js";
import { leafHash } from "../merkle.js";
import { checkGrowth, openHead, readNoteKey } from "../notes.js";
import { pinnedRoots } from "./signed.js";

function readLeaf(input: Fields): Json {
  const data = input.bytes("data");
  const leaf = readLogLeaf(data);
  const hashed = { leaf_hash: hex(leafHash(data)) };
  const commitment = { commitment_sha256: hex(leaf.commitmentSha256) };
  if (leaf.kind === "verdict") {
    return { kind: leaf.kind, ...commitment, verdict_sha256: hex(leaf.verdictSha256), ...hashed };
  }
  const { kind, provider, sessionId } = leaf;
  return { kind, provider, session_id: hex(sessionId), ...commitment, ...hashed };
}

function readVkey(input: Fields): Json {
  const { name, keyHash, algorithm, publicKey } = readNoteKey(input.text("vkey"));
  return { name, key_hash: hex(keyHash), algorithm, public_key: hex(publicKey) };
}

function openHeadIn(input: Fields): Json {
  const head = openHead(input.base64("note"), readNoteKey(input.text("log")), {
    origin: input.text("origin"),
    witnesses: input.texts("witnesses").map(readNoteKey),
    quorum: Number(input.integer("quorum")),
  });
  return {
    origin: head.origin,
    size: String(head.size),
    root: hex(head.root),
    extensions: head.extensions,
    cosignatures: head.cosignatures.map(({ name, at }) => ({ name, at: String(at) })),
  };
}

function headsConsistent(input: Fields): Json {
  const log = readNoteKey(input.text("log"));
  const wanted = { origin: log.name, witnesses: [], quorum: 0 };
  const older = openHead(input.base64("old"), log, wanted);
  const newer = openHead(input.base64("new"), log, wanted);
  checkGrowth(older, newer, input.texts("proof").map(unhex));
  return "ok";
}

export const LOG: Readonly<Record<string, (input: Fields) => Json>> = {
  read_leaf: readLeaf,
  read_vkey: readVkey,
  open_head: openHeadIn,
  heads_consistent: headsConsistent,
};

function verifyEvidence(input: Fields): Json {
  const log = input.optionalText("log");
  const roots = input.has("provider_roots") ? input.texts("provider_roots") : undefined;
  return {
    ...verifyEquivocation(readEvidenceFile(input.base64("file")), {
      roots: roots === undefined ? undefined : pinnedRoots(roots),
      log: log === undefined ? undefined : readNoteKey(log),
    }),
  };
}

export const EQUIVOCATION = { verify_evidence: verifyEvidence };
