/** The errors that vectors expect, by name. */

export type ErrorName =
  | "ConsistencyProofError"
  | "InclusionProofError"
  | "InvalidInputError"
  | "KeyWindowError"
  | "LimitError"
  | "QuantisationError"
  | "SignatureError"
  | "StatementError"
  | "VerificationError"
  | "WINDOW_EMBEDDING";

export class ProtocolError extends Error {
  override readonly name = "ProtocolError";

  constructor(
    readonly code: ErrorName,
    detail: string,
    /** The part of a verdict that its evidence does not bear out. */
    readonly difference?: string,
  ) {
    super(detail);
  }
}

/** The value, or the error where there is none. */
export function orRefuse<T>(value: T | undefined, code: ErrorName, detail: string): T {
  if (value === undefined) throw new ProtocolError(code, detail);
  return value;
}

export function ensure(holds: boolean, code: ErrorName, detail: string): asserts holds {
  if (!holds) throw new ProtocolError(code, detail);
}
