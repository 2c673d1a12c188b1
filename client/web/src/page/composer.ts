/** The message being written and the words under it. */
import type { Suggestion } from "../model/suggest";
import { found, made, percent } from "./dom";

/** What follows a word closely: no space between. */
const PUNCTUATION = /^[.,!?;:)…]$/;
const WORD_BEING_TYPED = /[\p{L}\p{N}](?:[\p{L}\p{N}]|['’])*$/u;

export class Composer {
  private readonly area = found("message", HTMLTextAreaElement);
  private readonly list = found("words", HTMLUListElement);
  private readonly finishButton = found("finish", HTMLButtonElement);
  private words: readonly Suggestion[] = [];
  private mayLeave = false;
  private spaced = false;

  constructor(
    private readonly changed: () => void,
    private readonly finish: () => void,
  ) {
    this.area.addEventListener("input", (event) => this.typed(event as InputEvent));
    this.area.addEventListener("keydown", (event) => this.key(event));
    this.area.addEventListener("focus", () => (this.mayLeave = false));
    this.finishButton.addEventListener("click", finish);
    found("clear", HTMLButtonElement).addEventListener("click", () => {
      this.replace(0, this.area.value.length, "");
    });
  }

  /** What was written before the caret. */
  get text(): string {
    return this.area.value.slice(0, this.area.selectionEnd);
  }

  ready(): void {
    this.finishButton.disabled = false;
    this.area.focus();
  }

  /** Say that the words are those of an earlier text; they stay, so that nothing flickers. */
  outdated(): void {
    this.list.dataset["state"] = "outdated";
  }

  busy(finishing: boolean): void {
    this.finishButton.disabled = finishing;
  }

  show(words: readonly Suggestion[]): void {
    this.words = words;
    this.list.dataset["state"] = "current";
    this.list.replaceChildren(
      ...words.map(({ word, probability }, i) => {
        const button = made("button", { type: "button" }, made("span", { textContent: word, className: "word" }));
        button.append(made("span", { textContent: percent(probability), className: "chance" }));
        button.dataset["probability"] = String(probability);
        button.setAttribute("aria-keyshortcuts", `Alt+${i + 1}`);
        button.addEventListener("click", () => this.take(i));
        return made("li", {}, button);
      }),
    );
  }

  /** Put text at the caret; the browser's own undo takes it back. */
  append(text: string): void {
    this.replace(this.text.length, this.text.length, text);
  }

  private take(i: number): void {
    const suggestion = this.words[i];
    if (!suggestion) return;
    const begun = WORD_BEING_TYPED.exec(this.text)?.[0] ?? "";
    const start = this.text.length - begun.length;
    const gap = begun || /(^|\s)$/.test(this.text) ? "" : " ";
    this.replace(start, this.text.length, `${gap}${suggestion.word} `);
    this.spaced = true;
  }

  private typed(event: InputEvent): void {
    // The space after a word that was taken gives way to punctuation.
    if (this.spaced && event.data && PUNCTUATION.test(event.data) && this.text.endsWith(` ${event.data}`)) {
      this.spaced = false;
      this.replace(this.text.length - 2, this.text.length, `${event.data} `);
      return;
    }
    this.spaced = false;
    this.mayLeave = false;
    this.changed();
  }

  private key(event: KeyboardEvent): void {
    if (event.isComposing) return; // the keys are an input method's, as for Japanese
    const number = event.altKey ? Number(/^Digit([1-9])$/.exec(event.code)?.[1] ?? 0) : 0;
    if (event.key === "Escape") {
      this.mayLeave = true;
      this.show([]);
    } else if (event.key === "Tab" && !event.shiftKey && !this.mayLeave && this.words.length) {
      event.preventDefault();
      this.take(0);
    } else if (number && this.words[number - 1]) {
      event.preventDefault();
      this.take(number - 1);
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.finish();
    }
  }

  private replace(start: number, end: number, text: string): void {
    if (start === end && !text) return; // to delete nothing is, to a browser, to delete a character
    this.area.focus();
    this.area.setSelectionRange(start, end);
    // The only way to edit that the browser's undo knows; where it is gone, the edit is made without.
    const done = document.execCommand(text ? "insertText" : "delete", false, text);
    if (!done && this.area.value.slice(start, end) !== text) {
      this.area.setRangeText(text, start, end, "end");
      this.changed();
    }
  }
}
