/** Elements of index.html by id, and new ones. Text is always set as text. */
import { Refused } from "../refused";

export function found<T extends HTMLElement>(id: string, kind: new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Refused(`element ${id}`, element?.tagName ?? "none", kind.name);
  return element;
}

export function made<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  set: Partial<HTMLElementTagNameMap[Tag]> = {},
  ...inside: (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const element = Object.assign(document.createElement(tag), set);
  element.append(...inside);
  return element;
}

export function megabytes(bytes: number): string {
  return bytes < 100_000 ? `${(bytes / 1e3).toFixed(0)}\u00a0kB` : `${(bytes / 1e6).toFixed(1)}\u00a0MB`;
}

export function percent(probability: number): string {
  return probability < 0.001 ? "<0.1 %" : `${(100 * probability).toFixed(probability < 0.1 ? 1 : 0)} %`;
}
