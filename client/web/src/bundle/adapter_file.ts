/**
 * onnxruntime's adapter format (`adapter.onnx_adapter`), read in the browser, whose onnxruntime has no reader for it.
 *
 * It is a flatbuffer: tables whose fields are found by an offset table, every reference relative to where it lies.
 *
 *     table Parameter { name: string; dims: [int64]; data_type: int32; raw_data: [uint8]; }
 *     table Adapter   { format_version, adapter_version, model_version: int32; parameters: [Parameter]; }
 *
 * The file holds the graph's own inputs by name (transposed, scaled), so whatever method made it, nothing is derived here.
 */
import { Refused } from "../refused";

export interface Tensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

const IDENTIFIER = "TORT";
const FLOAT = 1;
const FLOAT16 = 10;
const FIELD = { name: 0, dims: 1, dataType: 2, rawData: 3, parameters: 3 } as const;

export function readAdapterFile(content: Uint8Array): Map<string, Tensor> {
  try {
    return read(content);
  } catch (error) {
    if (error instanceof RangeError) throw new Refused("adapter.onnx_adapter", "a truncated file", "a whole one");
    throw error;
  }
}

function read(content: Uint8Array): Map<string, Tensor> {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const identifier = String.fromCharCode(...content.subarray(4, 8));
  if (identifier !== IDENTIFIER) throw new Refused("adapter.onnx_adapter", identifier, "an onnxruntime adapter");
  const found = new Map<string, Tensor>();
  for (const table of tables(view, field(view, reference(view, 0), FIELD.parameters))) {
    const name = new TextDecoder().decode(bytes(view, field(view, table, FIELD.name)));
    const shape = integers(view, field(view, table, FIELD.dims));
    const type = scalar(view, table, FIELD.dataType);
    const raw = bytes(view, field(view, table, FIELD.rawData));
    const size = shape.reduce((product, length) => product * length, 1);
    const width = type === FLOAT ? 4 : type === FLOAT16 ? 2 : 0;
    if (!width) throw new Refused(`adapter tensor ${name}`, `type ${type}`, "float32 or float16");
    if (raw.length !== size * width)
      throw new Refused(`adapter tensor ${name}`, `${raw.length} bytes`, `${size * width}`);
    found.set(name, { shape, data: type === FLOAT ? singles(raw) : halves(raw) });
  }
  return found;
}

/** Follow a reference: it says how far behind itself its object lies. */
function reference(view: DataView, at: number): number {
  return at + view.getUint32(at, true);
}

/** Return where a table's field lies, or 0 where it has none. */
function field(view: DataView, table: number, index: number): number {
  const offsets = table - view.getInt32(table, true);
  const entry = 4 + 2 * index;
  const offset = entry < view.getUint16(offsets, true) ? view.getUint16(offsets + entry, true) : 0;
  return offset ? table + offset : 0;
}

function scalar(view: DataView, table: number, index: number): number {
  const at = field(view, table, index);
  return at ? view.getInt32(at, true) : 0;
}

function bytes(view: DataView, at: number): Uint8Array {
  if (!at) return new Uint8Array();
  const start = reference(view, at);
  return new Uint8Array(view.buffer, view.byteOffset + start + 4, view.getUint32(start, true));
}

function integers(view: DataView, at: number): number[] {
  if (!at) return [];
  const start = reference(view, at);
  return Array.from({ length: bounded(view, start, 8) }, (_, i) => {
    const value = Number(view.getBigInt64(start + 4 + 8 * i, true));
    if (!Number.isSafeInteger(value) || value < 0) throw new Refused("adapter dimension", value, "0 or more");
    return value;
  });
}

function tables(view: DataView, at: number): number[] {
  if (!at) return [];
  const start = reference(view, at);
  return Array.from({ length: bounded(view, start, 4) }, (_, i) => reference(view, start + 4 + 4 * i));
}

/** Return a vector's length, which must fit into the file: no allocation on a stranger's word. */
function bounded(view: DataView, start: number, width: number): number {
  const length = view.getUint32(start, true);
  if (start + 4 + length * width > view.byteLength) throw new RangeError("vector");
  return length;
}

function singles(raw: Uint8Array): Float32Array {
  return new Float32Array(raw.slice().buffer);
}

function halves(raw: Uint8Array): Float32Array {
  const bits = new Uint16Array(raw.slice().buffer);
  return Float32Array.from(bits, (half) => {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}
