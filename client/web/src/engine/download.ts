/** Files of a bundle from the page's own server or from the person's disk; nothing else is ever asked for. */
import { isArchive, unpack } from "../bundle/archive";
import { joined } from "../bundle/encoding";
import type { Source } from "../bundle/bundle";
import { Refused } from "../refused";

export type Progress = (bytes: number, of: number) => void;

/** Fetch a file, telling how far it came. */
export async function download(url: string, progress?: Progress): Promise<Uint8Array<ArrayBuffer>> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch {
    throw new Refused(url, "no answer", "a file of this site");
  }
  if (!response.ok || !response.body) throw new Refused(url, `status ${response.status}`, "a file of this site");
  // The length of what travels, not of what arrives, where it is compressed.
  const of = response.headers.has("content-encoding") ? 0 : Number(response.headers.get("content-length") ?? 0);
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return joined(parts);
    parts.push(value);
    bytes += value.length;
    progress?.(bytes, of);
  }
}

/** Read a bundle of this site. A digest in the address names the content, so that caches never give an older one. */
export function fromSite(folder: string, progress?: Progress): Source {
  return (name, digest) => download(`${folder}/${name}${digest ? `?sha256=${digest}` : ""}`, progress);
}

/** Read a bundle that a person chose from their own disk: its files, or one archive of them. */
export async function fromDisk(chosen: ReadonlyMap<string, Blob>): Promise<Source> {
  const [only] = chosen.size === 1 ? chosen.values() : [];
  const content = only && new Uint8Array(await only.arrayBuffer());
  const files = content && isArchive(content) ? await unpack(content) : chosen;
  return async (name) => {
    const file = files.get(name);
    if (!file) throw new Refused("chosen files", [...files.keys()].join(", ") || "none", `${name} too`);
    return new Uint8Array(await file.arrayBuffer());
  };
}
