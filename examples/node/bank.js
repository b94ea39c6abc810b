// The outside world: a bank that books once for each idempotency key, and answers with a delay.
import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export class Bank {
  constructor(folder, { delay = 0 } = {}) {
    this.folder = folder;
    this.delay = delay;
    mkdirSync(folder, { recursive: true });
  }

  // Books once per key. Key and booking are one file, so that both exist or neither. It is written under a temporary name
  // and linked to its final name, which fails if that exists.
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
