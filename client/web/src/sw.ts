/**
 * The page without a network: everything it ever loaded lies in a cache, and nothing is asked of any other site.
 *
 *   content-addressed (assets/, ?sha256=)   from the cache, else the network, and kept
 *   everything else of this site            from the network, and kept; without a network from the cache
 *   another site                            refused
 */
declare const __REVISION__: string;

const worker = globalThis as unknown as ServiceWorkerGlobalScope;

const CACHE = `fedpeft-${__REVISION__}`;
const PREFIX = "fedpeft-";

worker.addEventListener("install", (event) => event.waitUntil(keepShell().then(() => worker.skipWaiting())));

worker.addEventListener("activate", (event) => event.waitUntil(dropOthers().then(() => worker.clients.claim())));

worker.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET") return;
  const url = new URL(event.request.url);
  if (url.origin !== worker.location.origin) event.respondWith(Response.error());
  else event.respondWith(isAddressed(url) ? cacheFirst(event.request) : networkFirst(event.request));
});

/** Keep the page and what it names: it was loaded before this worker could watch. */
async function keepShell(): Promise<void> {
  const cache = await caches.open(CACHE);
  const page = await fetch("./", { cache: "no-cache" });
  const html = await page.clone().text();
  const named = new Set([...html.matchAll(/(?:href|src)="(\.\/[^"]+)"/g)].map((match) => match[1]!));
  await Promise.all([cache.put("./", page), cache.addAll([...named])]);
}

async function dropOthers(): Promise<void> {
  const names = await caches.keys();
  await Promise.all(
    names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name)),
  );
}

function isAddressed(url: URL): boolean {
  return url.searchParams.has("sha256") || url.pathname.includes("/assets/");
}

async function cacheFirst(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  return (await cache.match(request)) ?? keep(cache, request, await fetch(request));
}

async function networkFirst(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  try {
    return await keep(cache, request, await fetch(request));
  } catch (error) {
    const kept = await cache.match(request.mode === "navigate" ? "./" : request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}

async function keep(cache: Cache, request: Request, response: Response): Promise<Response> {
  if (response.status === 200) await cache.put(request.mode === "navigate" ? "./" : request, response.clone());
  return response;
}

export {};
