/** JSON with integers of any length, read without believing its shape. */

import { unbase64, unhex } from "./bytes.js";

const LONG_INTEGER = /"(?:[^"\\]|\\.)*"|(?<![\d.])-?\d{16,}(?![\d.eE])/g;
const MARK = "\u0000integer ";

export type Json = null | boolean | number | bigint | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

function revive(_key: string, value: unknown): unknown {
  if (typeof value === "string" && value.startsWith(MARK)) return BigInt(value.slice(MARK.length));
  return value;
}

/** Integers of 16 digits and more come as bigint. */
export function parseJson(text: string): Json {
  const marked = text.replace(LONG_INTEGER, (found) =>
    found.startsWith('"') ? found : JSON.stringify(MARK + found),
  );
  return JSON.parse(marked, revive) as Json;
}

/** A vector is not of the shape that its kind has. */
export class ShapeError extends Error {
  override readonly name = "ShapeError";
}

/** Reads the members of a JSON object, each as what it must be. */
export class Fields {
  readonly #object: JsonObject;

  constructor(
    value: Json | undefined,
    readonly path = "vector",
  ) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new ShapeError(`${path} is no object`);
    }
    this.#object = value as JsonObject;
  }

  /** Bytes in hex. */
  bytes(key: string): Uint8Array {
    return unhex(this.text(key));
  }

  base64(key: string): Uint8Array {
    return unbase64(this.text(key));
  }

  has(key: string): boolean {
    return (this.#object[key] ?? null) !== null;
  }

  keys(): string[] {
    return Object.keys(this.#object);
  }

  json(key: string): Json {
    const value = this.#object[key];
    if (value === undefined) throw new ShapeError(`${this.path} lacks ${key}`);
    return value;
  }

  object(key: string): Fields {
    return new Fields(this.json(key), `${this.path}.${key}`);
  }

  list(key: string): readonly Json[] {
    const value = this.json(key);
    if (!Array.isArray(value)) throw new ShapeError(`${this.path}.${key} is no list`);
    return value as readonly Json[];
  }

  objects(key: string): Fields[] {
    return this.list(key).map((item, at) => new Fields(item, `${this.path}.${key}[${at}]`));
  }

  text(key: string): string {
    return this.#textOf(this.json(key), key);
  }

  optionalText(key: string): string | undefined {
    return this.has(key) ? this.text(key) : undefined;
  }

  texts(key: string): string[] {
    return this.list(key).map((item) => this.#textOf(item, key));
  }

  /** Lists of texts. */
  lists(key: string): string[][] {
    return this.list(key).map((item) => {
      if (!Array.isArray(item)) throw new ShapeError(`${this.path}.${key} holds no lists`);
      return item.map((inner: Json) => this.#textOf(inner, key));
    });
  }

  integer(key: string): bigint {
    const value = this.json(key);
    if (typeof value === "bigint") return value;
    if (typeof value === "number" && Number.isSafeInteger(value)) return BigInt(value);
    throw new ShapeError(`${this.path}.${key} is no integer`);
  }

  number(key: string): number {
    const value = this.json(key);
    if (typeof value === "number") return value;
    throw new ShapeError(`${this.path}.${key} is no number`);
  }

  numbers(key: string): number[] {
    return this.list(key).map((item) => {
      if (typeof item === "number") return item;
      throw new ShapeError(`${this.path}.${key} holds something else than numbers`);
    });
  }

  #textOf(value: Json, key: string): string {
    if (typeof value === "string") return value;
    throw new ShapeError(`${this.path}.${key} is no text`);
  }
}
