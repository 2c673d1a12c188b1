/** The page: loads the base and the people, and suggests words for what is typed. Nothing is sent anywhere. */
import { Engine, latest } from "../engine/engine";
import { NOBODY } from "../bundle/manifest";
import { Composer } from "./composer";
import { found, made, megabytes } from "./dom";
import { Facts } from "./facts";
import { watched } from "./offline";
import { People } from "./people";
import { Voices } from "./voices";

const ROOT = new URL("bundles", document.baseURI).href;
const COUNT = 3;
const LONGEST_COMPLETION = 32;
const WARM_UP = ["", "I ", "I th", "I think w"];
/** Other people's words are looked up when typing pauses. */
const PAUSE_MS = 250;

const status = found("status", HTMLParagraphElement);
const progress = found("progress", HTMLProgressElement);
const spent = found("spent", HTMLOutputElement);
const facts = new Facts();
const voices = new Voices();
const people = new People(() => changed());
const composer = new Composer(
  () => changed(),
  () => void finish(),
);
const engine = new Engine(arrived);
const sizes = new Map<string, number>();

let asked: Asked | null = null;
let pause = 0;
let requestsBefore = Number.POSITIVE_INFINITY;

interface Asked {
  readonly text: string;
  readonly who: string;
  readonly since: number;
}

const suggest = latest(async (now: Asked) => {
  const { text: typed, who, since } = now;
  const { words } = await engine.call("suggest", { typed, who, count: COUNT });
  if (now !== asked) return; // the next call is due
  composer.show(words);
  voices.show(who, words, true);
  const ms = performance.now() - since;
  performance.measure("suggest", { start: since, duration: ms });
  spent.value = `${ms.toFixed(0)} ms`;
  facts.time(ms);
}, failed);

const compare = latest(async (text: string) => {
  for (const who of people.names) {
    if (text !== composer.text) return;
    const { words } = await engine.call("suggest", { typed: text, who, count: COUNT });
    if (text === composer.text) voices.show(who, words, who === people.who);
  }
  facts.requests((await requests()) - requestsBefore);
}, failed);

function changed(): void {
  composer.outdated();
  asked = { text: composer.text, who: people.who, since: performance.now() };
  suggest(asked);
  clearTimeout(pause);
  pause = window.setTimeout(() => compare(composer.text), PAUSE_MS);
}

let finishing = false;

async function finish(): Promise<void> {
  if (finishing) return;
  composer.busy((finishing = true));
  await write(composer.text)
    .catch(failed)
    .finally(() => composer.busy((finishing = false)));
}

/** Put what follows into the message as it comes; whoever types meanwhile has the last word. */
async function write(prompt: string): Promise<void> {
  const take = { prompt, who: people.who, tokens: LONGEST_COMPLETION };
  let shown = "";
  const continuation = await engine.call("complete", take, (part) => {
    // A piece may end within a character; what is shown waits for its rest.
    if (part.endsWith("\ufffd") || composer.text !== prompt + shown) return;
    composer.append(part.slice(shown.length));
    shown = part;
  });
  if (composer.text === prompt + shown && continuation.startsWith(shown))
    composer.append(continuation.slice(shown.length));
  if (!continuation) say("The message ends here.");
}

async function add(name: string, files?: ReadonlyMap<string, Blob>): Promise<void> {
  try {
    const person = await engine.call("add", files ? { name, files } : { name });
    facts.person(person);
    people.add(person.name, files !== undefined);
    voices.add(person.name);
    changed();
  } catch (error) {
    refuse(name, error);
  }
}

function failed(error: unknown): void {
  say(`No words: ${reasonOf(error)}`);
}

function refuse(name: string, error: unknown): void {
  found("refused", HTMLUListElement).append(
    made("li", {}, made("strong", { textContent: `${name} ` }), reasonOf(error)),
  );
  say(`${name} was refused.`);
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function arrived(what: string, bytes: number, of: number): void {
  sizes.set(what, bytes);
  if (of) progress.value = Math.min(1, bytes / of);
  else progress.removeAttribute("value");
  if (!document.body.dataset["ready"])
    say(`Loading the ${what}… ${megabytes([...sizes.values()].reduce((a, b) => a + b, 0))}`);
}

function say(text: string): void {
  status.textContent = text;
}

async function requests(): Promise<number> {
  return performance.getEntriesByType("resource").length + (await engine.call("requests", {}));
}

async function start(): Promise<void> {
  facts.offline(await watched());
  const { base, people: names, engine: bytes } = await engine.call("load", { root: ROOT });
  facts.base(base);
  facts.engine(bytes);
  people.add(NOBODY);
  voices.add(NOBODY);
  composer.ready();
  for (const name of names) await add(name);
  await warmUp();
  changed();
  document.body.dataset["ready"] = "yes";
  document.body.dataset["loadMs"] = performance.now().toFixed(0);
  progress.hidden = true;
  requestsBefore = await requests();
  facts.requests(0);
  say("Ready. Everything is computed here; nothing you write leaves this device.");
}

/** The first runs are slow: memory is claimed, the browser has not compiled for speed yet. Nobody waits for them. */
async function warmUp(): Promise<void> {
  for (const typed of WARM_UP) await engine.call("suggest", { typed, who: NOBODY, count: COUNT });
}

found("open", HTMLInputElement).addEventListener("change", async (event) => {
  const input = event.target as HTMLInputElement;
  const files = new Map([...(input.files ?? [])].map((file) => [file.name, file]));
  if (files.size) await add("chosen adapter", files);
  input.value = "";
});

start().catch((error: unknown) => {
  document.body.dataset["failed"] = "yes";
  progress.hidden = true;
  refuse("The base", error);
});
