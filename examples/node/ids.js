// The ids of docs/wire.md: SHA-256 over fields, each with its length before it.
import { createHash } from "node:crypto";

export function derived(...fields) {
  const hash = createHash("sha256");
  for (const field of fields) {
    const bytes = Buffer.from(field instanceof Uint8Array ? field : String(field));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  }
  return hash.digest("hex").slice(0, 32);
}

export const outcomeId = (flow, step, root, run, index) => derived("outcome", flow, step, root, run, index);
export const undoneId = (flow, undoOf) => derived("undone", flow, undoOf);
export const failureId = (flow, step, root, run, attempt) => derived("failure", flow, step, root, run, attempt);
export const undoFailureId = (flow, step, undoOf, run, attempt) =>
  derived("undo-failure", flow, step, undoOf, run, attempt);
export const divergenceId = (flow, eventId, digest) => derived("divergence", flow, eventId, digest);
export const effectKey = (flow, step, root, run) => derived("effect", flow, step, root, run);
export const undoKey = (flow, undoOf) => derived("undo-effect", flow, undoOf);
