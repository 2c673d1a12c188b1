/** A base in the browser and the people whose adapters run on it (fedpeft/device/runtime.py). */
import { readAdapterFile } from "../bundle/adapter_file";
import { Bundle, type Source } from "../bundle/bundle";
import { NOBODY, type Manifest } from "../bundle/manifest";
import { fill, neutral } from "../bundle/sites";
import { Refused } from "../refused";
import { complete } from "./complete";
import { Decoder } from "./decoder";
import { Reader } from "./reader";
import { suggest, type Suggestion } from "./suggest";
import { Text } from "./text";
import { voice, type Voice } from "./voice";
import { Words } from "./words";

const GRAPH = "model.onnx";
const WEIGHTS = "model.onnx.data";
const TOKENIZER = "tokenizer.json";
const ADAPTER = "adapter.onnx_adapter";
const PREFIX = "prefix.onnx_adapter";

export class Runtime {
  private readonly reader: Reader;
  private readonly voices = new Map<string, Voice>();

  private constructor(
    readonly manifest: Manifest,
    private readonly decoder: Decoder,
    private readonly words: Words,
  ) {
    this.reader = new Reader(decoder);
    const nothing = new Map([...manifest.tensors].map(([name, shape]) => [name, neutral(name, shape)]));
    this.voices.set(NOBODY, voice(decoder, nothing, new Map()));
  }

  /** Load a base; `starting` is called when its files are there and the engine is about to be fetched. */
  static async load(source: Source, trusted: ReadonlySet<string>, starting: () => void): Promise<Runtime> {
    const bundle = await Bundle.open("base", source, "base", trusted);
    const { manifest } = bundle;
    if (!manifest.decoder) throw new Refused("base", "an encoder", "a decoder, which can suggest words");
    if (manifest.variant !== "required") {
      throw new Refused("base variant", manifest.variant, "required: export it with `fedpeft web build`");
    }
    const [graph, tokenizer] = await Promise.all([bundle.read(GRAPH), bundle.read(TOKENIZER)]);
    const weights = manifest.files.has(WEIGHTS) ? await bundle.read(WEIGHTS) : null;
    starting();
    const decoder = await Decoder.load(graph, weights, manifest.decoder, manifest.tensors.keys());
    return new Runtime(manifest, decoder, new Words(new Text(tokenizer, manifest.decoder)));
  }

  /** Verify a person's adapter and keep it; who signed the base must have signed it. */
  async add(where: string, source: Source): Promise<Manifest> {
    const bundle = await Bundle.open(where, source, "adapter", new Set([this.manifest.signer]));
    const { manifest } = bundle;
    bundle.requireBase(this.manifest.fingerprint);
    if (manifest.name === NOBODY) throw new Refused(`${where} name`, manifest.name, "a person's");
    const has = (name: string): boolean => manifest.files.has(name);
    if (!has(ADAPTER) && !has(PREFIX))
      throw new Refused(`${where} files`, [...manifest.files.keys()], `${ADAPTER} too`);
    const tensors = has(ADAPTER) ? readAdapterFile(await bundle.read(ADAPTER)) : new Map();
    const prefix = has(PREFIX) ? readAdapterFile(await bundle.read(PREFIX)) : new Map();
    const sites = fill(tensors, manifest.tensors, this.manifest.tensors, prefix.size > 0);
    this.voices.set(manifest.name, voice(this.decoder, sites, prefix));
    return manifest;
  }

  suggest(typed: string, who: string, count: number): Promise<Suggestion[]> {
    return suggest(typed, this.decoder, this.reader, this.words, this.voice(who), count);
  }

  complete(prompt: string, who: string, tokens: number): AsyncGenerator<string> {
    return complete(prompt, this.decoder, this.reader, this.words.text, this.voice(who), tokens);
  }

  private voice(who: string): Voice {
    const found = this.voices.get(who);
    if (!found) throw new Refused("person", who, [...this.voices.keys()].join(", "));
    return found;
  }
}
