// Reads the messages of some flow types, as one of the broker's readers. See docs/readers.md.
import { createRegistry, fromBinary, toJson } from "@bufbuild/protobuf";
import { jetstream } from "@nats-io/jetstream";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import { shown } from "./deliveries.js";
import { CONTRACTS } from "./settings.js";
import { handrail, read, registryOf } from "./wire.js";

const BATCH = 256;
const EXPIRES_MS = 3000;
const CALM = 1000; // after a loss or an empty message, as many messages are requested one by one
const PAUSE_MS = EXPIRES_MS + 1000; // then no request is open that the broker would serve in turn with the next one
const LONGEST_PAUSE_MS = 32_000;

const registry = CONTRACTS ? createRegistry(handrail, registryOf(readFileSync(CONTRACTS))) : handrail;

// Every message of the reader's flow types with a sequence beyond `after`, in stream order, and then each new one. The
// broker forgets what it delivered, so a loss is noticed by its numbers, and read again.
export async function* readAll(connection, reader, after) {
  for (let calm = CALM, pause = PAUSE_MS; ; calm = 0) {
    const before = after;
    try {
      const consumer = await jetstream(connection).consumers.get("FLOW", `reader-${reader}`);
      const body = JSON.stringify({ seq: after + 1 });
      const answer = await connection.request(`$JS.API.CONSUMER.RESET.FLOW.reader-${reader}`, body, { timeout: 5000 });
      if (answer.json().error) throw new Error(answer.json().error.description);
      for await (const message of untilALoss(consumer, calm)) {
        yield message;
        after = message.seq;
      }
    } catch (error) {
      console.warn(`reads again, after ${after}: ${shown(error.message)}`);
    }
    pause = after > before ? PAUSE_MS : Math.min(2 * pause, LONGEST_PAUSE_MS);
    await sleep(pause);
  }
}

// What the durable delivers since its reset, until a delivery is missing. It counts its deliveries from 1. `calm` is the
// number of messages since the last loss or empty message.
async function* untilALoss(consumer, calm) {
  for (let nth = 0; ;) {
    const batch = calm < CALM ? 1 : BATCH;
    const wanted = nth + batch;
    for await (const message of await consumer.fetch({ max_messages: batch, expires: EXPIRES_MS })) {
      if (message.info.deliverySequence !== nth + 1) return;
      nth += 1;
      yield message;
      calm = message.data.length > 0 ? calm + 1 : 0;
      if (calm === 0 && nth < wanted) return; // across accounts, the broker loses what follows it for this request
    }
    if (nth < wanted && (await consumer.info()).delivered.consumer_seq !== nth) return;
  }
}

// The envelope and the message of the domain in it, as JSON; or why the message is void. What it says is untrusted.
export function described({ subject, data }) {
  try {
    const { kind, type, event, agent } = read({ subject, data });
    return { flow_id: event.flowId, kind, agent, type, data: domain(type, event.data.value) };
  } catch (error) {
    return { subject, void: error.message };
  }
}

function domain(type, bytes) {
  try {
    const schema = registry.getMessage(type);
    return toJson(schema, fromBinary(schema, bytes), { registry, useProtoFieldName: true });
  } catch (error) {
    return { unreadable: error.message }; // the type is unknown to this program, or the bytes are none of it
  }
}
