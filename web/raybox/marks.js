// The reports of this device: messages stored (47) and read (49), and that its user is typing (51).

import { RayBoxError, ticks, Type } from './wire.js';

/** @typedef {import('./wire.js').Conversation} Conversation */
/** @typedef {import('./wire.js').Frame} Frame */

/**
 * The least time between two 47s, and between two 51s in a conversation, in milliseconds.
 */
const STORED_EVERY = 1000;
const TYPING_EVERY = 3000;

/**
 * @typedef {object} MarksEvents
 * @property {(frame: Frame) => void} send
 * @property {(frame: Frame) => Promise<Frame>} ask
 * @property {(reply: Frame) => void} confirmed the server has answered a read mark
 */

export class Marks {
  #events;
  #isLive = false;
  /** @type {Map<string, number>} */
  #stored = new Map();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #lastReport = -Infinity;
  /** Conversations whose read mark is in flight. @type {Set<string>} */
  #asking = new Set();
  /** Conversations whose own mark is to be asked for. @type {Set<string>} */
  #unknown = new Set();
  /** @type {Map<string, number>} */
  #typed = new Map();

  /** @param {MarksEvents} events */
  constructor(events) {
    this.#events = events;
  }

  /** Notes that there is a connection, and sends what is due. @param {Iterable<Conversation>} convs */
  live(convs) {
    this.#isLive = true;
    for (const conv of convs) if (conv.seq > 0) this.#stored.set(conv.conv, conv.seq);
    this.#schedule();
    for (const conv of convs) this.read(conv);
  }

  down() {
    this.#isLive = false;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#stored.clear();
    this.#asking.clear();
    this.#unknown.clear();
  }

  /** Notes that everything up to `seq` is stored. @param {string} conv @param {number} seq */
  stored(conv, seq) {
    if (!this.#isLive) return;
    this.#stored.set(conv, seq);
    this.#schedule();
  }

  #schedule() {
    if (this.#timer !== undefined || this.#stored.size === 0) return;
    this.#timer = setTimeout(() => this.#report(), Math.max(0, this.#lastReport + STORED_EVERY - ticks()));
  }

  #report() {
    this.#timer = undefined;
    this.#lastReport = ticks();
    const some = [...this.#stored].slice(0, 1000);
    this.#events.send({ msgType: Type.stored, recv: Object.fromEntries(some) });
    for (const [conv] of some) this.#stored.delete(conv);
    this.#schedule();
  }

  /**
   * Asks for the own mark and the number of unread messages, of which no 43 will tell. A 49 with 0
   * raises no mark. @param {Conversation} conv
   */
  learn(conv) {
    if (!this.#isLive) return;
    this.#unknown.add(conv.conv);
    this.read(conv);
  }

  /** Sends the read mark of a conversation if it is due. @param {Conversation} conv */
  read(conv) {
    const isDue = conv.markDue !== undefined || this.#unknown.has(conv.conv);
    if (!this.#isLive || !isDue || this.#asking.has(conv.conv)) return;
    this.#asking.add(conv.conv);
    this.#unknown.delete(conv.conv);
    this.#events.ask({ msgType: Type.read, conv: conv.conv, read: conv.markDue ?? 0 }).then(
      (reply) => {
        this.#asking.delete(conv.conv);
        this.#events.confirmed(reply);
        this.read(conv);
      },
      (error) => {
        this.#asking.delete(conv.conv);
        if (!(error instanceof RayBoxError) || error.errno === 0) return;
        if (error.retryAfter === undefined) delete conv.markDue;
        else setTimeout(() => this.learn(conv), error.retryAfter * 1000);
      },
    );
  }

  /** Notes that the user is typing. @param {string} conv */
  typing(conv) {
    if (!this.#isLive || ticks() - (this.#typed.get(conv) ?? -Infinity) < TYPING_EVERY) return;
    this.#typed.set(conv, ticks());
    this.#events.send({ msgType: Type.typing, conv, event: 'typing' });
  }
}
