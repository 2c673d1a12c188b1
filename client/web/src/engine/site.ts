/** What `fedpeft web build` says of the folder it wrote (`bundles/index.json`). */
import { Refused } from "../refused";

export interface Site {
  /** Public keys whose base is believed; its adapters must be signed by the base's own signer. */
  readonly trusted: ReadonlySet<string>;
  readonly people: readonly string[];
}

export function parseSite(content: Uint8Array): Site {
  const fields = JSON.parse(new TextDecoder().decode(content)) as { trusted?: unknown; people?: unknown };
  return {
    trusted: new Set(texts("trusted", fields.trusted, /^[0-9a-f]{64}$/)),
    people: texts("people", fields.people, NAME),
  };
}

/** A plain name: without separators or a leading dot it cannot leave the folder. */
const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

function texts(field: string, found: unknown, pattern: RegExp): string[] {
  if (!Array.isArray(found) || !found.every((name) => typeof name === "string" && pattern.test(name))) {
    throw new Refused(`bundles/index.json ${field}`, found, "a list of names");
  }
  return found as string[];
}
