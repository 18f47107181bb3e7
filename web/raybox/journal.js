// Collects changes and writes them in transactions. Everything that was noted since the last
// transaction goes into the next one, so a message, its cursor and its place in the outbox change
// together.

import { cutBelow } from './ranges.js';

/** @typedef {import('./memory-store.js').Store} Store */
/** @typedef {import('./wire.js').Message} Message */
/** @typedef {import('./wire.js').Conversation} Conversation */
/** @typedef {import('./wire.js').Pending} Pending */
/** @typedef {import('./wire.js').Account} Account */

/** How long the journal waits after a failed transaction, in milliseconds. */
const RETRY = 3000;

class Batch {
  isCleared = false;
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
  /** Whether the last attempt to write failed. */
  isFailing = false;
  /** @type {Set<() => void>} */
  #tried = new Set();
  /** @type {Promise<void>} */
  #writing = Promise.resolve();
  #onTrouble;
  #onFull;

  /**
   * @param {Store} store
   * @param {(error: unknown) => void} onTrouble is called when a transaction fails (it is
   *   retried), and with `null` when one succeeds again
   * @param {() => [string, number][]} onFull makes room: returns conversations, each with the
   *   number up to which its messages can be deleted
   */
  constructor(store, onTrouble, onFull) {
    this.#store = store;
    this.#onTrouble = onTrouble;
    this.#onFull = onFull;
  }

  /**
   * Deletes everything that was stored or noted so far. Changes noted from now on are written in
   * the same transaction.
   */
  clear() {
    const { after } = this.#batch;
    this.#batch = new Batch();
    this.#batch.after = after;
    this.#batch.isCleared = true;
    this.#schedule();
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

  /** Deletes the stored messages of a conversation. @param {string} conv */
  empty(conv) {
    for (const [key, msg] of this.#batch.msgs) if (msg.conv === conv) this.#batch.msgs.delete(key);
    this.#batch.emptied.add(conv);
    this.#schedule();
  }

  /** Deletes a conversation. @param {string} conv */
  drop(conv) {
    this.empty(conv);
    this.#batch.convs.delete(conv);
    this.#batch.dropped.add(conv);
  }

  /** @param {Pending} pending */
  pending(pending) {
    this.#batch.outbox.set(pending.cid, pending);
    this.#batch.sent.delete(pending.cid);
    this.#schedule();
  }

  /** Removes a message from the outbox. @param {string} cid */
  sent(cid) {
    this.#batch.outbox.delete(cid);
    this.#batch.sent.add(cid);
    this.#schedule();
  }

  /** Calls `then` once everything that was noted so far is stored. @param {() => void} then */
  after(then) {
    this.#batch.after.push(then);
    this.#schedule();
  }

  /** Waits until everything that was noted so far is stored. @returns {Promise<void>} */
  stored() {
    return new Promise((resolve) => this.after(resolve));
  }

  /**
   * Waits like `stored`, but gives up if the browser cannot store anything at the moment.
   * @returns {Promise<void>}
   */
  tried() {
    return new Promise((resolve) => {
      this.after(resolve);
      if (this.isFailing) resolve();
      else this.#tried.add(resolve);
    });
  }

  /** Writes nothing from now on. */
  close() {
    this.#isClosed = true;
  }

  #schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    // Changes during a transaction go into the next one together.
    this.#writing = this.#writing.then(() => this.#write());
  }

  async #write() {
    const batch = this.#batch;
    this.#batch = new Batch();
    this.#isScheduled = false;
    // Records change while a transaction waits, so this is a copy: a cursor must not be ahead of
    // its message.
    const changes = structuredClone({
      cleared: batch.isCleared,
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
        if (this.isFailing) this.#onTrouble(null);
        this.isFailing = false;
        this.#tried.clear();
        break;
      } catch (error) {
        if (tries === 0 && isFull(error) && await this.#makeRoom(changes)) continue;
        this.isFailing = true;
        this.#onTrouble(error);
        for (const resolve of this.#tried) resolve();
        this.#tried.clear();
        await new Promise((resolve) => setTimeout(resolve, RETRY));
      }
    }
    if (!this.#isClosed) for (const then of batch.after) then();
  }

  /**
   * Deletes messages that the server has as well. Returns whether that succeeded.
   * @param {import('./memory-store.js').Changes} changes the changes to be written afterwards
   */
  async #makeRoom(changes) {
    const cut = this.#onFull();
    const below = new Map(cut);
    for (const conv of changes.convs ?? []) conv.held = cutBelow(conv.held, below.get(conv.conv) ?? 0);
    try {
      await this.#store.write({ cut });
      return cut.length > 0;
    } catch {
      return false;
    }
  }
}

/** @param {any} error */
const isFull = (error) => error?.name === 'QuotaExceededError';
