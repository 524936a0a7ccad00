/** What protobuf's JSON form forbids, and JSON.parse or the library lets pass. */

import type { DescMessage } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";

import { type Json, type JsonObject } from "./json.js";

/** A text in quotes, and whether a colon follows it: then it names a member. */
const QUOTED = /"(?:[^"\\]|\\.)*"(\s*:)?/gs;

function memberCount(value: Json): number {
  if (typeof value !== "object" || value === null) return 0;
  const inner: readonly Json[] = Array.isArray(value) ? value : Object.values(value);
  const own = Array.isArray(value) ? 0 : inner.length;
  return inner.reduce((sum: number, item) => sum + memberCount(item), own);
}

/** Of members with one name JSON.parse keeps the last alone. */
function namesTwice(text: string, parsed: Json): boolean {
  const names = [...text.matchAll(QUOTED)].filter(([, colon]) => colon !== undefined);
  return names.length > memberCount(parsed);
}

function isDay(text: Json): boolean {
  const [, year, month, day] = /^(\d{4})-(\d\d)-(\d\d)T/.exec(String(text)) ?? [];
  const date = new Date(0);
  date.setUTCFullYear(Number(year), Number(month) - 1, Number(day));
  return date.getUTCMonth() === Number(month) - 1 && date.getUTCDate() === Number(day);
}

function isForm(desc: DescMessage, value: Json): boolean {
  if (value === null) return true;
  if (desc.typeName === TimestampSchema.typeName) return isDay(value);
  if (Array.isArray(value)) return value.every((item: Json) => isForm(desc, item));
  if (typeof value !== "object") return true;
  const members = Object.entries(value as JsonObject).flatMap(([key, inner]) => {
    const field = desc.fields.find(({ name, jsonName }) => name === key || jsonName === key);
    return field === undefined ? [] : [{ field, inner }];
  });
  const named = new Set(members.map(({ field }) => field.number));
  return (
    named.size === members.length &&
    members.every(({ field, inner }) => {
      return field.message === undefined || isForm(field.message, inner);
    })
  );
}

/** Whether each field stands once, under one of its names, and each day is in its month. */
export function isJsonForm(desc: DescMessage, text: string, parsed: Json): boolean {
  return !namesTwice(text, parsed) && isForm(desc, parsed);
}
