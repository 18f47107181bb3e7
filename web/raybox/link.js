// Keeps one connection open. After it has ended, the link waits for the time of the contract, and
// opens it again.

import { openSocket } from './transport.js';
import { Type } from './wire.js';

/** @typedef {import('./wire.js').Frame} Frame */

/** The backoff after the first failure, and the longest one, in seconds. */
const FIRST_WAIT = 1;
const LONGEST_WAIT = 60;

/** The timeout for opening a connection and for the answer to a ping, in milliseconds. */
const PATIENCE = 15_000;

/**
 * @typedef {object} LinkOptions
 * @property {string} url
 * @property {import('./transport.js').OpenSocket} [open]
 * @property {() => number} [random] from 0 to 1
 * @property {number} [scale] multiplies all waits; tests use it to shorten them
 */

/**
 * @typedef {object} LinkEvents
 * @property {() => void} opening
 * @property {() => void} opened
 * @property {(frame: Frame) => void} frame
 * @property {(wait: number | undefined, end: Frame | undefined) => void} down the connection is
 *   gone. `wait` is the time in seconds until the next attempt, or `undefined` if there will be
 *   none; `end` is the server's farewell, if there was one
 */

export class Link {
  #options;
  #events;
  /** @type {import('./transport.js').Socket | undefined} */
  #socket;
  #isOpen = false;
  #failures = 0;
  /** @type {Frame | undefined} */
  #end;
  #wanted = false;
  /** Whether the server has named the time to wait. */
  #isTold = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #watch;
  /** After this many milliseconds of silence the link sends a ping. */
  #silence = 90_000;

  /** @param {LinkOptions} options @param {LinkEvents} events */
  constructor(options, events) {
    this.#options = options;
    this.#events = events;
  }

  get isOpen() {
    return this.#isOpen;
  }

  /** Connects at once, and again whenever the connection has ended. */
  start() {
    this.#wanted = true;
    clearTimeout(this.#timer);
    if (!this.#socket) this.#open();
  }

  /** Ends the connection, and does not reconnect. */
  stop() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#failures = 0;
    this.#socket?.close();
  }

  /** Ends the connection and opens another one at once. */
  restart() {
    this.#failures = 0;
    if (this.#socket) {
      this.#end = { retryAfter: 0 };
      this.#socket.close();
    } else if (this.#wanted) this.start();
  }

  /**
   * Notes that the connection works, so the next backoff is short again.
   * @param {number} ping the seconds between pings of the server
   */
  proved(ping) {
    this.#failures = 0;
    this.#silence = ping * 1500;
  }

  /**
   * Ends the connection because of this answer, as if it were a farewell of the server.
   * @param {Frame} end
   */
  giveUp(end) {
    this.#end = end;
    this.#socket?.close();
  }

  /**
   * Sends a ping now, or connects.
   * @param {boolean} isPatient a wait that the server has asked for is not cut short
   */
  probe(isPatient) {
    if (this.#isOpen) this.#ask();
    else if (this.#wanted && !this.#socket && !(isPatient && this.#isTold)) this.start();
  }

  /** @param {Frame} frame */
  send(frame) {
    this.sendText(JSON.stringify(frame));
  }

  /** @param {string} text */
  sendText(text) {
    if (this.#isOpen) this.#socket?.send(text);
  }

  #open() {
    this.#end = undefined;
    this.#events.opening();
    const open = this.#options.open ?? openSocket;
    const listener = {
      open: () => {
        this.#isOpen = true;
        this.#heard();
        this.#events.opened();
      },
      /** @param {Frame} frame */
      frame: (frame) => {
        this.#heard();
        this.#take(frame);
      },
      closed: () => this.#down(),
    };
    try {
      this.#socket = open(this.#options.url, listener);
      this.#watch = setTimeout(() => this.#socket?.close(), PATIENCE * this.#scale);
    } catch {
      this.#down();
    }
  }

  /** @param {Frame} frame */
  #take(frame) {
    if (frame.msgType === Type.ping) this.send({ msgType: Type.pong });
    else if (frame.msgType === Type.end) this.#end = frame;
    else if (frame.msgType !== Type.pong) this.#events.frame(frame);
  }

  #heard() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.#ask(), this.#silence * this.#scale);
  }

  #ask() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.#socket?.close(), PATIENCE * this.#scale);
    this.send({ msgType: Type.ping });
  }

  #down() {
    clearTimeout(this.#watch);
    const end = this.#end;
    this.#socket = undefined;
    this.#isOpen = false;
    this.#end = undefined;
    // The mistake may be temporary, so the link reconnects after `protocol`, with backoff.
    const isFinal = end && end.retryAfter === undefined && end.reason !== 'protocol';
    if (isFinal) this.#wanted = false;
    this.#isTold = end?.retryAfter !== undefined;
    const wait = this.#wanted ? this.#wait(end?.retryAfter) : undefined;
    if (wait !== undefined) this.#timer = setTimeout(() => this.start(), wait * 1000);
    this.#events.down(wait, end);
  }

  /**
   * The wait until the next attempt, in seconds.
   * @param {number | undefined} retryAfter the wait that the server has asked for
   */
  #wait(retryAfter) {
    const base = retryAfter ?? Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures);
    this.#failures += 1;
    const random = this.#options.random ?? Math.random;
    return base * (1 + random() / 2) * this.#scale;
  }

  get #scale() {
    return this.#options.scale ?? 1;
  }
}
