/** Where the arithmetic happens, off the page's own thread: typing never waits for it. One call at a time. */
import * as ort from "onnxruntime-web/wasm";
import wasm from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import { Runtime } from "../model/runtime";
import { Refused } from "../refused";
import { download, fromDisk, fromSite, type Progress } from "./download";
import type { CallName, Calls, Reply, Request } from "./protocol";
import { parseSite } from "./site";

let root = "";
let runtime: Runtime | null = null;
let queue: Promise<unknown> = Promise.resolve();

type Part = (text: string) => void;
type Answers = { [Name in CallName]: (take: Calls[Name]["take"], part: Part) => Promise<Calls[Name]["give"]> };

const answers: Answers = {
  async load(take) {
    if (!globalThis.crypto?.subtle) throw new Refused("this address", location.protocol, "https or localhost");
    root = take.root;
    ort.env.wasm.numThreads = 1;
    // By its address, not by its bytes: so the browser compiles it as it arrives, and keeps the result.
    ort.env.wasm.wasmPaths = { wasm: new URL(wasm, import.meta.url).href };
    const site = parseSite(await download(`${root}/index.json`));
    runtime = await Runtime.load(fromSite(`${root}/base`, told("base")), site.trusted, () => told("engine")(0, 0));
    const { name, parameters, precision, fingerprint, signer, files } = runtime.manifest;
    const bytes = [...files.values()].reduce((sum, file) => sum + file.bytes, 0);
    const base = { name, parameters, precision, fingerprint, signer, bytes };
    return { base, people: site.people, engine: engineBytes() };
  },
  async add({ name, files }) {
    const source = files ? await fromDisk(files) : fromSite(`${root}/adapters/${encodeURIComponent(name)}`, told(name));
    const manifest = await loaded().add(name, source);
    if (!files && manifest.name !== name) throw new Refused(`adapter of ${name}`, `${manifest.name}'s`, `${name}'s`);
    const bytes = ["adapter.onnx_adapter", "prefix.onnx_adapter"].reduce(
      (sum, file) => sum + (manifest.files.get(file)?.bytes ?? 0),
      0,
    );
    return { name: manifest.name, method: manifest.method, bytes };
  },
  async suggest({ typed, who, count }) {
    const start = performance.now();
    const words = await loaded().suggest(typed, who, count);
    return { words, ms: performance.now() - start };
  },
  async complete({ prompt, who, tokens }, part) {
    let continuation = "";
    for await (continuation of loaded().complete(prompt, who, tokens)) part(continuation);
    return continuation;
  },
  async requests() {
    return performance.getEntriesByType("resource").length;
  },
};

/** Return how large the engine is, as the browser saw it; 0 where it does not tell. */
function engineBytes(): number {
  const entries = performance.getEntriesByType("resource") as PerformanceResourceTiming[];
  return entries.find((entry) => entry.name.endsWith(".wasm"))?.decodedBodySize ?? 0;
}

addEventListener("message", ({ data }: MessageEvent<Request>) => {
  queue = queue.then(() => answer(data));
});

async function answer<Name extends CallName>({ id, call, take }: Request<Name>): Promise<void> {
  try {
    reply({ id, give: await answers[call](take, (part) => reply({ id, part })) });
  } catch (error) {
    reply({ id, refused: error instanceof Error ? error.message : String(error) });
  }
}

function reply(message: Reply): void {
  postMessage(message);
}

function told(what: string): Progress {
  return (bytes, of) => reply({ loaded: what, bytes, of });
}

function loaded(): Runtime {
  if (!runtime) throw new Refused("base", "none", "one that is loaded");
  return runtime;
}
