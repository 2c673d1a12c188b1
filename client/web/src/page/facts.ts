/** What is loaded, how large and how quick it is, and what has left the device. */
import type { BaseFacts, PersonFacts } from "../engine/protocol";
import { brief } from "../bundle/bundle";
import { found, made, megabytes } from "./dom";

const KEPT = 50;
/** In the order of the panel. */
const TERMS = [
  "Suggestion",
  "Requests since loading",
  "Offline",
  "Base",
  "Personal",
  "Engine",
  "Fingerprint",
  "Signed by",
] as const;

export class Facts {
  private readonly list = found("facts", HTMLDListElement);
  private readonly shown = new Map<string, HTMLElement>();
  private readonly times: number[] = [];
  private readonly people = new Map<string, number>();

  constructor() {
    for (const term of TERMS) {
      const value = made("dd", { textContent: "…" });
      this.shown.set(term, value);
      this.list.append(made("div", {}, made("dt", { textContent: term }), value));
    }
  }

  base(base: BaseFacts): void {
    const parameters = base.parameters ? `${(base.parameters / 1e6).toFixed(1)}\u00a0M parameters, ` : "";
    this.set("Base", `${base.name}, ${parameters}${base.precision}, ${megabytes(base.bytes)}`);
    this.set("Fingerprint", brief(base.fingerprint), base.fingerprint);
    this.set("Signed by", brief(base.signer), base.signer);
  }

  person({ name, bytes }: PersonFacts): void {
    this.people.set(name, bytes);
    const sum = [...this.people.values()].reduce((a, b) => a + b, 0);
    const count = this.people.size === 1 ? "1 adapter" : `${this.people.size} adapters`;
    this.set("Personal", `${count}, ${megabytes(sum)}`);
  }

  engine(bytes: number): void {
    this.set("Engine", bytes ? `onnxruntime-web, ${megabytes(bytes)}` : "onnxruntime-web");
  }

  time(ms: number): void {
    this.times.push(ms);
    if (this.times.length > KEPT) this.times.shift();
    const sorted = [...this.times].sort((a, b) => a - b);
    this.set(
      "Suggestion",
      `${sorted[Math.floor(sorted.length / 2)]!.toFixed(0)} ms, the median of the last ${sorted.length}`,
    );
  }

  offline(text: string): void {
    this.set("Offline", text);
  }

  requests(count: number): void {
    this.set("Requests since loading", count === 0 ? "none; what you write stays here" : `${count}`);
  }

  private set(term: (typeof TERMS)[number], text: string, title = ""): void {
    const value = this.shown.get(term)!;
    if (value.textContent !== text) value.textContent = text;
    value.title = title;
  }
}
