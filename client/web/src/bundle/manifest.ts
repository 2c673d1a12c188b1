/** What a bundle says of itself (fedpeft/device/manifest.py), read field by field: nothing unchecked gets through. */
import { Refused } from "../refused";

/** `null` stands for a width that the adapter chooses. */
export type Shape = readonly (number | null)[];

export interface File {
  readonly sha256: string;
  readonly bytes: number;
}

export interface DecoderFacts {
  readonly context: number;
  readonly vocabulary: number;
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly start: readonly number[];
  readonly me: readonly number[];
  readonly end: readonly number[];
}

export interface Manifest {
  readonly kind: "base" | "adapter";
  readonly fingerprint: string;
  readonly signer: string;
  readonly name: string;
  readonly method: string | null;
  readonly variant: string | null;
  readonly precision: string;
  readonly files: ReadonlyMap<string, File>;
  readonly tensors: ReadonlyMap<string, Shape>;
  readonly decoder: DecoderFacts | null;
  readonly parameters: number | null;
}

/** Nobody's adapter: the bare base. No person may be called that. */
export const NOBODY = "base";

const SCHEMA = 2;
const FILENAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const DIGEST = /^[0-9a-f]{64}$/;

export function parseManifest(content: Uint8Array): Manifest {
  let fields: unknown;
  try {
    fields = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch (error) {
    throw new Refused("manifest.json", String(error), "JSON");
  }
  const read = new Reader(fields, "manifest");
  if (read.value("schema_version") !== SCHEMA) {
    throw new Refused("manifest.schema_version", read.value("schema_version"), String(SCHEMA));
  }
  const kind = read.text("kind");
  if (kind !== "base" && kind !== "adapter") throw new Refused("manifest.kind", kind, "base or adapter");
  return {
    kind,
    fingerprint: read.text("base_fingerprint", DIGEST),
    signer: read.text("signer", DIGEST),
    name: read.text("name", /^.{1,200}$/su),
    method: read.optional("method", (r, key) => r.text(key)),
    variant: read.optional("variant", (r, key) => r.text(key)),
    precision: read.text("precision"),
    files: read.map("files", FILENAME, (r) => ({ sha256: r.text("sha256", DIGEST), bytes: r.integer("bytes") })),
    tensors: read.shapes("tensors"),
    decoder: read.optional("decoder", (r, key) => decoderFacts(r.inside(key))),
    parameters: parameters(read.value("details")),
  };
}

function decoderFacts(read: Reader): DecoderFacts {
  const facts = {
    context: read.integer("context"),
    vocabulary: read.integer("vocabulary"),
    layers: read.integer("layers"),
    kvHeads: read.integer("kv_heads"),
    headDim: read.integer("head_dim"),
    start: read.integers("start"),
    me: read.integers("me"),
    end: read.integers("end"),
  };
  for (const size of ["context", "vocabulary", "layers", "kvHeads", "headDim"] as const) {
    if (facts[size] < 1) throw new Refused(`manifest.decoder.${size}`, facts[size], "1 or more");
  }
  return facts;
}

/** A fact for people; nothing depends on it. */
function parameters(details: unknown): number | null {
  const found = (details as { parameters?: unknown } | null)?.parameters;
  return typeof found === "number" ? found : null;
}

class Reader {
  private readonly fields: Record<string, unknown>;

  constructor(
    fields: unknown,
    private readonly where: string,
  ) {
    if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
      throw new Refused(where, fields, "an object");
    }
    this.fields = fields as Record<string, unknown>;
  }

  value(key: string): unknown {
    return Object.hasOwn(this.fields, key) ? this.fields[key] : null;
  }

  inside(key: string): Reader {
    return new Reader(this.value(key), `${this.where}.${key}`);
  }

  optional<T>(key: string, read: (reader: Reader, key: string) => T): T | null {
    return this.value(key) === null ? null : read(this, key);
  }

  text(key: string, pattern = /^/): string {
    const found = this.value(key);
    if (typeof found !== "string" || !pattern.test(found)) throw this.refused(key, `text like ${pattern.source}`);
    return found;
  }

  integer(key: string): number {
    const found = this.value(key);
    if (!isCount(found)) throw this.refused(key, "an integer of 0 or more");
    return found;
  }

  integers(key: string): number[] {
    const found = this.value(key);
    if (!Array.isArray(found) || !found.every(isCount)) throw this.refused(key, "integers");
    return found;
  }

  map<T>(key: string, names: RegExp, read: (reader: Reader) => T): Map<string, T> {
    const inner = this.inside(key);
    return new Map(
      Object.keys(inner.fields).map((name) => {
        if (!names.test(name)) throw new Refused(inner.where, name, "a plain name");
        return [name, read(inner.inside(name))];
      }),
    );
  }

  shapes(key: string): Map<string, Shape> {
    const inner = this.inside(key);
    return new Map(
      Object.entries(inner.fields).map(([name, shape]) => {
        if (!Array.isArray(shape) || !shape.every((size) => size === null || isCount(size))) {
          throw inner.refused(name, "a shape");
        }
        return [name, shape as Shape];
      }),
    );
  }

  private refused(key: string, expected: string): Refused {
    return new Refused(`${this.where}.${key}`, this.value(key), expected);
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
