/**
 * Runs every vector under a folder and prints a line of JSON for each: file, expected, got, ok.
 * Exits with 1 where any disagrees, or is of a kind that is not known here.
 */

import { readdirSync, readFileSync } from "node:fs";
import { join, sep } from "node:path";
import { argv, exit, stdout } from "node:process";
import { isDeepStrictEqual } from "node:util";

import { ProtocolError } from "./errors.js";
import { Fields, ShapeError, parseJson, type Json } from "./json.js";
import { BUNDLES, RECEIPTS, evidence } from "./vectors/audits.js";
import { DRAWS } from "./vectors/draws.js";
import { COMMITMENTS, ENCODING } from "./vectors/encoding.js";
import { EQUIVOCATION, LOG } from "./vectors/log.js";
import { merkle } from "./vectors/merkle.js";
import { EXPOSURE, QUANTISE, USAGE } from "./vectors/numbers.js";
import { ENVELOPES, KEYS, STATEMENTS } from "./vectors/signed.js";

type Operations = Readonly<Record<string, (input: Fields) => Json>>;

/** What is run, by the folder that holds the vectors and by their operation. */
const OPERATIONS: Readonly<Record<string, Operations>> = {
  bundles: BUNDLES,
  commitments: COMMITMENTS,
  draws: DRAWS,
  encoding: ENCODING,
  envelopes: ENVELOPES,
  equivocation: EQUIVOCATION,
  exposure: EXPOSURE,
  keys: KEYS,
  log: LOG,
  quantise: QUANTISE,
  receipts: RECEIPTS,
  statements: STATEMENTS,
  usage: USAGE,
};

/** The older kinds, whose inputs stand at the top. */
const WHOLE: Readonly<Record<string, (vector: Fields) => Json>> = { evidence, merkle };

function outcomeOf(operations: Operations, vector: Fields): Json {
  const run = operations[vector.text("operation")];
  if (run === undefined) throw new ShapeError(`no operation ${vector.text("operation")}`);
  try {
    return { value: run(vector.object("input")) };
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    const { code, difference } = error;
    return difference === undefined ? { error: code } : { error: code, difference };
  }
}

function runOne(kind: string, vector: Fields): Json {
  const whole = WHOLE[kind];
  if (whole !== undefined) return whole(vector);
  const operations = OPERATIONS[kind];
  if (operations === undefined) throw new ShapeError(`no vectors ${kind} are known`);
  return outcomeOf(operations, vector);
}

/** What a vector expects, without the mistakes that it names. */
function expectedOf(vector: Fields): Json {
  const expected = vector.json("expect");
  if (typeof expected !== "object" || expected === null || !("never" in expected)) return expected;
  const { never: _, ...rest } = expected;
  return rest;
}

interface Line {
  readonly file: string;
  readonly expected: Json;
  readonly got: Json;
  readonly ok: boolean;
}

function run(folder: string, file: string): Line {
  let expected: Json = null;
  try {
    const [kind = ""] = file.split("/");
    const vector = new Fields(parseJson(readFileSync(join(folder, file), "utf8")), file);
    expected = expectedOf(vector);
    const got = runOne(kind, vector);
    return { file, expected, got, ok: isDeepStrictEqual(got, expected) };
  } catch (error) {
    return { file, expected, got: String(error), ok: false };
  }
}

/** Every vector: a file in a folder of its kind. */
function vectorFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((file) => file.split(sep).join("/"))
    .filter((file) => /^[^/]+\/.*\.json$/.test(file) && !file.startsWith("schema/"))
    .sort();
}

const [, , folder] = argv;
if (folder === undefined) {
  stdout.write("usage: node main.js FOLDER_OF_VECTORS\n");
  exit(2);
}
const lines = vectorFiles(folder).map((file) => run(folder, file));
for (const line of lines) stdout.write(`${JSON.stringify(line)}\n`);
process.exitCode = lines.length > 0 && lines.every(({ ok }) => ok) ? 0 : 1;
