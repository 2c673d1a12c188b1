/** Between what a person types and the pieces a base reads (fedpeft/device/text.py), for byte-level vocabularies. */
import { Tokenizer } from "@huggingface/tokenizers";
import { joined } from "../bundle/encoding";
import type { DecoderFacts } from "../bundle/manifest";
import { Refused } from "../refused";

interface TokenizerFile {
  added_tokens?: { id: number; special?: boolean }[];
}

export class Text {
  /** The bytes of every piece by id, empty for marks. */
  readonly pieces: readonly Uint8Array[];
  /** What the first word of a message begins with: a space, or nothing in other tokenizers. */
  readonly lead: Uint8Array;
  private readonly tokenizer: Tokenizer;

  constructor(
    content: Uint8Array,
    readonly facts: DecoderFacts,
  ) {
    const file = JSON.parse(new TextDecoder().decode(content)) as TokenizerFile;
    const added = file.added_tokens ?? [];
    // "</s>" typed by a person is five characters, not the end of their message.
    this.tokenizer = new Tokenizer({ ...file, added_tokens: added.filter((token) => !token.special) }, {});
    this.pieces = spell(this.tokenizer, new Set(added.map((token) => token.id)), facts.vocabulary);
    const first = this.pieces[this.encode("a")[0] ?? -1];
    this.lead = first?.[0] === SPACE ? Uint8Array.of(SPACE) : new Uint8Array();
  }

  /** Return a text's pieces, without marks. */
  encode(text: string): number[] {
    return text ? this.tokenizer.encode(text, { add_special_tokens: false }).ids : [];
  }

  /** Return the text of pieces; marks say nothing. */
  decode(ids: readonly number[]): string {
    return new TextDecoder().decode(joined(ids.map((id) => this.pieces[id] ?? new Uint8Array())));
  }

  /** Open a message of one's own, `<s> <me> pieces`; what does not fit into `room` is cut from its beginning. */
  begin(text: string, room: number): number[] {
    const { start, me } = this.facts;
    const ids = [...me, ...this.encode(text)];
    const kept = ids.slice(Math.max(0, ids.length - (room - start.length)));
    if (!start.length && !kept.length) throw new Refused("prompt", text, "some text");
    return [...start, ...kept];
  }
}

const SPACE = 0x20;

function spell(tokenizer: Tokenizer, marks: ReadonlySet<number>, vocabulary: number): Uint8Array[] {
  const spelled = alphabet();
  return Array.from({ length: vocabulary }, (_, id) => {
    const token = marks.has(id) ? "" : (tokenizer.id_to_token(id) ?? "");
    return Uint8Array.from(token, (character) => {
      const byte = spelled.get(character);
      if (byte === undefined) throw new Refused("tokenizer.json", token, "byte-level pieces");
      return byte;
    });
  });
}

/**
 * Return the byte each character of a byte-level vocabulary stands for: printable Latin-1 bytes stand for themselves, the
 * other 68 for the characters from U+0100 on, in order (Radford et al. 2019, the GPT-2 tokenizer).
 */
function alphabet(): Map<string, number> {
  const found = new Map<string, number>();
  let others = 0;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte < 0x7f) || (byte >= 0xa1 && byte !== 0xad);
    found.set(String.fromCharCode(printable ? byte : 0x100 + others++), byte);
  }
  return found;
}
