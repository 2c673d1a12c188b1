/** Where words begin and end among a vocabulary's pieces (fedpeft/device/words.py). */
import type { Text } from "./text";

const LETTER = "[\\p{L}\\p{N}]";
const WORD = new RegExp(`^${LETTER}+(?:['’]${LETTER}+)*$`, "u");
const CONTINUES = new RegExp(`^(?:['’]?${LETTER}+|’)$`, "u");
const TYPED = new RegExp(`${LETTER}(?:${LETTER}|['’])*$`, "u");

/** Rests of words for which the pieces that spell them are remembered. */
const KEPT = 256;

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const utf8 = new TextEncoder();

/** Ids of pieces, ascending. */
export type Pieces = readonly number[];

export class Words {
  /** Pieces that a word is over before: a space, punctuation, the end of the message. */
  readonly ends: Pieces;
  private readonly continues: Pieces;
  private readonly agreeing = new Map<string, Pieces>();

  constructor(readonly text: Text) {
    this.continues = this.among(continues);
    const end = new Set(text.facts.end);
    this.ends = this.among((piece, id) => end.has(id) || (piece.length > 0 && !continues(piece)));
  }

  /**
   * Return which pieces may come after `spelled`. Until `target` is spelled: those that spell more of it, or the rest
   * of it and more of the same word.
   */
  following(spelled: Uint8Array, target: Uint8Array): Pieces {
    const rest = target.subarray(spelled.length);
    if (!rest.length) return this.continues;
    const key = rest.join();
    const known = this.agreeing.get(key);
    if (known) return known;
    if (this.agreeing.size >= KEPT) this.agreeing.clear();
    const pieces = this.among((piece) => agrees(piece, rest));
    this.agreeing.set(key, pieces);
    return pieces;
  }

  private among(chosen: (piece: Uint8Array, id: number) => boolean): Pieces {
    return this.text.pieces.flatMap((piece, id) => (chosen(piece, id) ? [id] : []));
  }

  /** Cut a text before its last word: whole words, and what the next pieces must spell first. */
  divide(typed: string): { before: string; target: Uint8Array } {
    const letters = TYPED.exec(typed)?.[0] ?? "";
    const whole = typed.slice(0, typed.length - letters.length);
    const before = trimEnd(whole);
    const spelled = utf8.encode(letters);
    if (!before) return { before, target: Uint8Array.of(...this.text.lead, ...spelled) };
    const attached = letters && before === whole; // as in "(so"
    return { before, target: attached ? spelled : Uint8Array.of(0x20, ...spelled) };
  }
}

/** Return the word that was spelled, or nothing if it is not a whole one beginning with `target`. */
export function finished(spelled: Uint8Array, target: Uint8Array): string {
  if (!startsWith(spelled, target)) return "";
  const word = decoded(spelled)?.trim() ?? "";
  return WORD.test(word) ? word : "";
}

/** Cut white space off the end, what Python's `rstrip` takes for it. */
export function trimEnd(text: string): string {
  return text.replace(/[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$/u, "");
}

/** Say whether a word can go on with this piece; a part of a character counts as one of a letter. */
function continues(piece: Uint8Array): boolean {
  const text = decoded(piece);
  return text === null || CONTINUES.test(text);
}

function agrees(piece: Uint8Array, rest: Uint8Array): boolean {
  if (piece.length <= rest.length) return piece.length > 0 && startsWith(rest, piece);
  return startsWith(piece, rest) && continues(piece[0] === 0x20 ? piece.subarray(1) : piece);
}

function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  return bytes.length >= prefix.length && prefix.every((byte, i) => byte === bytes[i]);
}

function decoded(bytes: Uint8Array): string | null {
  try {
    return strict.decode(bytes);
  } catch {
    return null;
  }
}
