/** Something that must not be used, said in one line: what it is, what was found, what was expected. */
export class Refused extends Error {
  constructor(field: string, found: unknown, expected: string) {
    super(`${field}: found ${typeof found === "string" ? found : JSON.stringify(found)}, expected ${expected}`);
    this.name = "Refused";
  }
}
