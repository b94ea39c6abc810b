// Pulls from an agent's durable, which the coordinator created. Each delivery is acked when its outcome is stored.
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, nkeyAuthenticator } from "@nats-io/transport-node";

import { NATS, nkeySeed } from "./settings.js";

const IN_FLIGHT = 8;
const LONGEST_DELAY_MS = 60_000;

export const connectAs = (agent) =>
  connect({
    servers: NATS, name: agent, authenticator: nkeyAuthenticator(nkeySeed), inboxPrefix: `_INBOX_${agent}`,
    maxReconnectAttempts: -1,
  });

// Text from outside is never printed raw: it could move the cursor, or look like a separate line.
export const shown = (text) => printable(String(text));
export const printable = (value) =>
  JSON.stringify(value).replace(/[^ -~]/g, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);

// The bytes of the message in FLOW at this sequence: for a command without data, because they would be too large.
export async function stored(connection, sequence) {
  const manager = await jetstreamManager(connection, { checkAPI: false });
  return (await manager.direct.getMessage("FLOW", { seq: sequence })).data;
}

// Handles deliveries until a signal. If `handle` throws, the delivery is handed back, with a growing delay.
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
      message.nak(); // it has not begun, so other workers get it at once
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
  // The broker delivers again unless the message is acked or reported as in progress.
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
