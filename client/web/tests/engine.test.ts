import { expect, test } from "vitest";
import { latest } from "../src/engine/engine";
import { parseSite } from "../src/engine/site";

test("of calls that arrive while one runs only the last one counts, whether they fail or not", async () => {
  const ran: number[] = [];
  const failed: string[] = [];
  let release = (): void => undefined;
  const call = latest<number>(
    async (n) => {
      ran.push(n);
      await new Promise<void>((resolve) => (release = resolve));
      throw new Error(`${n}`);
    },
    (error) => failed.push((error as Error).message),
  );
  call(1);
  call(2);
  call(3);
  release();
  await new Promise((resolve) => setTimeout(resolve));
  release();
  await new Promise((resolve) => setTimeout(resolve));
  expect(ran).toEqual([1, 3]);
  expect(failed).toEqual(["1", "3"]);
});

test("a site's list names nobody outside its folder", () => {
  const parse = (fields: object) => parseSite(new TextEncoder().encode(JSON.stringify(fields)));
  const trusted = ["0".repeat(64)];
  expect(parse({ trusted, people: ["ada"] }).people).toEqual(["ada"]);
  expect(() => parse({ trusted, people: ["../ada"] })).toThrow("names");
  expect(() => parse({ trusted: ["x"], people: [] })).toThrow("names");
});
