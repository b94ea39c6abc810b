// Handrail's messages on the broker: reads stored messages, and publishes an agent's messages. See docs/wire.md.
import { create, createFileRegistry, equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema, timestampNow } from "@bufbuild/protobuf/wkt";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import { derived, divergenceId, outcomeId, undoneId } from "./ids.js";
import { DESCRIPTORS, SAFE_AGE } from "./settings.js";

export const registryOf = (descriptorSet) => createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptorSet));

export const handrail = registryOf(readFileSync(DESCRIPTORS));
const schema = (name) => handrail.getMessage(`handrail.v1.${name}`);
const REASONS = handrail.getEnum("handrail.v1.ErrorReason");
const DIVERGENCES = handrail.getEnum("handrail.v1.DivergenceKind");
const EFFECTS = handrail.getEnum("handrail.v1.Effect");
const value = (kind, name) => kind.values.find((each) => each.name === name).number;
export const [NO_EFFECT, IRREVERSIBLE] = ["EFFECT_NONE", "EFFECT_IRREVERSIBLE"].map((name) => value(EFFECTS, name));
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

export const decode = (bytes) => fromBinary(schema("Event"), bytes);
export const typeOf = (data) => data.typeUrl.split("/").pop();
export const any = (type, message) => ({
  $typeName: "google.protobuf.Any", typeUrl: `type.googleapis.com/${type.typeName}`, value: toBinary(type, message),
});
export const ours = (name, fields) => any(schema(name), create(schema(name), fields));

// Reads a delivery: subject and body must agree, and the id must follow from the body. Throws a reason and a text.
export function read(message) {
  const [stream, flowType, flowId, kind, agent, eventId, ...rest] = message.subject.split(".");
  const type = rest.join(".");
  if (stream !== "flow" || !/^[0-9a-f]{32}$/.test(flowId) || !/^[0-9a-f]{32}$/.test(eventId)) {
    throw new Malformed("WRONG_ADDRESS", "the subject is not one of Handrail's");
  }
  let event;
  try {
    event = decode(message.data);
  } catch (error) {
    throw new Malformed("MALFORMED", `the body is no handrail.v1.Event: ${error.message}`);
  }
  const speaker = kind === "retry" || kind === "undo" ? "coordinator" : agent;
  const said = [event.flowType, event.flowId, event.source, event.eventId, event.data ? typeOf(event.data) : ""];
  if (said.join(" ") !== [flowType, flowId, speaker, eventId, type].join(" ")) {
    throw new Malformed("WRONG_ADDRESS", "the body says otherwise than its subject");
  }
  if (expectedId(kind, event) !== eventId) throw new Malformed("WRONG_EVENT_ID", "the id does not follow");
  return { kind, type, event, agent };
}

function expectedId(kind, { eventId, flowId, step, root, run, attempt, outputIndex }) {
  if (["event", "proposal", "released"].includes(kind)) return outcomeId(flowId, step, root, run, outputIndex);
  if (kind === "undone") return undoneId(flowId, root);
  if (kind === "retry" || kind === "undo") return derived(kind, flowId, step, root, run, attempt);
  return eventId;
}

export class Malformed extends Error {
  constructor(reason, text) {
    super(text);
    this.reason = value(REASONS, `ERROR_REASON_${reason}`);
  }
}

// Every version of every template, with its domain's contracts.
export class Templates {
  constructor(manager) {
    this.manager = manager;
    this.versions = new Map();
  }

  async of(flowType, version) {
    const key = `${flowType}@${version}`;
    if (!this.versions.has(key)) await this.refresh(flowType);
    return this.versions.get(key);
  }

  async refresh(flowType) {
    const stored = await this.manager.direct.getLastMessagesFor("TEMPLATE", { multi_last: [`template.${flowType}.*`] });
    for await (const { data } of stored) {
      const { template, descriptors } = fromBinary(schema("StoredTemplate"), data);
      const key = `${template.name}@${template.version}`;
      if (!this.versions.has(key)) this.versions.set(key, { template, registry: registryOf(descriptors) });
    }
  }

  isGated(flowType, type) {
    return this.#named(flowType).some(({ gates }) => gates.some((gate) => gate.on === type));
  }

  isRuled(flowType, type) {
    return this.#named(flowType).some(({ rules }) => rules.some((rule) => rule.on.includes(type)));
  }

  #named(flowType) {
    return [...this.versions.values()].map(({ template }) => template).filter(({ name }) => name === flowType);
  }
}

// Publishes an agent's messages. Each method returns when the stream has stored the message, and throws otherwise.
export class Store {
  constructor(connection, agent, manager) {
    this.js = jetstream(connection);
    this.manager = manager;
    this.agent = agent;
  }

  // Publishes one message of an attempt. The stream stores only the first message with this id, of any kind and type. If
  // another answer is stored already, this reports a divergence. `trigger` is the message that it answers: if that is old,
  // its flow may have been purged, and nothing may be stored about it any more.
  async answer(kind, work, eventId, data, trigger) {
    const late = Date.now() - trigger.time.getTime() > SAFE_AGE;
    const event = create(schema("Event"), {
      ...work, eventId, data, late, source: this.agent, outputTotal: 1, time: timestampNow(),
    });
    if (kind === "failure") event.outputTotal = 0;
    if (late && !(await this.#isThere(trigger))) return this.#putAside(kind, event);
    const stored = await this.#first(kind, event);
    if (stored === undefined || equals(schema("Event"), stored, event)) return;
    if (sameAnswer(stored, event) || kind === "failure") return;
    const digest = sha256(data.value);
    await this.#publish("divergence", create(schema("Event"), {
      ...work, late, eventId: divergenceId(work.flowId, eventId, digest), source: this.agent, time: timestampNow(),
      data: ours("Divergence", {
        kind: value(DIVERGENCES, "DIVERGENCE_KIND_DIFFERENT_ANSWER"), eventId,
        storedType: typeOf(stored.data), storedDigest: sha256(stored.data.value),
        refusedType: typeOf(data), refusedDigest: digest,
      }),
    })).catch(ignoreTaken);
  }

  // Quarantines an invalid message, with its bytes.
  async quarantine(message, { reason, message: detail }) {
    const tokens = message.subject.split(".");
    const token = (text) => (/^[A-Za-z0-9_-]{1,64}$/.test(text ?? "") ? text : "-");
    const about = /^[a-z][a-z0-9_-]{0,62}$/.test(tokens[4] ?? "") ? tokens[4] : "-";
    const own = /^[0-9a-f]{32}$/.test(tokens[5] ?? "") ? [tokens[5]] : [];
    const body = { reason, detail, subject: message.subject, streamSequence: BigInt(message.seq), body: message.data };
    const record = toBinary(schema("Quarantined"), create(schema("Quarantined"), { ...body, reporter: this.agent }));
    for (const id of [...own, derived("quarantine", message.subject, message.data)]) {
      const subject = `quarantine.${token(tokens[1])}.${token(tokens[2])}.${this.agent}.${about}.${id}`;
      const first = this.js.publish(subject, record, { expect: { lastSubjectSequence: 0 } });
      if (await first.then(() => true, ignoreTaken)) return;
    }
  }

  // Whether the stream still has this message. Its leader knows; a replica may lag.
  async #isThere({ subject, seq }) {
    const there = await this.manager.streams.getMessage("FLOW", { last_by_subj: subject });
    return there?.seq === seq;
  }

  // What would have been said of an effect in a purged flow is for a person to read.
  async #putAside(kind, event) {
    if (typeOf(event.data) === "handrail.v1.StepNotStarted") return;
    const aside = { subject: subjectOf(kind, event, this.agent), seq: 0, data: toBinary(schema("Event"), event) };
    const text = `flow ${event.flowId} was purged; step ${event.step} may have had an effect since`;
    await this.quarantine(aside, new Malformed("FLOW_ARCHIVED", text));
  }

  async #first(kind, event) {
    const filter = `flow.${event.flowType}.${event.flowId}.*.${this.agent}.${event.eventId}.>`;
    for (;;) {
      try {
        await this.#publish(kind, event, { lastSubjectSequence: 0, lastSubjectSequenceSubject: filter });
        return undefined;
      } catch (error) {
        ignoreTaken(error);
      }
      for await (const { data } of await this.#held(filter)) return decode(data);
      await sleep(50); // the first copy was lost with its leader, or this replica lags
    }
  }

  #held(filter) {
    return this.manager.direct.getLastMessagesFor("FLOW", { multi_last: [filter] });
  }

  #publish(kind, event, expect) {
    return this.js.publish(subjectOf(kind, event, this.agent), toBinary(schema("Event"), event), { expect, retries: 3 });
  }
}

const subjectOf = (kind, { flowType, flowId, eventId, data }, agent) =>
  `flow.${flowType}.${flowId}.${kind}.${agent}.${eventId}.${typeOf(data)}`;

const sameAnswer = (stored, event) =>
  stored.data.typeUrl === event.data.typeUrl && Buffer.compare(stored.data.value, event.data.value) === 0 &&
  stored.outputTotal === event.outputTotal;

function ignoreTaken(error) {
  const taken = error.code === 10077 && /maximum messages per subject/.test(error.message);
  if (!taken && error.code !== 10071 && error.code !== 10164) throw error;
  return false;
}
