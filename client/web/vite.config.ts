import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { defineConfig } from "vitest/config";

/** Name the build by its sources: the service worker of another build starts a cache of its own. */
function revision(): string {
  const hash = createHash("sha256").update(readFileSync("package-lock.json")).update(readFileSync("index.html"));
  for (const entry of readdirSync("src", { recursive: true, withFileTypes: true }).filter((e) => e.isFile())) {
    hash.update(readFileSync(join(entry.parentPath, entry.name)));
  }
  return hash.digest("hex").slice(0, 16);
}

export default defineConfig({
  base: "./", // the folder can be served from anywhere
  define: { __REVISION__: JSON.stringify(revision()) },
  worker: { format: "es" },
  test: {
    include: ["tests/**/*.test.ts"],
    // Node has its own way to find the engine's glue code; the page takes the bundled one.
    alias: { "onnxruntime-web/wasm": "onnxruntime-web" },
  },
  build: {
    target: "es2022",
    assetsInlineLimit: 0, // the content security policy allows no data: scripts or workers
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: { page: "index.html", sw: "src/sw.ts" },
      output: {
        // A service worker watches over the folder it lies in.
        entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
      },
    },
  },
});
