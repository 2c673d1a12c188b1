/**
 * A bundle opened in the browser: its manifest is its signer's, and every file is what the manifest says.
 *
 * The same rules as fedpeft/device/bundle.py; the arithmetic is the browser's own (WebCrypto: Ed25519, SHA-256).
 */
import { encode, hex, unhex } from "./encoding";
import { parseManifest, type Manifest } from "./manifest";
import { Refused } from "../refused";

/** Where a bundle's files come from. The digest, where it is known, names the content for caches. */
export type Source = (name: string, digest?: string) => Promise<Uint8Array<ArrayBuffer>>;

export class Bundle {
  private constructor(
    readonly where: string,
    readonly manifest: Manifest,
    private readonly source: Source,
  ) {}

  /** Read the manifest and verify its signature; `trusted` are the public keys that are believed. */
  static async open(
    where: string,
    source: Source,
    kind: "base" | "adapter",
    trusted: ReadonlySet<string>,
  ): Promise<Bundle> {
    const [content, signature] = await Promise.all([source("manifest.json"), source("manifest.sig")]);
    const manifest = parseManifest(content);
    if (manifest.kind !== kind) throw new Refused(`${where} kind`, manifest.kind, `a bundle of kind ${kind}`);
    if (!trusted.has(manifest.signer)) {
      const known = [...trusted].map(brief).join(", ") || "none is trusted";
      throw new Refused(`${where} signer`, brief(manifest.signer), `one that is trusted: ${known}`);
    }
    const key = await crypto.subtle.importKey("raw", unhex(manifest.signer), "Ed25519", false, ["verify"]);
    if (!(await crypto.subtle.verify("Ed25519", key, signature, encode("bundle", content)))) {
      throw new Refused(`${where} manifest.sig`, "another signature", "its signer's signature of the manifest");
    }
    return new Bundle(where, manifest, source);
  }

  /** Return a file's content, exactly the bytes that were hashed. */
  async read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const listed = this.manifest.files.get(name);
    if (listed === undefined) throw new Refused(`${this.where} files`, [...this.manifest.files.keys()], `${name} too`);
    const content = await this.source(name, listed.sha256);
    const field = `${this.where} ${name}`;
    if (content.length !== listed.bytes) throw new Refused(field, `${content.length} bytes`, `${listed.bytes} bytes`);
    const digest = hex(new Uint8Array(await crypto.subtle.digest("SHA-256", content)));
    if (digest !== listed.sha256) throw new Refused(field, `sha256 ${brief(digest)}`, `sha256 ${brief(listed.sha256)}`);
    return content;
  }

  requireBase(fingerprint: string): void {
    const found = this.manifest.fingerprint;
    if (found !== fingerprint) throw new Refused(`${this.where} base`, brief(found), `the base ${brief(fingerprint)}`);
  }
}

export function brief(digest: string): string {
  return `${digest.slice(0, 12)}…`;
}
