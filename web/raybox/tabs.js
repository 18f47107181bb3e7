// Several tabs of one browser share one connection. The tab that holds the lock runs the engine; the others send it their
// calls, and it tells everybody what happens. When it is closed, another one takes the lock and goes on from the store.

import { Engine } from './engine.js';
import { MemoryStore } from './memory-store.js';
import { offlineError, RayBoxError } from './wire.js';

/** @typedef {import('./core.js').EngineEvent} EngineEvent */

/** Calls that may be repeated when the tab that runs the engine has gone before it answered. */
const REPEATABLE = new Set(['send', 'history', 'markRead', 'typing', 'watch', 'wake', 'reconnect', 'learn', 'learnAccount', 'userName']);

/** @typedef {import('./core.js').EngineOptions & import('./link.js').LinkOptions} Options */

/**
 * @typedef {ReturnType<Engine['snapshot']>} Snapshot
 * @typedef {object} HubEvents
 * @property {(snapshot: Snapshot) => void} snapshot everything, from the start
 * @property {(event: EngineEvent) => void} event
 */

/** The one tab, or the program: calls go straight to the engine. */
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

/** One of several tabs. */
export class SharedHub {
  #options;
  #events;
  #channel;
  #self = crypto.randomUUID();
  /** @type {Engine | undefined} */
  #engine;
  #isStarted = false;
  /** @type {(() => void) | undefined} */
  #release;
  /** @type {Map<string, {name: string, args: any[], resolve: (value: any) => void, reject: (error: Error) => void}>} */
  #calls = new Map();
  #last = 0;

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

  async start() {
    void navigator.locks.request(this.name, () => this.#lead());
    this.#post({ kind: 'hello' });
  }

  /** Runs the engine until this tab is closed. @returns {Promise<void>} */
  async #lead() {
    const tell = (/** @type {EngineEvent} */ event) => {
      if (!this.#isStarted) return;
      this.#post({ kind: 'event', event });
      this.#events.event(event);
    };
    const engine = await startEngine(this.#options, tell, (started) => {
      this.#engine = started;
      this.#isStarted = true;
      this.#tell(started);
    });
    for (const [id, call] of this.#calls) {
      this.#calls.delete(id);
      if (REPEATABLE.has(call.name)) callEngine(engine, call.name, call.args).then(call.resolve, call.reject);
      else call.reject(new RayBoxError(0, 'the tab with the connection was closed; try again', 1));
    }
    return new Promise((resolve) => (this.#release = resolve));
  }

  /** @param {Engine} engine */
  #tell(engine) {
    const snapshot = engine.snapshot();
    this.#post({ kind: 'snapshot', snapshot });
    this.#events.snapshot(snapshot);
  }

  /** @param {string} name @param {any[]} args @returns {Promise<any>} */
  call(name, args) {
    if (this.#engine && this.#isStarted) return callEngine(this.#engine, name, args);
    return new Promise((resolve, reject) => {
      this.#last += 1;
      const id = `${this.#self}/${this.#last}`;
      this.#calls.set(id, { name, args, resolve, reject });
      this.#post({ kind: 'call', id, name, args });
    });
  }

  /** @param {any} data */
  #onMessage(data) {
    const engine = this.#isStarted ? this.#engine : undefined;
    if (engine && data.kind === 'hello') this.#post({ kind: 'snapshot', snapshot: engine.snapshot(), to: data.self });
    else if (engine && data.kind === 'call') this.#serve(engine, data);
    else if (engine) return;
    else if (data.kind === 'event') this.#events.event(data.event);
    else if (data.kind === 'answer') this.#answered(data);
    else if (data.kind === 'snapshot' && (data.to ?? this.#self) === this.#self) {
      this.#events.snapshot(data.snapshot);
      // The new tab with the connection has not seen what was asked of the old one.
      if (!data.to) for (const [id, { name, args }] of this.#calls) if (REPEATABLE.has(name)) this.#post({ kind: 'call', id, name, args });
    }
  }

  /** @param {Engine} engine @param {{id: string, name: string, args: any[]}} call */
  #serve(engine, { id, name, args }) {
    callEngine(engine, name, args).then(
      (value) => this.#post({ kind: 'answer', id, value }),
      (error) => this.#post({ kind: 'answer', id, error: { errno: error.errno ?? 0, message: error.message, retryAfter: error.retryAfter } }),
    );
  }

  /** @param {{id: string, value?: any, error?: {errno: number, message: string, retryAfter?: number}}} answer */
  #answered({ id, value, error }) {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (error) call?.reject(new RayBoxError(error.errno, error.message, error.retryAfter));
    else call?.resolve(value);
  }

  /** @param {object} data */
  #post(data) {
    this.#channel.postMessage({ ...data, self: this.#self });
  }

  stop() {
    this.#engine?.stop();
    this.#release?.();
    this.#channel.close();
  }
}

/**
 * Starts an engine. A browser that cannot store anything, as in some private windows, is no reason not to: then everything is
 * in memory, and `trouble` says so.
 * @param {Options} options @param {(event: EngineEvent) => void} emit @param {(engine: Engine) => void} started
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
  if (trouble) emit({ kind: 'trouble', message: String(trouble) });
  return engine;
}

/** @param {Engine} engine @param {string} name @param {any[]} args @returns {Promise<any>} */
async function callEngine(engine, name, args) {
  return /** @type {any} */ (engine)[name](...args);
}
