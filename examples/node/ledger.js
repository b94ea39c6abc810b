// The work of the agent: it pays granted refunds and reverses payments, each with an idempotency key.
import { Bank } from "./bank.js";
import { BANK_DELAY, BOOKS } from "./settings.js";

export const AGENT = "ledger";
export const STEP = "pay";
export const PAID = "payments.v1.RefundPaid";
export const REVERSED = "payments.v1.RefundReversed";

const bank = new Bank(BOOKS, { delay: BANK_DELAY });
const [TRANSFER, REVERSAL] = ["transfer_id", "reversal_id"];

export async function pay(granted, key) {
  return { ...granted, [TRANSFER]: (await bank.book(key, "refund")).reference };
}

export async function takeBack(paid, key) {
  return { ...paid, [REVERSAL]: (await bank.book(key, "reversal")).reference };
}
