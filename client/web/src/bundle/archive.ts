/**
 * An adapter bundle as one file (fedpeft/device/archive.py): a zip with the bundle's files side by side.
 *
 * It is somebody else's word until the bundle's own signature is checked. So names must be plain, entries few and each
 * there once, and what they unpack to is counted while it is unpacked, not read from the archive.
 */
import { Refused } from "../refused";

const LIMITS = { files: 16, bytes: 256 << 20, ratio: 100 } as const;
const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

const END = { mark: 0x06054b50, size: 22, comment: 0xffff } as const;
const ENTRY = { mark: 0x02014b50, size: 46 } as const;
const LOCAL = { mark: 0x04034b50, size: 30 } as const;
const ENCRYPTED = 1;
const METHODS = new Map([
  [0, null],
  [8, "deflate-raw" as const],
]);

interface Entry {
  readonly name: string;
  readonly method: number;
  readonly packed: number;
  readonly at: number;
}

export function isArchive(content: Uint8Array): boolean {
  return content.length >= LOCAL.size && view(content).getUint32(0, true) === LOCAL.mark;
}

export async function unpack(content: Uint8Array<ArrayBuffer>): Promise<Map<string, Blob>> {
  try {
    return await unpackAll(content);
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused("archive", "a damaged file", "a zip file");
  }
}

async function unpackAll(content: Uint8Array<ArrayBuffer>): Promise<Map<string, Blob>> {
  const found = new Map<string, Blob>();
  let room = Math.min(LIMITS.bytes, content.length * LIMITS.ratio);
  for (const entry of entries(content)) {
    if (!NAME.test(entry.name)) throw new Refused("archive entry", entry.name, "a plain name without folders");
    if (found.has(entry.name)) throw new Refused("archive entry", `${entry.name} again`, "each file once");
    const file = await unpackOne(content, entry, room);
    room -= file.size;
    found.set(entry.name, file);
  }
  return found;
}

function entries(content: Uint8Array): Entry[] {
  const read = view(content);
  const end = endOf(read);
  const count = read.getUint16(end + 10, true);
  if (count > LIMITS.files) throw new Refused("archive", `${count} files`, `at most ${LIMITS.files}`);
  let at = read.getUint32(end + 16, true);
  return Array.from({ length: count }, () => {
    if (read.getUint32(at, true) !== ENTRY.mark) throw new RangeError("entry");
    if (read.getUint16(at + 8, true) & ENCRYPTED) throw new Refused("archive", "an encrypted file", "plain ones");
    const length = read.getUint16(at + 28, true);
    const entry = {
      name: new TextDecoder().decode(content.subarray(at + ENTRY.size, at + ENTRY.size + length)),
      method: read.getUint16(at + 10, true),
      packed: read.getUint32(at + 20, true),
      at: read.getUint32(at + 42, true),
    };
    at += ENTRY.size + length + read.getUint16(at + 30, true) + read.getUint16(at + 32, true);
    return entry;
  });
}

/** Return where the list's end is; a comment may follow it. */
function endOf(read: DataView): number {
  const last = read.byteLength - END.size;
  for (let at = last; at >= Math.max(0, last - END.comment); at--) {
    if (read.getUint32(at, true) === END.mark) return at;
  }
  throw new RangeError("end");
}

async function unpackOne(
  content: Uint8Array<ArrayBuffer>,
  { name, method, packed, at }: Entry,
  room: number,
): Promise<Blob> {
  const read = view(content);
  if (read.getUint32(at, true) !== LOCAL.mark) throw new RangeError("local entry");
  const format = METHODS.get(method);
  if (format === undefined) throw new Refused(`archive ${name}`, `method ${method}`, "stored or deflated");
  const start = at + LOCAL.size + read.getUint16(at + 26, true) + read.getUint16(at + 28, true);
  if (start + packed > content.length) throw new RangeError("data");
  const stored = new Blob([content.subarray(start, start + packed)]);
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const stream = format ? stored.stream().pipeThrough(new DecompressionStream(format)) : stored.stream();
  for (const reader = stream.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return new Blob(parts);
    room -= value.length;
    if (room < 0) {
      await reader.cancel();
      throw new Refused(`archive ${name}`, "more than it should hold", `at most ${LIMITS.ratio} times its size`);
    }
    parts.push(value);
  }
}

function view(content: Uint8Array): DataView {
  return new DataView(content.buffer, content.byteOffset, content.byteLength);
}
