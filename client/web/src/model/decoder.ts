/** One forward pass of a base's graph, with what it remembers of the tokens before (fedpeft/device/decoder.py). */
import * as ort from "onnxruntime-web/wasm";
import type { Tensor } from "../bundle/adapter_file";
import type { DecoderFacts } from "../bundle/manifest";
import { Refused } from "../refused";

/** Keys and values of the tokens each row has read, one array per layer and part (rows, kv_heads, length, head_dim). */
export interface Cache {
  readonly rows: number;
  readonly length: number;
  readonly values: readonly Float32Array[];
}

/** A value for every site of the graph: a person's adapter, or nothing. */
export type Filling = Readonly<Record<string, ort.Tensor>>;

export interface Read {
  /** Scores of every next token after the last token of each row, (rows, vocabulary). */
  readonly logits: readonly Float32Array[];
  readonly cache: Cache;
}

export class Decoder {
  private constructor(
    private readonly session: ort.InferenceSession,
    readonly facts: DecoderFacts,
    readonly past: readonly string[],
  ) {}

  static async load(
    graph: Uint8Array,
    weights: Uint8Array | null,
    facts: DecoderFacts,
    sites: Iterable<string>,
  ): Promise<Decoder> {
    const session = await ort.InferenceSession.create(graph, {
      executionProviders: ["wasm"],
      logSeverityLevel: 3,
      ...(weights ? { externalData: [{ path: "model.onnx.data", data: weights }] } : {}),
    });
    const layers = Array.from({ length: facts.layers }, (_, i) => i);
    const past = layers.flatMap((i) => [`past_key_values.${i}.key`, `past_key_values.${i}.value`]);
    const expected = [...new Set(["input_ids", "attention_mask", ...past, ...sites])].sort();
    const found = [...session.inputNames].sort();
    if (found.join() !== expected.join()) {
      throw new Refused("base graph inputs", `${found.length}`, `the ${expected.length} that its manifest implies`);
    }
    return new Decoder(session, facts, past);
  }

  /** Turn tensors into what {@link read} takes. */
  filling(tensors: ReadonlyMap<string, Tensor>): Filling {
    return Object.fromEntries(
      [...tensors].map(([name, { shape, data }]) => [name, new ort.Tensor("float32", data, [...shape])]),
    );
  }

  begin(): Cache {
    return { rows: 1, length: 0, values: this.past.map(() => new Float32Array()) };
  }

  /** Read tokens, as many in each row. Rows are never padded: the graph's attention is silently wrong with padding. */
  async read(ids: readonly (readonly number[])[], cache: Cache, filling: Filling): Promise<Read> {
    const rows = ids.length;
    const fresh = ids[0]?.length ?? 0;
    const length = cache.length + fresh;
    const { kvHeads, headDim, vocabulary, context } = this.facts;
    if (!fresh || length > context) throw new Refused("context", `${length} tokens`, `1 to ${context}`);
    const feeds: Record<string, ort.Tensor> = {
      ...filling,
      input_ids: new ort.Tensor("int64", BigInt64Array.from(ids.flat(), BigInt), [rows, fresh]),
      attention_mask: new ort.Tensor("int64", new BigInt64Array(rows * length).fill(1n), [rows, length]),
    };
    this.past.forEach((name, i) => {
      const value = cache.values[i] ?? new Float32Array();
      feeds[name] = new ort.Tensor("float32", value, [rows, kvHeads, cache.length, headDim]);
    });
    const results = await this.session.run(feeds);
    const scores = floats(results["logits"]);
    const logits = ids.map((_, row) => {
      const last = (row * fresh + fresh - 1) * vocabulary;
      return scores.subarray(last, last + vocabulary);
    });
    const values = this.past.map((name) => floats(results[name.replace("past_key_values", "present")]));
    return { logits, cache: { rows, length, values } };
  }

  /** Return a cache whose rows are copies of the chosen ones. */
  pick(cache: Cache, chosen: readonly number[]): Cache {
    const size = this.facts.kvHeads * cache.length * this.facts.headDim;
    const values = cache.values.map((value) => {
      const picked = new Float32Array(chosen.length * size);
      chosen.forEach((row, i) => picked.set(value.subarray(row * size, (row + 1) * size), i * size));
      return picked;
    });
    return { rows: chosen.length, length: cache.length, values };
  }

  /** Return a cache of one row that has read only its first `length` tokens. */
  shorten(cache: Cache, length: number): Cache {
    if (length === cache.length) return cache;
    const { kvHeads, headDim } = this.facts;
    const values = cache.values.map((value) => {
      const kept = new Float32Array(kvHeads * length * headDim);
      for (let head = 0; head < kvHeads; head++) {
        const from = head * cache.length * headDim;
        kept.set(value.subarray(from, from + length * headDim), head * length * headDim);
      }
      return kept;
    });
    return { rows: 1, length, values };
  }
}

function floats(tensor: ort.Tensor | undefined): Float32Array {
  if (!(tensor?.data instanceof Float32Array)) throw new Refused("graph output", tensor?.type ?? "none", "float32");
  return tensor.data;
}
