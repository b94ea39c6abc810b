// The world outside: a bank that books once for each idempotency key, and takes a while to answer.
import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export class Bank {
  constructor(folder, { delay = 0 } = {}) {
    this.folder = folder;
    this.delay = delay;
    mkdirSync(folder, { recursive: true });
  }

  // Book under a key, unless that was done before. Key and booking are one file, so that one is there with the other:
  // it is written aside, and linked to its name, which fails where there is one.
  async book(key, kind) {
    const name = join(this.folder, `${key}.json`);
    const aside = join(this.folder, `.${key}.${process.pid}`);
    writeFileSync(aside, JSON.stringify({ kind, reference: key.slice(0, 16) }));
    try {
      linkSync(aside, name);
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    } finally {
      rmSync(aside);
    }
    await sleep(this.delay);
    return JSON.parse(readFileSync(name, "utf8"));
  }
}
