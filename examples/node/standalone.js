// An agent that publishes on its own: it also runs while no coordinator does. It makes the coordinator's checks itself, in
// the order of the checklist in docs/wire.md. It asks the coordinator only if the message is not enough.
import { fromBinary, fromJson, toJson } from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import { jetstreamManager } from "@nats-io/jetstream";

import { flowOf, status, verdict } from "./coordinator.js";
import { connectAs, pull, stored } from "./deliveries.js";
import { effectKey, failureId, outcomeId, undoFailureId, undoKey, undoneId } from "./ids.js";
import { AGENT, PAID, pay, REVERSED, STEP, takeBack } from "./ledger.js";
import { SAFE_AGE } from "./settings.js";
import { any, decode, IRREVERSIBLE, Malformed, NO_EFFECT, ours, read, Store, Templates, typeOf } from "./wire.js";

const GIVE_UP = 5; // deliveries of a message with an unknown flow or version
const REFRESH_MS = 2_000;
const LOOKED_AT = ["FlowHalted", "FlowMigrated"].map((name) => `flow.*.*.decision.coordinator.*.handrail.v1.${name}`);

const connection = await connectAs(AGENT);
const manager = await jetstreamManager(connection, { checkAPI: false });
const templates = new Templates(manager);
const store = new Store(connection, AGENT, manager);

// 1. Halted and migrated flows: subscribe first, then read earlier decisions; again after each reconnect.
const looked = new Set();
const hint = (subject) => looked.add(subject.split(".")[2]);
connection.subscribe("hint.halted", { callback: (_, heard) => heard.string().split("\n").forEach((id) => looked.add(id)) });
async function loadHints() {
  for (const subject of LOOKED_AT) {
    const { state } = await manager.streams.info("FLOW", { subjects_filter: subject });
    Object.keys(state.subjects ?? {}).forEach(hint);
  }
}
await loadHints();
(async () => {
  for await (const { type } of connection.status()) if (type === "reconnect") await loadHints();
})();

async function handle(message) {
  // 2. A message that can't be read is quarantined and acked.
  let recorded;
  try {
    recorded = read(message);
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    return store.quarantine(message, error);
  }
  // 3. The flow's version, from the stream.
  const { event, kind, type } = recorded;
  const known = await templates.of(event.flowType, event.templateVersion);
  if (known === undefined) return postpone(message, "TEMPLATE_NOT_FOUND", "no such version is stored");
  const redelivered = message.info.deliveryCount > 1;
  // 4. Most messages are enough by themselves.
  if (!needsLook(recorded, known, message, redelivered)) {
    const attempt = { root: event.eventId, run: 0, attempt: 1, causationId: event.eventId };
    return perform({ ...addressed(event, known), ...attempt }, known, event, message);
  }
  // 5. For the others, read the flow.
  let flow;
  try {
    flow = await flowOf(event.flowId);
  } catch (error) {
    if (error.code !== status.NOT_FOUND) throw error;
    return postpone(message, "FLOW_NOT_FOUND", "there is no such flow");
  }
  if (flow === undefined) return; // it was purged
  if (flow.last_sequence < message.seq) throw new Error("the flow was read as it stood before the delivery");
  const now = await templates.of(flow.flow_type, flow.template_version);
  if (kind === "undo") {
    const effect = flow.effects.find((each) => each.event_id === event.root && each.agent === AGENT);
    if (effect?.status !== "EFFECT_STATUS_UNDOING") return;
    const { root, run, attempt } = event;
    const work = { ...addressed(event, now), root, run, attempt, causationId: root };
    return perform(work, now, await whole(event, effect.sequence), message, { undo: true });
  }
  for (const run of flow.step_runs.filter((each) => each.agent === AGENT && each.step === STEP)) {
    const isMeant = kind === "retry" ? event.root === run.root : run.input_sequences.includes(message.seq);
    if (!isMeant) continue;
    const wanted = kind === "retry" ? event : { run: 0, attempt: 1 };
    const attempt = { root: run.root, run: wanted.run, attempt: wanted.attempt, causationId: event.causationId };
    const work = { ...addressed(event, now), ...attempt };
    const todo = verdict(flow, run, wanted, redelivered);
    if (todo === "run") await perform(work, now, await whole(event, run.input_sequences[0]), message);
    const notStarted = ours("StepNotStarted", {});
    if (todo === "not started") await store.answer("failure", work, idOfFailure(work), notStarted, message);
  }
}

// The event of a message. A command that would be too large has no data: read the event from FLOW.
async function whole(event, sequence) {
  return event.data.value.length ? event : decode(await stored(connection, sequence));
}

const toDate = (time) => Number(time?.seconds ?? 0n) * 1000;

const addressed = ({ flowType, flowId }, { template }) => ({
  flowType, flowId, step: STEP, templateVersion: template.version,
});

// Whether to read the flow before anything begins.
function needsLook({ event, kind, type, agent }, { template }, message, redelivered) {
  const step = template.steps.find((each) => each.name === STEP && each.agent === AGENT);
  if (step === undefined || !step.after.includes(type)) return true;
  const age = Date.now() - message.time.getTime();
  const by = template.steps.find((each) => each.name === event.step);
  const speaks = event.step
    ? by?.agent === agent && by.emits.includes(type)
    : template.startsWith.includes(type) && ["coordinator", ...template.startedBy].includes(agent);
  const mayBePurged = age > SAFE_AGE || event.late || message.time.getTime() - toDate(event.time) > SAFE_AGE;
  return (
    redelivered || looked.has(event.flowId) || !["event", "released"].includes(kind) || !speaks ||
    step.effect === IRREVERSIBLE || step.afterAll.length > 0 || age > Number(step.timeout.seconds) * 1000 ||
    (step.effect !== NO_EFFECT && mayBePurged) ||
    (kind === "event" && templates.isGated(event.flowType, type)) ||
    (step.effect !== NO_EFFECT && templates.isRuled(event.flowType, type))
  );
}

// 6 to 9. Run with the key, check the answer against the stored contract, publish it. The ack follows.
async function perform(work, { template, registry }, event, trigger, { undo = false } = {}) {
  const inputType = registry.getMessage(typeOf(event.data));
  const input = toJson(inputType, fromBinary(inputType, event.data.value), { registry, useProtoFieldName: true });
  const key = undo ? undoKey(work.flowId, work.root) : effectKey(work.flowId, STEP, work.root, work.run);
  let answered;
  try {
    answered = await (undo ? takeBack : pay)(input, key);
  } catch (error) {
    return fail(work, undo, trigger, error.constructor.name, error.message, { retryable: true });
  }
  const answerType = registry.getMessage(undo ? REVERSED : PAID);
  const answer = fromJson(answerType, answered, { registry, ignoreUnknownFields: true });
  const checked = createValidator({ registry }).validate(answerType, answer);
  if (checked.kind !== "valid") {
    // Check before publishing, because an answer's id exists once. The effect has happened, so a person must look.
    const how = { retryable: false, outcomeUnknown: !undo };
    return fail(work, undo, trigger, "CONTRACT_VIOLATION", String(checked.error), how);
  }
  const gated = template.gates.some((gate) => gate.on === answerType.typeName);
  const kind = undo ? "undone" : gated ? "proposal" : "event";
  const id = undo ? undoneId(work.flowId, work.root) : outcomeId(work.flowId, STEP, work.root, work.run, 0);
  await store.answer(kind, work, id, any(answerType, answer), trigger);
}

async function fail(work, undo, trigger, errorClass, text, how) {
  const undoOf = undo ? work.root : "";
  const failed = { errorClass: errorClass.slice(0, 256), text: text.slice(0, 4096), undoOf, ...how };
  await store.answer("failure", work, idOfFailure(work, undo), ours("StepFailed", failed), trigger);
}

const idOfFailure = ({ flowId, root, run, attempt }, undo = false) =>
  (undo ? undoFailureId : failureId)(flowId, STEP, root, run, attempt);

// Hands back for a while, because the version may be stored soon. Then quarantines the message.
async function postpone(message, reason, text) {
  if (message.info.deliveryCount < GIVE_UP) throw new Error(text);
  await store.quarantine(message, new Malformed(reason, text));
}

// A version that is stored meanwhile may gate a type that earlier ones do not.
await templates.refresh("*");
setInterval(() => templates.refresh("*").catch(console.warn), REFRESH_MS).unref();
await pull(connection, AGENT, handle);
