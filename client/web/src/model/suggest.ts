/**
 * The next words, by the beam search over pieces of fedpeft/device/suggest.py:
 *
 *     P(word | c) = sum over spellings p1 … pn of the word:  prod_i P(p_i | c, p_<i) * P(E | c, p_1 … p_n)
 *
 * with c the text before the word and E the pieces that cannot continue one. While a word is being typed, only pieces that
 * agree with its letters so far are followed, whatever way the tokenizer would have cut them.
 */
import { joined } from "../bundle/encoding";
import type { Decoder } from "./decoder";
import type { Reader } from "./reader";
import type { Text } from "./text";
import type { Voice } from "./voice";
import { finished, type Words } from "./words";

/** Unfinished words followed at a time, one row of a batch each. */
const WIDTH = 12;
/** Bytes of a word being typed; nobody wants completions of a longer one. */
const LONGEST = 48;
/** Pieces a word may go on for after its typed letters. */
const TAIL = 8;
/** Tokens by which the beginning of a long text is dropped: were it one by one, every keystroke would read it all. */
const STRIDE = 32;

export interface Suggestion {
  readonly word: string;
  /** Of this word after the words before it; the letters typed so far only choose among the words. */
  readonly probability: number;
}

interface Beam {
  readonly spelled: Uint8Array;
  readonly probability: number;
}

interface Step {
  readonly parent: number;
  readonly piece: number;
  readonly chance: number;
}

export async function suggest(
  typed: string,
  decoder: Decoder,
  reader: Reader,
  words: Words,
  voice: Voice,
  count: number,
): Promise<Suggestion[]> {
  const { before, target } = words.divide(typed);
  if (target.length > LONGEST) return [];
  const depth = Math.min(target.length + TAIL, Math.floor(voice.room / 2));
  let { logits, cache } = await reader.read(begin(words.text, before, voice.room - depth), voice);
  let beams: Beam[] = [{ spelled: new Uint8Array(), probability: 1 }];
  let scores = logits.map(softmax);
  const found = new Map<string, number>();
  for (let i = 0; i < depth; i++) {
    const bound = least(found, count);
    const steps = best(beams, scores, words, target).filter((step) => step.chance > bound);
    if (!steps.length) break;
    const pick = decoder.pick(
      cache,
      steps.map((step) => step.parent),
    );
    beams = steps.map(({ parent, piece, chance }) => ({
      spelled: joined([beams[parent]?.spelled ?? new Uint8Array(), words.text.pieces[piece] ?? new Uint8Array()]),
      probability: chance,
    }));
    ({ logits, cache } = await decoder.read(
      steps.map((step) => [step.piece]),
      pick,
      voice.filling,
    ));
    scores = logits.map(softmax);
    beams.forEach((beam, row) => {
      const word = finished(beam.spelled, target);
      if (!word) return;
      const over = words.ends.reduce((sum, id) => sum + scores[row]![id]!, 0);
      found.set(word, (found.get(word) ?? 0) + beam.probability * over);
    });
  }
  return largest(found, count).map(([word, probability]) => ({ word, probability }));
}

/** Return a text's tokens; of one that is too long, some more than needed are dropped. */
function begin(text: Text, before: string, room: number): number[] {
  const whole = text.begin(before, Number.POSITIVE_INFINITY).length;
  return text.begin(before, whole <= room ? room : whole - Math.ceil((whole - room) / STRIDE) * STRIDE);
}

export function softmax(scores: Float32Array): Float64Array {
  let highest = Number.NEGATIVE_INFINITY;
  for (const score of scores) if (score > highest) highest = score;
  const weights = new Float64Array(scores.length);
  let total = 0;
  for (let i = 0; i < scores.length; i++) total += weights[i] = Math.exp(scores[i]! - highest);
  for (let i = 0; i < scores.length; i++) weights[i]! /= total;
  return weights;
}

/** Return the {@link WIDTH} likeliest ways on, best first, and among equals the first. */
function best(beams: Beam[], scores: readonly Float64Array[], words: Words, target: Uint8Array): Step[] {
  const top: Step[] = [];
  beams.forEach((beam, parent) => {
    for (const piece of words.following(beam.spelled, target)) {
      const chance = beam.probability * scores[parent]![piece]!;
      if (chance <= (top[WIDTH - 1]?.chance ?? 0)) continue;
      const place = top.findIndex((step) => step.chance < chance);
      top.splice(place < 0 ? top.length : place, 0, { parent, piece, chance });
      top.length = Math.min(top.length, WIDTH);
    }
  });
  return top;
}

/** Return the probability a word must exceed to be among the best `count`. */
function least(found: ReadonlyMap<string, number>, count: number): number {
  return largest(found, count)[count - 1]?.[1] ?? 0;
}

function largest(found: ReadonlyMap<string, number>, count: number): [string, number][] {
  return [...found].sort((a, b) => b[1] - a[1]).slice(0, count);
}
