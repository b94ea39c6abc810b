// An agent that pulls from the broker and publishes through the coordinator. The coordinator refuses an outcome that the
// flow would not count, or that breaks its contract, before anything is stored.
//
// A delivery is only a hint that the flow may need something. GetFlow says what it needs.
import { flowOf, flows, handrail, status, templates, typesOf, verdict } from "./coordinator.js";
import { connectAs, pull, shown, stored } from "./deliveries.js";
import { effectKey, undoKey } from "./ids.js";
import { AGENT, PAID, pay, REVERSED, STEP, takeBack } from "./ledger.js";

const OVERTAKEN = new Set([status.FAILED_PRECONDITION, status.ALREADY_EXISTS]);
const BROKEN = new Set([status.INVALID_ARGUMENT, status.PERMISSION_DENIED]);
const connection = await connectAs(AGENT);

async function handle(message) {
  const [, flow_type, flow_id, kind] = message.subject.split(".");
  const flow = await flowOf(flow_id);
  if (flow === undefined) return;
  if (flow.last_sequence < message.seq) throw new Error("the flow was read as it stood before the delivery");
  const event = decode(message.data);

  if (kind === "undo") {
    const effect = flow.effects.find((each) => each.event_id === event.root && each.agent === AGENT);
    if (effect?.status !== "EFFECT_STATUS_UNDOING") return;
    const { step, root, run, attempt } = event;
    const work = { flow_type, flow_id, step, root, run, attempt, undo_of: root };
    await perform(work, flow, await whole(event, effect.sequence), undoKey(flow_id, root), takeBack, REVERSED);
    return;
  }
  const redelivered = message.info.deliveryCount > 1;
  for (const run of flow.step_runs.filter((each) => each.agent === AGENT && each.step === STEP)) {
    // A command names its attempt. A fact is found by its sequence, not by its id: a message that does not count may
    // have the same id.
    const isMeant = kind === "retry" ? event.root === run.root : run.input_sequences.includes(message.seq);
    if (!isMeant) continue;
    const wanted = kind === "retry" ? event : { run: 0, attempt: 1 };
    const work = { flow_type, flow_id, step: STEP, root: run.root, run: wanted.run, attempt: wanted.attempt };
    const todo = verdict(flow, run, wanted, redelivered);
    if (todo === "run") {
      const input = await whole(event, run.input_sequences[0]);
      await perform(work, flow, input, effectKey(flow_id, STEP, run.root, run.run), pay, PAID);
    }
    if (todo === "not started") await publish(work, any(handrail, "handrail.v1.StepNotStarted", {}));
  }
}

// The event of a message. A command that would be too large has no data: read the event from FLOW.
async function whole(event, sequence) {
  return event.data.value.length ? event : decode(await stored(connection, sequence));
}

async function perform(work, flow, event, key, handler, answerType) {
  const types = await domain(flow.flow_type, flow.template_version);
  const input = types[event.data.type_url.split("/").pop()].deserialize(event.data.value);
  let answer;
  try {
    answer = await handler(input, key);
  } catch (error) {
    await fail(work, error.constructor.name, error.message, { retryable: true });
    return;
  }
  try {
    await publish(work, any(types, answerType, answer));
  } catch (error) {
    if (!BROKEN.has(error.code)) throw error;
    // The effect has happened, but the flow's contract does not allow the answer: a person must look.
    await fail(work, status[error.code], error.details, { retryable: false, outcome_unknown: !work.undo_of });
  }
}

async function fail({ undo_of, ...work }, error_class, text, how) {
  const failed = { error_class: error_class.slice(0, 256), text: text.slice(0, 4096), undo_of, ...how };
  await publish(work, any(handrail, "handrail.v1.StepFailed", failed));
}

// Publishes; throws if it must be tried again. Drops an answer that is too late.
async function publish(work, data) {
  try {
    await flows.PublishEvent({ ...work, output_index: 0, output_total: 1, data });
  } catch (error) {
    if (!OVERTAKEN.has(error.code)) throw error;
    console.warn(`flow ${shown(work.flow_id)}: dropped: ${shown(error.details)}`);
  }
}

const decode = (bytes) => handrail["handrail.v1.Event"].deserialize(bytes);
const any = (types, name, value) => ({ type_url: `type.googleapis.com/${name}`, value: types[name].serialize(value) });

// The domain's messages, by the contracts of the flow's version.
const known = new Map();
async function domain(name, version) {
  const key = `${name}@${version}`;
  if (!known.has(key)) known.set(key, typesOf((await templates.GetTemplate({ name, version })).stored.descriptors));
  return known.get(key);
}

await pull(connection, AGENT, handle);
