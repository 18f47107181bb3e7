// Tabs of one browser in a single Node process: the part of Web Locks that the library uses, and
// hubs that share a lock.

import { MemoryStore } from '../../../web/raybox.js';
import { SharedHub } from '../../../web/raybox/tabs.js';

/** @typedef {{steal?: boolean, signal?: AbortSignal}} How */

/** One lock. A request gets it when those before have ended; a stealing one gets it at once. */
class FakeLocks {
  /** @type {{run: () => Promise<void>, resolve: (value: void) => void, reject: (error: Error) => void}[]} */
  #queue = [];
  /** @type {{reject: (error: Error) => void} | undefined} */
  #holder;

  /** @param {string} name @param {How} how @param {() => Promise<void>} run @returns {Promise<void>} */
  request(name, how, run) {
    return new Promise((resolve, reject) => {
      const request = { run, resolve, reject };
      how.signal?.addEventListener('abort', () => {
        if (!this.#queue.includes(request)) return;
        this.#queue.splice(this.#queue.indexOf(request), 1);
        reject(new DOMException('aborted', 'AbortError'));
      });
      if (how.steal) {
        this.#queue.unshift(request);
        this.#holder?.reject(new DOMException('stolen', 'AbortError'));
        this.#holder = undefined;
      } else this.#queue.push(request);
      this.#next();
    });
  }

  #next() {
    const request = this.#queue[0];
    if (this.#holder || !request) return;
    this.#queue.shift();
    this.#holder = request;
    const ended = () => {
      if (this.#holder !== request) return;
      this.#holder = undefined;
      request.resolve();
      this.#next();
    };
    queueMicrotask(() => request.run().then(ended, ended));
  }
}

/** Makes `navigator.locks` for a test. @param {import('node:test').TestContext} t @param {Partial<FakeLocks>} [locks] */
export function withLocks(t, locks = new FakeLocks()) {
  const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  Object.defineProperty(globalThis, 'navigator', { value: { locks }, configurable: true });
  t.after(() => {
    if (before) Object.defineProperty(globalThis, 'navigator', before);
    else delete (/** @type {any} */ (globalThis).navigator);
  });
}

/** Makes tabs that share a store and have no server. @param {import('node:test').TestContext} t @param {string} name */
export function tabsOf(t, name) {
  const store = new MemoryStore();
  return () => {
    const tab = {
      snapshots: 0,
      hub: new SharedHub(name, { url: 'fake:', store, scale: 0.01, open: () => ({ send: () => {}, close: () => {} }) }, {
        snapshot: () => (tab.snapshots += 1),
        event: () => {},
      }),
    };
    t.after(() => tab.hub.stop());
    return tab;
  };
}
