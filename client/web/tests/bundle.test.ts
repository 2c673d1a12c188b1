import { describe, expect, test } from "vitest";
import { readAdapterFile } from "../src/bundle/adapter_file";
import { encode, hex, unhex } from "../src/bundle/encoding";
import { parseManifest } from "../src/bundle/manifest";
import { fill, neutral } from "../src/bundle/sites";
import { expected } from "./expected";

const utf8 = new TextEncoder();
const file = Uint8Array.from(Buffer.from(expected.adapter.file, "base64"));

describe("the canonical encoding", () => {
  test("is Python's", () => {
    expect(hex(encode("bundle", utf8.encode("abc"), new Uint8Array()))).toBe(expected.encoded);
  });

  test("hexadecimal goes there and back", () => {
    expect(hex(unhex("00ff10"))).toBe("00ff10");
  });
});

describe("an adapter's file", () => {
  test("holds what onnxruntime wrote, in float32 and float16", () => {
    const tensors = readAdapterFile(file);
    expect([...tensors.keys()].sort()).toEqual(Object.keys(expected.adapter.tensors).sort());
    for (const [name, [shape, numbers]] of Object.entries(expected.adapter.tensors)) {
      expect(tensors.get(name)!.shape).toEqual(shape);
      expect([...tensors.get(name)!.data]).toEqual((numbers as number[]).map(Math.fround));
    }
  });

  test("is refused when cut off anywhere, and never read beyond its end", () => {
    for (let length = 0; length < file.length - 64; length += 7) {
      expect(() => readAdapterFile(file.slice(0, length))).toThrow(/adapter/);
    }
  });

  test("is refused or read, but never crashes, whatever byte is changed", () => {
    for (let i = 0; i < file.length; i++) {
      const damaged = file.slice();
      damaged[i]! ^= 0xff;
      try {
        readAdapterFile(damaged);
      } catch (error) {
        expect((error as Error).name).toBe("Refused");
      }
    }
  });
});

describe("sites", () => {
  const sites = new Map([
    ["a.lora_A.weight", [3, null]],
    ["a.out_scale", [2]],
  ]);

  test("that nobody fills change nothing", () => {
    expect(neutral("a.out_scale", [2]).data).toEqual(Float32Array.of(1, 1));
    expect(neutral("a.lora_A.weight", [3, null])).toEqual({ shape: [3, 0], data: new Float32Array() });
  });

  test("take what fits and refuse what does not", () => {
    const tensor = { shape: [3, 1], data: Float32Array.of(1, 2, 3) };
    const listed = new Map([["a.lora_A.weight", [3, 1]]]);
    expect(fill(new Map([["a.lora_A.weight", tensor]]), listed, sites).get("a.lora_A.weight")).toBe(tensor);
    expect(() => fill(new Map(), new Map(), sites)).toThrow("at least one");
    const wide = { shape: [4, 1], data: new Float32Array(4) };
    expect(() => fill(new Map([["a.lora_A.weight", wide]]), new Map([["a.lora_A.weight", [4, 1]]]), sites)).toThrow(
      "shape",
    );
    expect(() => fill(new Map([["b", tensor]]), new Map([["b", [3, 1]]]), sites)).toThrow("an input of the graph");
  });
});

describe("a manifest", () => {
  const good = {
    schema_version: 2,
    kind: "adapter",
    base_fingerprint: "0".repeat(64),
    signer: "1".repeat(64),
    name: "ada",
    method: "lora",
    variant: null,
    precision: "float32",
    files: { "adapter.onnx_adapter": { sha256: "2".repeat(64), bytes: 3 } },
    tensors: { "a.lora_A.weight": [3, 1] },
    decoder: null,
    details: {},
  };
  const parse = (fields: object) => parseManifest(utf8.encode(JSON.stringify(fields)));

  test("is read", () => {
    expect(parse(good).name).toBe("ada");
  });

  test.each([
    [{ schema_version: 1 }, "schema_version"],
    [{ kind: "other" }, "kind"],
    [{ signer: "A".repeat(64) }, "signer"],
    [{ name: "" }, "name"],
    [{ files: { "../x": { sha256: "2".repeat(64), bytes: 3 } } }, "plain name"],
    [{ files: { x: { sha256: "2", bytes: 3 } } }, "sha256"],
    [{ files: { x: { sha256: "2".repeat(64), bytes: -1 } } }, "bytes"],
    [{ tensors: { a: [-1] } }, "shape"],
    [{ decoder: {} }, "decoder"],
  ])("with %j is refused", (change, reason) => {
    expect(() => parse({ ...good, ...change })).toThrow(reason);
  });

  test("that is no JSON is refused", () => {
    expect(() => parseManifest(utf8.encode("{"))).toThrow("JSON");
  });
});
