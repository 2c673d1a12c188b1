/** The worker, seen from the page: calls that return promises. */
import type { CallName, Calls, Reply } from "./protocol";

interface Waiting {
  resolve(give: unknown): void;
  reject(error: Error): void;
  part?: ((text: string) => void) | undefined;
}

export class Engine {
  private readonly worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  private readonly waiting = new Map<number, Waiting>();
  private last = 0;

  constructor(progress: (what: string, bytes: number, of: number) => void) {
    this.worker.addEventListener("message", ({ data }: MessageEvent<Reply>) => {
      if ("loaded" in data) progress(data.loaded, data.bytes, data.of);
      else this.settle(data);
    });
    this.worker.addEventListener("error", (event) => {
      for (const call of this.waiting.values()) call.reject(new Error(event.message || "the worker did not start"));
      this.waiting.clear();
    });
  }

  call<Name extends CallName>(
    call: Name,
    take: Calls[Name]["take"],
    part?: (text: string) => void,
  ): Promise<Calls[Name]["give"]> {
    const id = ++this.last;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (give: unknown) => void, reject, part });
      this.worker.postMessage({ id, call, take });
    });
  }

  private settle(reply: Exclude<Reply, { loaded: string }>): void {
    const call = this.waiting.get(reply.id);
    if (!call) return;
    if ("part" in reply) {
      call.part?.(reply.part);
      return;
    }
    this.waiting.delete(reply.id);
    if ("refused" in reply) call.reject(new Error(reply.refused));
    else call.resolve(reply.give);
  }
}

/** Run one call at a time; of those that arrive meanwhile only the last one counts. */
export function latest<T>(run: (take: T) => Promise<void>, failed: (error: unknown) => void): (take: T) => void {
  let busy = false;
  let next: { take: T } | null = null;
  return async (take) => {
    next = { take };
    if (busy) return;
    busy = true;
    try {
      while (next) {
        const { take: now }: { take: T } = next;
        next = null;
        await run(now).catch(failed);
      }
    } finally {
      busy = false;
    }
  };
}
