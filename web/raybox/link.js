// Keeps one connection open. After it has ended, the link waits for the time of the contract, and
// opens it again.

import { openSocket } from './transport.js';
import { Type } from './wire.js';

/** @typedef {import('./wire.js').Frame} Frame */

/** The backoff after the first failure, and the longest one, in seconds. */
const FIRST_WAIT = 1;
const LONGEST_WAIT = 60;

/**
 * The timeouts in milliseconds, each at first and at most: for opening a connection and for the
 * answer to a login, and for the answer to a ping. The kernel of a frozen server accepts
 * connections, so only missing answers show the fault. A slow server or network may need longer, so
 * each timeout doubles those of the next connections, until a connection has lasted.
 */
const LOGIN_WITHIN = [15_000, 60_000];
const PONG_WITHIN = [20_000, 40_000];

/** A connection has lasted when the server is heard so many milliseconds after its beginning. */
const LASTS_FROM = 60_000;

/**
 * The silence after which the link sends a ping while something is unanswered, in milliseconds. A
 * socket of a browser tells only of whole frames, so a page of the history counts as silence until
 * its last byte: on a network with 10 KB a second the largest one, 256 KiB, takes 26 seconds.
 */
const SOON = 10_000;

/** Frames that have no answer: 47, 51, 53 (its answer has a timeout of its own) and 54. */
const UNANSWERED = new Set([Type.stored, Type.typing, Type.ping, Type.pong]);

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
 * @property {() => boolean} isWaiting whether a message or a request is unanswered
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
  /**
   * The meaning of the watch: to send a ping after a long silence, or soon, or to end the connection
   * if an answer does not come.
   * @type {'later' | 'soon' | 'answer'}
   */
  #watching = 'answer';
  /** The timeouts since a connection has lasted. */
  #timeouts = 0;
  #begun = 0;
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
    // Where an answer is awaited already, a ping would only shorten the time for it.
    if (this.#isOpen && this.#watching !== 'answer') this.#ask();
    else if (this.#wanted && !this.#socket && !(isPatient && this.#isTold)) this.start();
  }

  /** Sends a frame whose answer comes before anything else. @param {Frame} frame */
  sendFirst(frame) {
    this.#giveUpAfter(LOGIN_WITHIN);
    this.#write(JSON.stringify(frame));
  }

  /** @param {Frame} frame */
  send(frame) {
    if (UNANSWERED.has(frame.msgType)) this.#write(JSON.stringify(frame));
    else this.sendText(JSON.stringify(frame));
  }

  /** Sends a frame that has an answer. @param {string} text */
  sendText(text) {
    if (this.#watching === 'later') this.#askSoon();
    this.#write(text);
  }

  /** @param {string} text */
  #write(text) {
    if (this.#isOpen) this.#socket?.send(text);
  }

  #open() {
    this.#end = undefined;
    this.#events.opening();
    const open = this.#options.open ?? openSocket;
    const listener = {
      open: () => {
        this.#isOpen = true;
        this.#begun = performance.now();
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
      this.#giveUpAfter(LOGIN_WITHIN);
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
    if (performance.now() - this.#begun >= LASTS_FROM * this.#scale) this.#timeouts = 0;
    if (this.#events.isWaiting()) this.#askSoon();
    else this.#askLater(this.#silence);
  }

  /** Sends a ping after this silence. @param {number} silence */
  #askLater(silence) {
    this.#watchFor('later', silence, () => this.#ask());
  }

  /** Sends a ping soon, if something is unanswered then. */
  #askSoon() {
    this.#watchFor('soon', SOON, () => {
      if (this.#events.isWaiting()) this.#ask();
      else this.#askLater(this.#silence - SOON);
    });
  }

  #ask() {
    this.#giveUpAfter(PONG_WITHIN);
    this.send({ msgType: Type.ping });
  }

  /** Ends the connection if nothing is heard in this time. @param {number[]} timeout */
  #giveUpAfter([first, longest]) {
    this.#watchFor('answer', Math.min(longest, first * 2 ** this.#timeouts), () => {
      this.#timeouts += 1;
      this.#socket?.close();
    });
  }

  /**
   * Sets the watch anew.
   * @param {'later' | 'soon' | 'answer'} what
   * @param {number} wait in milliseconds
   * @param {() => void} act
   */
  #watchFor(what, wait, act) {
    clearTimeout(this.#watch);
    this.#watching = what;
    this.#watch = setTimeout(act, wait * this.#scale);
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
