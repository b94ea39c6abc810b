// The settings of the agents and the reader, from environment variables.
import { readFileSync } from "node:fs";

const { env } = process;

export const NATS = (env.NATS_URL ?? "nats://127.0.0.1:4222").split(",");
export const nkeySeed = () => Buffer.from(secret("NATS_NKEY_FILE")); // read again for each connection: it may change
export const COORDINATOR = env.HANDRAIL_ADDRESS ?? "127.0.0.1:50051";
export const token = () => secret("HANDRAIL_TOKEN_FILE"); // read again for each call, because tokens expire
export const DESCRIPTORS = env.HANDRAIL_DESCRIPTORS ?? "../../gen/python/handrail/v1/descriptors.binpb";
export const BOOKS = env.BANK_FOLDER ?? "books";
export const BANK_DELAY = Number(env.BANK_DELAY_MS ?? 0);
export const READER = env.READER ?? "analytics";
// A flow may be purged 15 minutes after its end: what is said of a message that is older than this must find it there.
export const SAFE_AGE = Number(env.SAFE_AGE_MS ?? 5 * 60_000);
export const AFTER = Number(env.AFTER ?? 0); // the last sequence that was handled
export const CONTRACTS = env.CONTRACTS; // descriptors of the domain's messages: `buf build -o contracts.binpb`

function secret(name) {
  return env[name] ? readFileSync(env[name], "utf8").trim() : "";
}
