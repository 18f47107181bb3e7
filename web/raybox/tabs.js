// Several tabs of one browser share one connection. The tab that holds the lock leads: it runs the
// engine, the others send it their calls, and it sends all of them its events. When it is closed,
// another tab takes the lock and goes on from the store.
//
// A sleeping tab, as on a phone, keeps the lock but does not answer. So a tab that makes a call
// also knocks, and takes the lock away from a leader that does not answer the knock.

import { Engine } from './engine.js';
import { MemoryStore } from './memory-store.js';
import { offlineError, RayBoxError, uuid7 } from './wire.js';

/** @typedef {import('./core.js').EngineEvent} EngineEvent */

/** Calls that may be repeated if the leader has gone before it answered. */
const REPEATABLE = new Set(['send', 'history', 'markRead', 'typing', 'watch', 'wake', 'reconnect', 'learn', 'learnAccount', 'userName']);

/** The timeout for the answer to a knock, in milliseconds. */
const KNOCK = 10_000;

/** @typedef {import('./core.js').EngineOptions & import('./link.js').LinkOptions} Options */

/**
 * @typedef {ReturnType<Engine['snapshot']>} Snapshot
 * @typedef {object} HubEvents
 * @property {(snapshot: Snapshot) => void} snapshot the whole state, which replaces the one before
 * @property {(event: EngineEvent) => void} event
 */

/** The hub of a single tab or of a program: calls go directly to the engine. */
export class LocalHub {
  #options;
  #events;
  /** @type {Engine | undefined} */
  #engine;

  /** @param {Options} options @param {HubEvents} events */
  constructor(options, events) {
    this.#options = options;
    this.#events = events;
  }

  get leads() {
    return true;
  }

  async start() {
    this.#engine = await startEngine(this.#options, this.#events.event, (engine) => this.#events.snapshot(engine.snapshot()));
  }

  /** @param {string} name @param {any[]} args @returns {Promise<any>} */
  async call(name, args) {
    if (!this.#engine) throw offlineError();
    return callEngine(this.#engine, name, args);
  }

  stop() {
    this.#engine?.stop();
  }
}

/**
 * A call of this tab that has no answer yet.
 * @typedef {object} Call
 * @property {string} id
 * @property {string} name
 * @property {any[]} args
 * @property {string} [leader] the tab that it was sent to
 * @property {(value: any) => void} resolve
 * @property {(error: Error) => void} reject
 */

/** The hub of one of several tabs. */
export class SharedHub {
  #options;
  #events;
  #channel;
  #self = uuid7();
  /** @type {Engine | undefined} */
  #engine;
  /**
   * The leader, as far as this tab knows.
   * @type {string | undefined}
   */
  #leader;
  /** Whether this tab has the lock. */
  #hasLock = false;
  #isStopped = false;
  /** Aborts the wait for the lock. @type {AbortController | undefined} */
  #waiting;
  /** The lock is held until this resolves. @type {Promise<void>} */
  #released = Promise.resolve();
  /** @type {(() => void) | undefined} */
  #release;
  /** @type {Map<string, Call>} */
  #calls = new Map();
  #last = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #knock;

  /**
   * @param {string} name of the lock and the channel
   * @param {Options} options @param {HubEvents} events
   */
  constructor(name, options, events) {
    this.name = name;
    this.#options = options;
    this.#events = events;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#onMessage(data);
  }

  get leads() {
    return this.#engine !== undefined;
  }

  async start() {
    this.#wait();
    this.#post({ kind: 'hello' });
    this.#knockSoon();
  }

  // ---- The lock ----

  /** Waits for the lock. */
  #wait() {
    this.#waiting = new AbortController();
    this.#hold({ signal: this.#waiting.signal });
  }

  /** @param {LockOptions} how */
  #hold(how) {
    navigator.locks.request(this.name, how, () => this.#lead()).catch((error) => {
      if (this.#isStopped || how.signal?.aborted) return;
      if (error?.name === 'AbortError') this.#deposed();
      // A browser that cannot store anything for this page has no locks, either. Each tab then runs
      // an engine of its own.
      else void this.#lead();
    });
  }

  /** Runs the engine until this tab is closed. @returns {Promise<void>} */
  async #lead() {
    // The lock may be granted while it is being stolen. It is then held twice, for one engine.
    if (this.#isStopped || this.#hasLock) return this.#released;
    this.#hasLock = true;
    this.#heard();
    this.#released = new Promise((resolve) => (this.#release = resolve));
    const released = this.#released;
    /** @type {Engine | undefined} */
    let mine;
    const tell = (/** @type {EngineEvent} */ event) => {
      if (!mine || mine !== this.#engine) return;
      this.#post({ kind: 'event', event });
      this.#events.event(event);
    };
    const engine = await startEngine(this.#options, tell, (started) => {
      if (!this.#hasLock) return;
      mine = started;
      this.#engine = started;
      this.#leader = this.#self;
      const snapshot = started.snapshot();
      this.#post({ kind: 'snapshot', snapshot });
      this.#events.snapshot(snapshot);
    });
    if (mine) this.#again((call) => callEngine(engine, call.name, call.args).then(call.resolve, call.reject), true);
    else engine.stop();
    return released;
  }

  /** Stops leading: another tab has taken the lock away, because this one was asleep. */
  #deposed() {
    this.#hasLock = false;
    this.#engine?.stop();
    this.#engine = undefined;
    this.#leader = undefined;
    this.#release?.();
    void this.start();
  }

  /** Asks whether the leader is awake. */
  #knockSoon() {
    if (this.#knock !== undefined || this.#hasLock || this.#isStopped) return;
    this.#post({ kind: 'knock' });
    this.#knock = setTimeout(() => {
      this.#knock = undefined;
      if (this.#hasLock || this.#isStopped) return;
      this.#waiting?.abort();
      this.#hold({ steal: true });
    }, KNOCK * (this.#options.scale ?? 1));
  }

  #heard() {
    clearTimeout(this.#knock);
    this.#knock = undefined;
  }

  // ---- Calls ----

  /** @param {string} name @param {any[]} args @returns {Promise<any>} */
  call(name, args) {
    if (this.#engine) return callEngine(this.#engine, name, args);
    return new Promise((resolve, reject) => {
      this.#last += 1;
      /** @type {Call} */
      const call = { id: `${this.#self}/${this.#last}`, name, args, resolve, reject };
      this.#calls.set(call.id, call);
      // Without a leader the call waits for one.
      if (this.#leader) this.#ask(call);
    });
  }

  /** @param {Call} call */
  #ask(call) {
    call.leader = this.#leader;
    this.#post({ kind: 'call', to: this.#leader, id: call.id, name: call.name, args: call.args });
    this.#knockSoon();
  }

  /**
   * Repeats open calls, because the new leader has not seen those to the old one.
   * @param {(call: Call) => void} ask @param {boolean} isSelf
   */
  #again(ask, isSelf) {
    for (const call of this.#calls.values()) {
      if (isSelf) this.#calls.delete(call.id);
      if (call.leader === undefined || REPEATABLE.has(call.name)) ask(call);
      else {
        this.#calls.delete(call.id);
        call.reject(new RayBoxError(0, 'the tab with the connection was closed; try again', 1));
      }
    }
  }

  /** @param {any} data */
  #onMessage(data) {
    if (data.kind === 'knock') {
      if (this.#hasLock) this.#post({ kind: 'awake' });
    } else if (this.#hasLock) {
      const engine = this.#engine;
      if (engine && data.kind === 'hello') this.#post({ kind: 'snapshot', snapshot: engine.snapshot(), to: data.self });
      else if (engine && data.kind === 'call' && data.to === this.#self) this.#serve(engine, data);
    } else this.#onNews(data);
  }

  /** Handles a message of the leader. @param {any} data */
  #onNews(data) {
    if (!['awake', 'event', 'answer', 'snapshot'].includes(data.kind)) return;
    this.#heard();
    if (data.kind === 'event' && data.self === this.#leader) this.#events.event(data.event);
    else if (data.kind === 'answer') this.#answered(data);
    else if (data.kind === 'snapshot' && (data.to ?? this.#self) === this.#self) {
      const isNew = this.#leader !== data.self;
      this.#leader = data.self;
      this.#events.snapshot(data.snapshot);
      if (isNew) this.#again((call) => this.#ask(call), false);
    }
  }

  /** @param {Engine} engine @param {{id: string, name: string, args: any[]}} call */
  #serve(engine, { id, name, args }) {
    callEngine(engine, name, args).then(
      (value) => this.#post({ kind: 'answer', id, value }),
      (error) => this.#post({ kind: 'answer', id, error: { errno: error.errno ?? 0, message: error.message, retryAfter: error.retryAfter } }),
    );
  }

  /**
   * @param
   *   {{id: string, value?: any, error?: {errno: number, message: string, retryAfter?: number}}}
   *   answer
   */
  #answered({ id, value, error }) {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (error) call?.reject(new RayBoxError(error.errno, error.message, error.retryAfter));
    else call?.resolve(value);
  }

  /** @param {object} data */
  #post(data) {
    if (!this.#isStopped) this.#channel.postMessage({ ...data, self: this.#self });
  }

  stop() {
    this.#isStopped = true;
    clearTimeout(this.#knock);
    this.#engine?.stop();
    this.#release?.();
    this.#waiting?.abort();
    this.#channel.close();
  }
}

/**
 * Starts an engine. If the browser cannot store anything, as in some private windows, everything is
 * in memory, and `trouble` reports that.
 * @param {Options} options
 * @param {(event: EngineEvent) => void} emit
 * @param {(engine: Engine) => void} started
 */
async function startEngine(options, emit, started) {
  let { store } = options;
  /** @type {unknown} */
  let trouble;
  try {
    await store.open();
  } catch (error) {
    trouble = error;
    store = new MemoryStore();
  }
  const engine = new Engine({ ...options, store }, emit);
  await engine.start();
  started(engine);
  if (trouble) engine.setTrouble(trouble);
  return engine;
}

/** @param {Engine} engine @param {string} name @param {any[]} args @returns {Promise<any>} */
async function callEngine(engine, name, args) {
  return /** @type {any} */ (engine)[name](...args);
}
