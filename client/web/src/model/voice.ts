/** Somebody's adapter, ready to run: what fills the graph's sites, and what comes before every text. */
import type { Tensor } from "../bundle/adapter_file";
import { Refused } from "../refused";
import type { Cache, Decoder, Filling } from "./decoder";

export interface Voice {
  readonly filling: Filling;
  /** Ids that stand for a soft prompt; every text begins with them. */
  readonly opening: readonly number[];
  /** What a text begins with that has read nothing: empty, or a prefix of keys and values. */
  readonly start: Cache;
  /** How many tokens of text fit beside what comes before them. */
  readonly room: number;
}

export function voice(
  decoder: Decoder,
  sites: ReadonlyMap<string, Tensor>,
  prefix: ReadonlyMap<string, Tensor>,
): Voice {
  const { vocabulary, context } = decoder.facts;
  const prompt = sites.get("soft_prompt")?.shape[0] ?? 0;
  const start = prefix.size ? prefixed(decoder, prefix) : decoder.begin();
  const room = context - prompt - start.length;
  if (room < 1) throw new Refused("adapter", `${context - room} positions before a text`, `fewer than ${context}`);
  const opening = Array.from({ length: prompt }, (_, i) => vocabulary + i);
  return { filling: decoder.filling(sites), opening, start, room };
}

function prefixed(decoder: Decoder, prefix: ReadonlyMap<string, Tensor>): Cache {
  const { kvHeads, headDim } = decoder.facts;
  if (prefix.size !== decoder.past.length) {
    throw new Refused("adapter prefix", `${prefix.size} tensors`, `${decoder.past.length} keys and values`);
  }
  const length = prefix.get(decoder.past[0]!)?.shape[2] ?? 0;
  const expected = [1, kvHeads, length, headDim].join();
  const values = decoder.past.map((name) => {
    const tensor = prefix.get(name);
    if (tensor?.shape.join() !== expected)
      throw new Refused(`adapter ${name}`, tensor?.shape ?? "none", `[${expected}]`);
    return tensor.data;
  });
  return { rows: 1, length, values };
}
