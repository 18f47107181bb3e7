// Collects what has changed and writes it in transactions: everything that was noted since the last one goes
// into the next, so a message, its cursor and its place in the outbox change together.

/** @typedef {import('./memory-store.js').Store} Store */
/** @typedef {import('./wire.js').Message} Message */
/** @typedef {import('./wire.js').Conversation} Conversation */
/** @typedef {import('./wire.js').Pending} Pending */
/** @typedef {import('./wire.js').Account} Account */

/** How long the journal waits after a failed transaction, in milliseconds. */
const RETRY = 3000;

class Batch {
  /** @type {Account | undefined} */
  account;
  /** @type {Map<string, Conversation>} */
  convs = new Map();
  /** @type {Map<string, Message>} */
  msgs = new Map();
  /** @type {Set<string>} */
  emptied = new Set();
  /** @type {Set<string>} */
  dropped = new Set();
  /** @type {Map<string, Pending>} */
  outbox = new Map();
  /** @type {Set<string>} */
  sent = new Set();
  /** @type {(() => void)[]} */
  after = [];
}

export class Journal {
  #store;
  #batch = new Batch();
  #isScheduled = false;
  #isClosed = false;
  /** @type {Promise<void>} */
  #writing = Promise.resolve();
  #onTrouble;

  /**
   * @param {Store} store
   * @param {(error: unknown) => void} onTrouble is told when a transaction fails (it is tried again), and with
   * `null` when one succeeds again
   */
  constructor(store, onTrouble) {
    this.#store = store;
    this.#onTrouble = onTrouble;
  }

  /** @param {Account} account */
  account(account) {
    this.#batch.account = account;
    this.#schedule();
  }

  /** @param {Conversation} conv */
  conv(conv) {
    this.#batch.convs.set(conv.conv, conv);
    this.#batch.dropped.delete(conv.conv);
    this.#schedule();
  }

  /** @param {Message} msg */
  msg(msg) {
    this.#batch.msgs.set(`${msg.conv}/${msg.seq}`, msg);
    this.#schedule();
  }

  /** The stored messages of a conversation go. @param {string} conv */
  empty(conv) {
    for (const [key, msg] of this.#batch.msgs) if (msg.conv === conv) this.#batch.msgs.delete(key);
    this.#batch.emptied.add(conv);
    this.#schedule();
  }

  /** The conversation goes. @param {string} conv */
  drop(conv) {
    this.empty(conv);
    this.#batch.convs.delete(conv);
    this.#batch.dropped.add(conv);
  }

  /** @param {Pending} pending */
  pending(pending) {
    this.#batch.outbox.set(pending.cid, pending);
    this.#schedule();
  }

  /** A message leaves the outbox. @param {string} cid */
  sent(cid) {
    this.#batch.outbox.delete(cid);
    this.#batch.sent.add(cid);
    this.#schedule();
  }

  /** Calls `then` when everything that was noted so far is stored. @param {() => void} then */
  after(then) {
    this.#batch.after.push(then);
    this.#schedule();
  }

  /** Waits until everything that was noted so far is stored. @returns {Promise<void>} */
  stored() {
    return new Promise((resolve) => this.after(resolve));
  }

  /** Nothing is written any more. */
  close() {
    this.#isClosed = true;
  }

  #schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    // What comes during a transaction goes into the next one together.
    this.#writing = this.#writing.then(() => this.#write());
  }

  async #write() {
    const batch = this.#batch;
    this.#batch = new Batch();
    this.#isScheduled = false;
    // A copy, because records change while a transaction waits: a cursor must not be ahead of its message.
    const changes = structuredClone({
      account: batch.account,
      convs: [...batch.convs.values()],
      msgs: [...batch.msgs.values()],
      emptied: [...batch.emptied],
      dropped: [...batch.dropped],
      outbox: [...batch.outbox.values()],
      sent: [...batch.sent],
    });
    for (let tries = 0; !this.#isClosed; tries++) {
      try {
        await this.#store.write(changes);
        if (tries > 0) this.#onTrouble(null);
        break;
      } catch (error) {
        this.#onTrouble(error);
        await new Promise((resolve) => setTimeout(resolve, RETRY));
      }
    }
    if (!this.#isClosed) for (const then of batch.after) then();
  }
}
