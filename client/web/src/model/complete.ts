/** How a message goes on, token by token, always the likeliest (`Runtime.complete` of fedpeft/device/runtime.py). */
import type { Decoder, Read } from "./decoder";
import type { Reader } from "./reader";
import type { Text } from "./text";
import type { Voice } from "./voice";
import { trimEnd } from "./words";

/** Yield the continuation as far as it is known, longer each time, to the end of the message or for `tokens` tokens. */
export async function* complete(
  prompt: string,
  decoder: Decoder,
  reader: Reader,
  text: Text,
  voice: Voice,
  tokens: number,
): AsyncGenerator<string> {
  const { context, end } = decoder.facts;
  const typed = trimEnd(prompt);
  const room = voice.room - Math.min(tokens, Math.floor(voice.room / 2));
  let read: Read = await reader.read(text.begin(typed, room), voice);
  const made: number[] = [];
  while (made.length < tokens) {
    const token = likeliest(read.logits[0]!);
    if (end.includes(token)) return;
    made.push(token);
    const continuation = text.decode(made);
    yield typed && typed === prompt ? continuation : continuation.replace(/^ +/, "");
    if (read.cache.length + 1 > context) return;
    read = await decoder.read([[token]], read.cache, voice.filling);
  }
}

function likeliest(logits: Float32Array): number {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[best]!) best = id;
  return best;
}
