import { describe, expect, test } from "vitest";
import { finished, Words } from "../src/model/words";
import { expected, keyboard } from "./expected";

const text = keyboard();
const words = new Words(text);

describe("the tokenizer", () => {
  test.each(Object.entries(expected.ids))("cuts %j as Python does", (typed, ids) => {
    expect(text.encode(typed)).toEqual(ids);
  });

  test.each(Object.entries(expected.decoded))("puts %j together again", (typed, decoded) => {
    expect(text.decode(text.encode(typed))).toBe(decoded);
  });

  test("keeps the end of a text that is too long, behind the first mark", () => {
    expect(text.begin("I think that we should go", 6)).toEqual(expected.begun);
  });
});

describe("words", () => {
  test.each(Object.entries(expected.divided))("are cut off %j where Python cuts them", (typed, divided) => {
    const { before, target } = words.divide(typed);
    expect([before, [...target]]).toEqual(divided);
  });

  test("go on with the same pieces", () => {
    for (const [spelled, target, ids] of expected.following) {
      expect(words.following(Uint8Array.from(spelled!), Uint8Array.from(target!))).toEqual(ids);
    }
  });

  test("end before the same pieces", () => {
    expect(words.ends).toEqual(expected.ends);
  });

  test.each(Object.entries(expected.finished))("%j is whole or not", (spelled, word) => {
    const utf8 = new TextEncoder();
    expect(finished(utf8.encode(spelled), utf8.encode(" th"))).toBe(word);
  });
});
