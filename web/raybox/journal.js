// Collects what has changed and writes it in transactions: everything that was noted since the last one goes
// into the next, so a message, its cursor and its place in the outbox change together.

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
   * @param {(error: unknown) => void} onTrouble is told when a transaction fails (it is tried again), and with
   * `null` when one succeeds again
   * @param {() => [string, number][]} onFull says what can go when there is no more room: conversations, and the
   * numbers up to which their messages go
   */
  constructor(store, onTrouble, onFull) {
    this.#store = store;
    this.#onTrouble = onTrouble;
    this.#onFull = onFull;
  }

  /** Everything goes that was stored or noted so far; what is noted from now on is written in the same transaction. */
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
    this.#batch.sent.delete(pending.cid);
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

  /** Waits like `stored`, but not for a browser that cannot store anything at the moment. @returns {Promise<void>} */
  tried() {
    return new Promise((resolve) => {
      this.after(resolve);
      if (this.isFailing) resolve();
      else this.#tried.add(resolve);
    });
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

  /** Deletes what the server has as well. Returns whether that succeeded. @param {import('./memory-store.js').Changes} changes what is to be written then */
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
