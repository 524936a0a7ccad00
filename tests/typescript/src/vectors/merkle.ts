/** Vectors of the trees. */

import { hex, unhex } from "../bytes.js";
import { ShapeError, type Fields, type Json } from "../json.js";
import { continues, includes, rootOf } from "../merkle.js";

function verdict(holds: boolean, error: string): string {
  return holds ? "ok" : error;
}

function root(vector: Fields): string {
  const computed = hex(rootOf(vector.texts("leaves").map(unhex)));
  return verdict(computed === vector.text("root"), `root ${computed}`);
}

function inclusion(vector: Fields): string {
  const holds = includes(
    unhex(vector.text("leaf_hash")),
    vector.integer("index"),
    vector.integer("size"),
    vector.texts("proof").map(unhex),
    unhex(vector.text("root")),
  );
  return verdict(holds, "InclusionProofError");
}

function consistency(vector: Fields): string {
  const holds = continues(
    vector.integer("old_size"),
    vector.integer("new_size"),
    unhex(vector.text("old_root")),
    unhex(vector.text("new_root")),
    vector.texts("proof").map(unhex),
  );
  return verdict(holds, "ConsistencyProofError");
}

export function merkle(vector: Fields): Json {
  const operation = vector.text("operation");
  if (operation === "root") return root(vector);
  if (operation === "verify_inclusion") return inclusion(vector);
  if (operation === "verify_consistency") return consistency(vector);
  throw new ShapeError(`no operation ${operation}`);
}
