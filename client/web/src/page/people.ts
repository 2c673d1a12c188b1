/** Whose words are suggested: a row of radio buttons, which the browser makes usable by keyboard and screen reader. */
import { NOBODY } from "../bundle/manifest";
import { found, made } from "./dom";

const EVERYBODY = "global";
const LABELS: Record<string, string> = { [NOBODY]: "Nobody", [EVERYBODY]: "Everybody" };

export class People {
  private readonly group = found("people", HTMLFieldSetElement);
  private readonly choices = this.group.querySelector(".choices")!;
  readonly names: string[] = [];
  who = NOBODY;
  private picked = false;

  constructor(changed: () => void) {
    this.choices.addEventListener("change", (event) => {
      this.who = (event.target as HTMLInputElement).value;
      this.picked = true;
      changed();
    });
  }

  /** Offer a person's words. Until somebody picks, the first that is a person is chosen. */
  add(name: string, pick = false): void {
    if (!this.names.includes(name)) {
      this.names.push(name);
      const radio = made("input", { type: "radio", name: "who", value: name, id: `who-${name}` });
      this.choices.append(made("label", {}, radio, made("span", { textContent: label(name) })));
    }
    if (pick || (!this.picked && rank(name) > rank(this.who)) || this.names.length === 1) this.choose(name);
    this.group.disabled = false;
  }

  private choose(name: string): void {
    this.who = name;
    this.choices.querySelector<HTMLInputElement>(`input[value="${CSS.escape(name)}"]`)!.checked = true;
  }
}

function rank(name: string): number {
  return name === NOBODY ? 0 : name === EVERYBODY ? 1 : 2;
}

export function label(name: string): string {
  return LABELS[name] ?? name;
}
