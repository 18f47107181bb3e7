// Messages that have no number yet. Each is stored before it is sent. Sending is retried with the
// same `cid` and the same bytes until the server has answered.
//
// The messages of a conversation are sent in order. If one fails for now, those after it fail, too.
// The conversation is then blocked until all of them are answered and the wait is over. It goes on
// with the first message that failed.

import { ticks, uuid7 } from './wire.js';

/** @typedef {import('./wire.js').Frame} Frame */
/** @typedef {import('./wire.js').Message} Message */
/** @typedef {import('./wire.js').Pending} Pending */
/** @typedef {import('./journal.js').Journal} Journal */

/** The most messages in flight, even if the server allows more. */
const IN_FLIGHT = 128;

/**
 * The functions that the outbox needs, and its events.
 * @typedef {object} OutboxEvents
 * @property {(text: string) => void} transmit
 * @property {(conv: string) => boolean} isReady whether an answer would be shown in its place
 * @property {(msg: Message) => boolean} place puts an own message in its place; `false` if there is
 *   a gap before it
 * @property {(msg: Message) => boolean} isPast whether the cursor is at or after this message
 * @property {(conv: string) => void} changed the messages of this conversation have changed
 */

export class Outbox {
  /** @type {Map<string, Pending>} */
  all = new Map();
  /** The id of this user. */
  user = 0;
  #journal;
  #events;
  #order = 0;
  #isLive = false;
  #inFlight = 0;
  #limit = IN_FLIGHT;
  /** New messages that are not stored yet. @type {Set<string>} */
  #unstored = new Set();
  /** Blocked conversations, and the times when they may go on (`ticks()`). @type {Map<string, number>} */
  #blocked = new Map();
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  #timers = new Map();

  /** @param {Journal} journal @param {OutboxEvents} events */
  constructor(journal, events) {
    this.#journal = journal;
    this.#events = events;
  }

  /** Takes over the messages of an earlier session. @param {Pending[]} pendings in order */
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
   * Adds a message, which is sent once it is stored and there is a connection.
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

  /**
   * Notes that there is a connection on which messages may be sent.
   * @param {{inflight: number, frame: number}} limits
   */
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

  /** Notes that the connection is gone: every unanswered message will be sent again. */
  down() {
    this.#isLive = false;
    this.#inFlight = 0;
    this.#blocked.clear();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    for (const pending of this.all.values()) if (pending.state === 'sent') pending.state = 'queued';
  }

  /** Whether a message is in flight. */
  get isWaiting() {
    return this.#inFlight > 0;
  }

  /** Sends all messages that may be sent now. */
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
    // Messages are stored in order, so none before a stored one is unstored. A browser that cannot
    // store anything, and reports that, sends them nevertheless.
    return this.#journal.isFailing || !this.#unstored.has(pending.cid);
  }

  // ---- Answers ----

  /** Handles a 41. @param {Frame} frame */
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
    // A repeated acknowledgement moves no cursor: the message was shown before, is in a gap, or
    // will come with a 42.
    if (again ? this.#events.isPast(msg) : this.#events.place(msg)) {
      this.#remove(pending);
      return;
    }
    pending.state = 'acked';
    pending.seq = seq;
    this.#note(pending);
  }

  /**
   * Notes that an own message was shown in its place, so it is no longer pending.
   * @param {string | undefined} cid
   */
  shown(cid) {
    const pending = cid === undefined ? undefined : this.all.get(cid);
    if (!pending) return;
    if (pending.state === 'sent') this.#inFlight -= 1;
    this.#remove(pending);
    this.#unblock(pending.conv);
  }

  /**
   * Removes acknowledged messages that are stored in their place, or in a gap.
   * @param {string} conv
   * @param {number} seq
   */
  settled(conv, seq) {
    for (const pending of this.all.values()) {
      if (pending.conv === conv && pending.state === 'acked' && Number(pending.seq) <= seq) this.#remove(pending);
    }
  }

  /**
   * Sends acknowledged messages again, because the server's history has lost them.
   * @param {string} conv
   */
  requeue(conv) {
    for (const pending of this.of(conv)) if (pending.state === 'acked') pending.state = 'queued';
  }

  /**
   * Handles the end of the connection because of a frame that was too long. This was the longest
   * frame, which is never sent again.
   */
  tooLong() {
    const sent = [...this.all.values()].filter((pending) => pending.state === 'sent');
    sent.sort((a, b) => b.text.length - a.text.length);
    if (sent.length > 0) this.#fail(sent[0], 413, 'the message is too long for this server');
  }

  /** @param {Pending} pending @param {number} retryAfter in seconds */
  #later(pending, retryAfter) {
    pending.state = 'queued';
    const until = ticks() + retryAfter * 1000;
    // The first failure names the wait; those after it repeat it.
    if (!this.#blocked.has(pending.conv)) this.#blocked.set(pending.conv, until);
    this.#events.changed(pending.conv);
  }

  /**
   * Goes on with a blocked conversation once all its messages are answered and the wait is over.
   * @param {string} conv
   */
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

  // ---- Decisions of the user ----

  /** Sends a failed message again, as a new one. @param {string} cid */
  retry(cid) {
    const pending = this.all.get(cid);
    if (pending?.state !== 'failed') return;
    this.#remove(pending);
    this.add(pending.conv, pending.m, uuid7());
  }

  /**
   * Discards a message that has failed or was never sent. Other messages cannot be discarded,
   * because they may be committed.
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
