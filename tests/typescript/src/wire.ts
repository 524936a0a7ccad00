/** Protobuf's wire form, held against what version 1 knows, to the wire type of each field. */

import { ScalarType, type DescField, type DescMessage } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";

function scalarWireType(type: ScalarType): WireType {
  switch (type) {
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return WireType.Bit64;
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return WireType.Bit32;
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return WireType.LengthDelimited;
    default:
      return WireType.Varint;
  }
}

function isWrittenAs(field: DescField, wireType: WireType): boolean {
  switch (field.fieldKind) {
    case "message":
    case "map":
      return wireType === WireType.LengthDelimited;
    case "enum":
      return wireType === WireType.Varint;
    case "scalar":
      return wireType === scalarWireType(field.scalar);
    case "list":
      if (field.listKind === "message") return wireType === WireType.LengthDelimited;
      if (wireType === WireType.LengthDelimited) return true; // packed, or one element
      return (
        wireType === (field.listKind === "enum" ? WireType.Varint : scalarWireType(field.scalar))
      );
  }
}

/** Whether every field, at any depth, is one that is known. Throws where bytes are no message. */
export function holdsKnownFields(desc: DescMessage, bytes: Uint8Array): boolean {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    const field = desc.fields.find((candidate) => candidate.number === number);
    if (field === undefined || !isWrittenAs(field, wireType)) return false;
    if (wireType !== WireType.LengthDelimited) {
      reader.skip(wireType, number);
      continue;
    }
    const inner = reader.bytes();
    if (field.message !== undefined && !holdsKnownFields(field.message, inner)) return false;
  }
  return true;
}
