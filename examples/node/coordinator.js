// The coordinator's API, each method as a promise. Its contracts come from a descriptor set.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";

import { COORDINATOR, DESCRIPTORS, token } from "./settings.js";

const PATIENCE_MS = 10_000;
const shapes = { longs: Number, enums: String, defaults: true };

export const typesOf = (descriptorSet) => loader.loadFileDescriptorSetFromBuffer(descriptorSet, shapes);
export const handrail = typesOf(readFileSync(DESCRIPTORS));
export const { status } = grpc;

const services = grpc.loadPackageDefinition(handrail).handrail.v1;

function metadata() {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token()}`);
  return metadata;
}

function client(service, ...methods) {
  const stub = new services[service](COORDINATOR, grpc.credentials.createInsecure());
  const calls = methods.map((method) => [method, promisify(stub[method].bind(stub))]);
  const deadline = () => Date.now() + PATIENCE_MS;
  return Object.fromEntries(
    calls.map(([method, call]) => [method, (request) => call(request, metadata(), { deadline: deadline() })]),
  );
}

export const flows = client("FlowService", "GetFlow", "PublishEvent");
// A flow, or undefined if it left the stream for the archive: then there is nothing to do for it.
export async function flowOf(flow_id) {
  try {
    return (await flows.GetFlow({ flow_id })).flow;
  } catch (error) {
    if (error.code !== status.FAILED_PRECONDITION) throw error; // GetFlow answers it with FLOW_ARCHIVED alone
    return undefined;
  }
}

export const templates = client("TemplateService", "GetTemplate");

// What to do with the attempt of a delivery: "run" it, report that it was "not started", or "drop" it. A halted flow begins
// nothing. An attempt that may have begun runs again with its key, so that its outcome is known.
export function verdict(flow, run, wanted, mayHaveStarted) {
  if (run.run !== wanted.run) return "drop";
  const isOwed = run.status === "STEP_RUN_STATUS_OWED" && run.attempt === wanted.attempt;
  if (flow.halt_mode === "HALT_MODE_UNSPECIFIED") return isOwed ? "run" : "drop";
  if (isOwed && (mayHaveStarted || run.outcome_unknown)) return "run";
  return isOwed || (run.outcome_unknown && !mayHaveStarted) ? "not started" : "drop";
}
