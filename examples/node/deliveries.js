// Pulling from an agent's durable, which the coordinator made: so many at a time, each acked when all of it is stored.
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";

import { NATS, password } from "./settings.js";

const IN_FLIGHT = 8;
const LONGEST_DELAY_MS = 60_000;

export const connectAs = (agent) =>
  connect({ servers: NATS, user: agent, pass: password(), inboxPrefix: `_INBOX_${agent}`, maxReconnectAttempts: -1 });

// What a stranger chose is never printed raw: it could move the cursor, or pass for a line of its own.
export const shown = (text) =>
  JSON.stringify(String(text)).replace(/[^ -~]/g, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);

// The bytes of what is stored in FLOW at this sequence: for a command that came without its data, being too large.
export async function stored(connection, sequence) {
  const manager = await jetstreamManager(connection, { checkAPI: false });
  return (await manager.direct.getMessage("FLOW", { seq: sequence })).data;
}

// Handle deliveries until a signal. What `handle` throws hands the delivery back, for longer each time.
export async function pull(connection, agent, handle) {
  const consumer = await jetstream(connection).consumers.get("FLOW", `agent-${agent}`);
  const { config } = await consumer.info();
  const third = config.ack_wait / 1e6 / 3;
  const messages = await consumer.consume({ max_messages: IN_FLIGHT });
  let stopping = false;
  const stop = () => {
    stopping = true;
    messages.stop();
  };
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, stop);
  console.log("ready");

  const busy = new Set();
  for await (const message of messages) {
    if (stopping) {
      message.nak(); // what has not begun is for other workers, at once
      continue;
    }
    const handled = settle(message, handle, third).finally(() => busy.delete(handled));
    busy.add(handled);
    if (busy.size >= IN_FLIGHT) await Promise.race(busy);
  }
  await Promise.all(busy);
  await connection.drain();
}

async function settle(message, handle, third) {
  // The broker hands out again what is neither acked nor said to be in the works.
  const working = setInterval(() => message.working(), third);
  try {
    await handle(message);
    message.ack();
  } catch (error) {
    console.warn(`${shown(message.subject)} is handed back: ${shown(error.message)}`);
    message.nak(Math.min(250 * 2 ** message.info.deliveryCount, LONGEST_DELAY_MS));
  } finally {
    clearInterval(working);
  }
}
