/** What each person would be suggested for the same text, one row each. */
import { NOBODY } from "../bundle/manifest";
import type { Suggestion } from "../model/suggest";
import { made } from "./dom";
import { label } from "./people";

export class Voices {
  private readonly body = document.querySelector("#voices tbody")!;
  private readonly rows = new Map<string, HTMLTableRowElement>();

  /** Make a row, in the order in which people are offered. */
  add(who: string): void {
    if (!this.rows.has(who)) this.show(who, [], false);
  }

  show(who: string, words: readonly Suggestion[], chosen: boolean): void {
    let row = this.rows.get(who);
    if (!row) {
      row = made("tr", {}, made("th", { scope: "row", textContent: label(who) }));
      this.rows.set(who, row);
      this.body.append(row);
    }
    if (chosen) for (const other of this.rows.values()) other.classList.remove("chosen");
    row.classList.toggle("chosen", chosen);
    const cells = Array.from({ length: 3 }, (_, i) => made("td", { textContent: words[i]?.word ?? "" }));
    row.replaceChildren(row.firstChild!, ...cells);
    this.mark();
  }

  /** Mark the words that the bare base would not suggest. */
  private mark(): void {
    const common = new Set([...(this.rows.get(NOBODY)?.cells ?? [])].map((cell) => cell.textContent));
    for (const row of this.rows.values()) {
      for (const cell of row.querySelectorAll("td")) cell.classList.toggle("own", !common.has(cell.textContent));
    }
  }
}
