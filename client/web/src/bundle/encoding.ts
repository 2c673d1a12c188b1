/**
 * The canonical encoding of what is signed, as in fedpeft/signing/encoding.py:
 *
 *     enc(label, f_1 … f_m) = "fedpeft-sa/v1" | u32 |label| | label | u32 m | u32 |f_1| | f_1 | …
 */
const PROTOCOL = "fedpeft-sa/v1";

export function encode(label: string, ...fields: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const utf8 = new TextEncoder();
  const name = utf8.encode(label);
  const parts = [utf8.encode(PROTOCOL), u32(name.length), name, u32(fields.length)];
  for (const field of fields) parts.push(u32(field.length), field);
  return joined(parts);
}

export function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function unhex(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}
