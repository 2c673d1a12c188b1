/** The service worker, which keeps the page for times without a network. */

const PATIENCE_MS = 2500;

/**
 * Start it and wait until it watches over this page, so that it sees, and keeps, the large files that follow.
 *
 * Returns what to say of it; a browser without service workers still runs the page, only not offline.
 */
export async function watched(): Promise<string> {
  if (!("serviceWorker" in navigator)) return "not in this browser";
  try {
    await navigator.serviceWorker.register("./sw.js");
    if (!navigator.serviceWorker.controller) await first("controllerchange");
    return navigator.serviceWorker.controller ? "ready, without a network too" : "after the next visit";
  } catch (error) {
    return `not possible here: ${error instanceof Error ? error.message : String(error)}`;
  }
}

function first(event: string): Promise<void> {
  return new Promise((resolve) => {
    navigator.serviceWorker.addEventListener(event, () => resolve(), { once: true });
    setTimeout(resolve, PATIENCE_MS);
  });
}
