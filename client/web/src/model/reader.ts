/**
 * What was read last with each adapter, so that a keystroke costs only what is new: with `old` read and `ids` asked for,
 *
 *     read(ids) = read(ids[n:] | cache of old[:n]),   n the length of their common beginning
 */
import type { Decoder, Read } from "./decoder";
import type { Voice } from "./voice";

interface Memory extends Read {
  readonly ids: readonly number[];
}

export class Reader {
  private readonly memories = new WeakMap<Voice, Memory>();

  constructor(private readonly decoder: Decoder) {}

  async read(text: readonly number[], voice: Voice): Promise<Read> {
    const ids = [...voice.opening, ...text];
    const old = this.memories.get(voice);
    const same = old ? common(old.ids, ids) : 0;
    if (old && same === ids.length && same === old.ids.length) return old;
    // The last token is read again where all are known: its scores are those of another position.
    const kept = Math.min(same, ids.length - 1);
    const cache = old && kept ? this.decoder.shorten(old.cache, voice.start.length + kept) : voice.start;
    const read = await this.decoder.read([ids.slice(kept)], cache, voice.filling);
    this.memories.set(voice, { ids, ...read });
    return read;
  }
}

function common(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
