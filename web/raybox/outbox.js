// Messages that have no number yet. Each is stored before it is on the wire, and is sent again, with the same `cid` and
// the same bytes, until the server has answered it.
//
// In a conversation messages are sent in order. If one fails for now, those behind it fail too: the conversation is blocked
// until all of them are answered and the wait is over, and then goes on with the first that failed.

import { ticks, uuid7 } from './wire.js';

/** @typedef {import('./wire.js').Frame} Frame */
/** @typedef {import('./wire.js').Message} Message */
/** @typedef {import('./wire.js').Pending} Pending */
/** @typedef {import('./journal.js').Journal} Journal */

/** At most this many messages are on their way without an answer, whatever the server allows. */
const IN_FLIGHT = 128;

/**
 * What the outbox needs and tells.
 * @typedef {object} OutboxEvents
 * @property {(text: string) => void} transmit
 * @property {(conv: string) => boolean} isReady whether an answer would be shown in its place
 * @property {(msg: Message) => boolean} place puts an own message in its place; `false` if there is a hole before it
 * @property {(msg: Message) => boolean} isPast whether the cursor is at or behind this message
 * @property {(conv: string) => void} changed the messages of this conversation have changed
 */

export class Outbox {
  /** @type {Map<string, Pending>} */
  all = new Map();
  /** The own id. */
  user = 0;
  #journal;
  #events;
  #order = 0;
  #isLive = false;
  #inFlight = 0;
  #limit = IN_FLIGHT;
  /** New messages that are not stored yet. @type {Set<string>} */
  #unstored = new Set();
  /** Blocked conversations, and when they may go on (`ticks()`). @type {Map<string, number>} */
  #blocked = new Map();
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  #timers = new Map();

  /** @param {Journal} journal @param {OutboxEvents} events */
  constructor(journal, events) {
    this.#journal = journal;
    this.#events = events;
  }

  /** Takes up what an earlier session has left. @param {Pending[]} pendings in order */
  restore(pendings) {
    for (const pending of pendings) {
      if (pending.state === 'sent') pending.state = 'queued';
      this.all.set(pending.cid, pending);
    }
    this.#order = Math.max(0, ...pendings.map((pending) => pending.order));
  }

  /** The messages of a conversation, in order. @param {string} conv */
  of(conv) {
    return [...this.all.values()].filter((pending) => pending.conv === conv);
  }

  /**
   * Adds a message; it is sent as soon as it is stored and there is a connection.
   * @param {string} conv @param {Frame} frame without `cid` @param {string} [cid]
   */
  add(conv, frame, cid = uuid7()) {
    const known = this.all.get(cid);
    if (known) return known;
    const m = { ...frame, cid };
    this.#order += 1;
    /** @type {Pending} */
    const pending = { order: this.#order, cid, conv, text: JSON.stringify(m), m, time: Date.now(), state: 'queued' };
    this.all.set(cid, pending);
    this.#note(pending);
    this.#unstored.add(cid);
    this.#journal.after(() => {
      this.#unstored.delete(cid);
      this.pump();
    });
    return pending;
  }

  /** There is a connection on which messages may be sent. @param {{inflight: number, frame: number}} limits */
  live(limits) {
    this.#isLive = true;
    this.#limit = Math.min(IN_FLIGHT, limits.inflight);
    const encoder = new TextEncoder();
    for (const pending of this.all.values()) {
      if (pending.state === 'queued' && encoder.encode(pending.text).length > limits.frame) {
        this.#fail(pending, 413, 'the message is too long for this server');
      }
    }
    this.pump();
  }

  /** The connection is gone: whatever has no answer will be sent again. */
  down() {
    this.#isLive = false;
    this.#inFlight = 0;
    this.#blocked.clear();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    for (const pending of this.all.values()) if (pending.state === 'sent') pending.state = 'queued';
  }

  /** Sends what may be sent. */
  pump() {
    if (!this.#isLive) return;
    for (const pending of this.all.values()) {
      if (this.#inFlight >= this.#limit) return;
      if (pending.state !== 'queued' || !this.#maySend(pending)) continue;
      pending.state = 'sent';
      if (!pending.tried) {
        pending.tried = true;
        this.#journal.pending(pending);
      }
      this.#inFlight += 1;
      this.#events.transmit(pending.text);
      this.#events.changed(pending.conv);
    }
  }

  /** @param {Pending} pending */
  #maySend(pending) {
    if (this.#blocked.has(pending.conv) || !this.#events.isReady(pending.conv)) return false;
    // They are stored in order, so one that is stored has none before it that is not. A browser that cannot store
    // anything, and says so, sends them nevertheless.
    return this.#journal.isFailing || !this.#unstored.has(pending.cid);
  }

  // ---- Answers ----

  /** A 41. @param {Frame} frame */
  onAck(frame) {
    const pending = this.all.get(frame.cid);
    if (pending?.state === 'sent') this.#inFlight -= 1;
    if (pending && frame.errno === 200) this.#acknowledged(pending, frame);
    else if (pending && frame.retryAfter !== undefined) this.#later(pending, frame.retryAfter);
    else if (pending) this.#fail(pending, frame.errno, frame.errmsg);
    if (pending) this.#unblock(pending.conv);
    this.pump();
  }

  /** @param {Pending} pending @param {Frame} frame */
  #acknowledged(pending, { seq, tag, time, again }) {
    const msg = { conv: pending.conv, seq, tag, time, from: this.user, m: pending.m };
    // A repeat moves no cursor: its place was shown before, is in a gap, or will be shown with a 42.
    if (again ? this.#events.isPast(msg) : this.#events.place(msg)) {
      this.#remove(pending);
      return;
    }
    pending.state = 'acked';
    pending.seq = seq;
    this.#note(pending);
  }

  /** An own message was shown in its place, so it is no longer pending. @param {string | undefined} cid */
  shown(cid) {
    const pending = cid === undefined ? undefined : this.all.get(cid);
    if (!pending) return;
    if (pending.state === 'sent') this.#inFlight -= 1;
    this.#remove(pending);
    this.#unblock(pending.conv);
  }

  /** Acknowledged messages that are stored in their place, or in a gap, are no longer pending. @param {string} conv @param {number} seq */
  settled(conv, seq) {
    for (const pending of this.all.values()) {
      if (pending.conv === conv && pending.state === 'acked' && Number(pending.seq) <= seq) this.#remove(pending);
    }
  }

  /** The server's history lacks what it had acknowledged, so that is sent again. @param {string} conv */
  requeue(conv) {
    for (const pending of this.of(conv)) if (pending.state === 'acked') pending.state = 'queued';
  }

  /** The server has ended the connection over a frame that is too long: it is the longest one, and never sent again. */
  tooLong() {
    const sent = [...this.all.values()].filter((pending) => pending.state === 'sent');
    sent.sort((a, b) => b.text.length - a.text.length);
    if (sent.length > 0) this.#fail(sent[0], 413, 'the message is too long for this server');
  }

  /** @param {Pending} pending @param {number} retryAfter in seconds */
  #later(pending, retryAfter) {
    pending.state = 'queued';
    const until = ticks() + retryAfter * 1000;
    // The first failure says how long to wait; those behind it repeat it.
    if (!this.#blocked.has(pending.conv)) this.#blocked.set(pending.conv, until);
    this.#events.changed(pending.conv);
  }

  /** Goes on with a blocked conversation when all of its messages are answered and the wait is over. @param {string} conv */
  #unblock(conv) {
    const until = this.#blocked.get(conv);
    if (until === undefined || this.#timers.has(conv)) return;
    if (this.of(conv).some((pending) => pending.state === 'sent')) return;
    const timer = setTimeout(() => {
      this.#timers.delete(conv);
      this.#blocked.delete(conv);
      this.pump();
    }, Math.max(0, until - ticks()));
    this.#timers.set(conv, timer);
  }

  /** @param {Pending} pending @param {number} errno @param {string} [errmsg] */
  #fail(pending, errno, errmsg) {
    Object.assign(pending, { state: 'failed', errno, errmsg });
    this.#note(pending);
  }

  // ---- What the user decides ----

  /** Sends a failed message again, as a new one. @param {string} cid */
  retry(cid) {
    const pending = this.all.get(cid);
    if (pending?.state !== 'failed') return;
    this.#remove(pending);
    this.add(pending.conv, pending.m, uuid7());
  }

  /**
   * Forgets a message that has failed or was never on the wire. Others cannot be taken back: they may be committed.
   * @param {string} cid
   */
  discard(cid) {
    const pending = this.all.get(cid);
    if (!pending || (pending.state !== 'failed' && pending.tried)) return false;
    this.#remove(pending);
    this.pump();
    return true;
  }

  /** @param {Pending} pending */
  #note(pending) {
    this.#journal.pending(pending);
    this.#events.changed(pending.conv);
  }

  /** @param {Pending} pending */
  #remove(pending) {
    this.all.delete(pending.cid);
    this.#journal.sent(pending.cid);
    this.#events.changed(pending.conv);
  }
}
