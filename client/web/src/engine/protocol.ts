/** What the page and the worker that computes tell each other. */
import type { Suggestion } from "../model/suggest";

export interface BaseFacts {
  readonly name: string;
  readonly parameters: number | null;
  readonly precision: string;
  readonly fingerprint: string;
  readonly signer: string;
  readonly bytes: number;
}

export interface PersonFacts {
  readonly name: string;
  readonly method: string | null;
  readonly bytes: number;
}

/** Calls by name: what they take and what they return. */
export interface Calls {
  load: { take: { root: string }; give: { base: BaseFacts; people: readonly string[]; engine: number } };
  add: { take: { name: string; files?: ReadonlyMap<string, Blob> }; give: PersonFacts };
  suggest: { take: { typed: string; who: string; count: number }; give: { words: Suggestion[]; ms: number } };
  complete: { take: { prompt: string; who: string; tokens: number }; give: string };
  requests: { take: object; give: number };
}

export type CallName = keyof Calls;

export interface Request<Name extends CallName = CallName> {
  readonly id: number;
  readonly call: Name;
  readonly take: Calls[Name]["take"];
}

export type Reply =
  | { readonly id: number; readonly give: unknown }
  | { readonly id: number; readonly refused: string }
  | { readonly id: number; readonly part: string }
  | { readonly loaded: string; readonly bytes: number; readonly of: number };
