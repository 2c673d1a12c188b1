/** The places of the graph that an adapter can fill, and what fills them with nothing (fedpeft/device/sites.py). */
import type { Tensor } from "./adapter_file";
import type { Shape } from "./manifest";
import { Refused } from "../refused";

/** Return what leaves the base as it is: ones for scales, zeros else, width 0 where the adapter chooses. */
export function neutral(name: string, shape: Shape): Tensor {
  const sizes = shape.map((size) => size ?? 0);
  const data = new Float32Array(sizes.reduce((product, size) => product * size, 1));
  return { shape: sizes, data: /\.(in|out)_scale$/.test(name) ? data.fill(1) : data };
}

/**
 * Return a value for every site: the adapter's, or nothing. Refused is an adapter with a tensor that has no place, with
 * other tensors than its manifest lists, with numbers that are not finite, or with none at all: the graph would answer as
 * the base and nobody would notice. Only what has a prefix, too, may have none.
 */
export function fill(
  tensors: ReadonlyMap<string, Tensor>,
  listed: ReadonlyMap<string, Shape>,
  sites: ReadonlyMap<string, Shape>,
  mayBeEmpty = false,
): Map<string, Tensor> {
  if (!tensors.size && !mayBeEmpty) throw new Refused("adapter tensors", "none", "at least one");
  if (tensors.size !== listed.size) throw new Refused("adapter tensors", tensors.size, `the ${listed.size} listed`);
  for (const [name, { shape, data }] of tensors) {
    const [place, promised] = [sites.get(name), listed.get(name)];
    if (!promised || !fits(shape, promised)) throw new Refused(`adapter tensor ${name}`, shape, "the shape listed");
    if (!place || !fits(shape, place)) {
      throw new Refused(
        `adapter tensor ${name}`,
        shape,
        place ? `shape ${JSON.stringify(place)}` : "an input of the graph",
      );
    }
    if (!data.every(Number.isFinite)) throw new Refused(`adapter tensor ${name}`, "NaN or infinity", "finite numbers");
  }
  return new Map([...sites].map(([name, shape]) => [name, tensors.get(name) ?? neutral(name, shape)]));
}

function fits(shape: readonly number[], place: Shape): boolean {
  return shape.length === place.length && place.every((size, i) => size === null || size === shape[i]);
}
