// Prints every message of a reader's flow types as a line of JSON, from a sequence on, and then each new one. See
// docs/readers.md.
import { connectAs, printable } from "./deliveries.js";
import { described, readAll } from "./reading.js";
import { AFTER, READER } from "./settings.js";

const connection = await connectAs(READER);
for await (const message of readAll(connection, READER, AFTER)) {
  console.log(printable({ sequence: message.seq, ...described(message) }));
  // A real reader stores the sequence together with what it made of the message.
}
