/** What Python gives for the same input; written by tests/web/test_web_units.py. */
import { readFileSync } from "node:fs";
import type { DecoderFacts } from "../src/bundle/manifest";
import { Text } from "../src/model/text";
import expected from "./expected.json";

export { expected };

export const FACTS: DecoderFacts = {
  context: 512,
  vocabulary: 2048,
  layers: 4,
  kvHeads: 4,
  headDim: 64,
  start: [1],
  me: [3],
  end: [2],
};

export function keyboard(): Text {
  const path = new URL("../../../fedpeft/base/builtin/keyboard/tokenizer.json", import.meta.url);
  return new Text(readFileSync(path), FACTS);
}
