// The store in Node programs and in tests: everything is in memory. A client that gets the store of
// an earlier one goes on where that one has stopped.

/** @typedef {import('./wire.js').Message} Message */
/** @typedef {import('./wire.js').Conversation} Conversation */
/** @typedef {import('./wire.js').Pending} Pending */
/** @typedef {import('./wire.js').Account} Account */

/**
 * Changes that are written in one transaction, all or nothing.
 * @typedef {object} Changes
 * @property {boolean} [cleared] everything is deleted, before anything else is written
 * @property {Account} [account]
 * @property {Conversation[]} [convs]
 * @property {Message[]} [msgs]
 * @property {string[]} [emptied] conversations whose messages are deleted, before anything else is
 *   written
 * @property {string[]} [dropped] conversations that are deleted
 * @property {[string, number][]} [cut] conversations whose messages up to this number are deleted
 * @property {Pending[]} [outbox]
 * @property {string[]} [sent] `cid`s that leave the outbox
 */

/** @typedef {{account?: Account, convs: Conversation[], outbox: Pending[]}} Contents */

/**
 * A store. Calls of `write` take effect in their order.
 * @typedef {object} Store
 * @property {() => Promise<Contents>} open
 * @property {(changes: Changes) => Promise<void>} write
 * @property {(conv: string, from: number, to: number) => Promise<Message[]>} read ascending
 * @property {() => void} close
 */

/** @implements {Store} */
export class MemoryStore {
  /** @type {Account | undefined} */
  #account;
  /** @type {Map<string, Conversation>} */
  #convs = new Map();
  /** @type {Map<string, Map<number, Message>>} */
  #msgs = new Map();
  /** @type {Map<string, Pending>} */
  #outbox = new Map();

  async open() {
    const outbox = [...this.#outbox.values()].sort((a, b) => a.order - b.order);
    return structuredClone({ account: this.#account, convs: [...this.#convs.values()], outbox });
  }

  /** @param {Changes} changes */
  async write(changes) {
    const { cleared, account, convs, msgs, emptied, dropped, cut, outbox, sent } = structuredClone(changes);
    if (cleared) this.#clear();
    if (account) this.#account = account;
    for (const conv of emptied ?? []) this.#msgs.delete(conv);
    for (const conv of convs ?? []) this.#convs.set(conv.conv, conv);
    for (const msg of msgs ?? []) this.#messages(msg.conv).set(msg.seq, msg);
    for (const pending of outbox ?? []) this.#outbox.set(pending.cid, pending);
    for (const cid of sent ?? []) this.#outbox.delete(cid);
    for (const conv of dropped ?? []) {
      this.#convs.delete(conv);
      this.#msgs.delete(conv);
    }
    for (const [conv, below] of cut ?? []) {
      const held = this.#messages(conv);
      for (const seq of [...held.keys()]) if (seq <= below) held.delete(seq);
    }
  }

  /** @param {string} conv @param {number} from @param {number} to */
  async read(conv, from, to) {
    const held = this.#messages(conv);
    const found = [];
    for (let seq = from; seq <= to; seq++) {
      const msg = held.get(seq);
      if (msg) found.push(structuredClone(msg));
    }
    return found;
  }

  #clear() {
    this.#account = undefined;
    this.#convs.clear();
    this.#msgs.clear();
    this.#outbox.clear();
  }

  close() {}

  /** @param {string} conv */
  #messages(conv) {
    let held = this.#msgs.get(conv);
    if (!held) this.#msgs.set(conv, (held = new Map()));
    return held;
  }
}
