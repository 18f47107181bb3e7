// A fake server that a test plays by hand: the test reads the frames that the client sends, and
// writes those that it receives.

import { MemoryStore, RayBox } from '../../../web/raybox.js';
import { until } from './wait.js';

/** @typedef {Record<string, any>} Frame */

class FakeConnection {
  /** @type {Frame[]} */
  sent = [];
  isOpen = true;

  /** @param {import('../../../web/raybox/transport.js').Listener} listener */
  constructor(listener) {
    this.listener = listener;
  }

  /** @param {Frame} frame */
  take(frame) {
    if (frame.msgType === 53) this.say({ msgType: 54 });
    else this.sent.push(frame);
  }

  /** The client's next frame, which must be of this type. @param {number} msgType @returns {Promise<Frame>} */
  async next(msgType) {
    await until(`a frame of type ${msgType}`, () => this.sent.length > 0);
    const frame = /** @type {Frame} */ (this.sent.shift());
    // The client may send a 47 or a 52 at any time.
    if ((frame.msgType === 47 || frame.msgType === 52) && msgType !== frame.msgType) return this.next(msgType);
    if (frame.msgType !== msgType) throw new Error(`expected a ${msgType}, got ${JSON.stringify(frame)}`);
    return frame;
  }

  /** @param {...Frame} frames */
  say(...frames) {
    for (const frame of frames) this.listener.frame(structuredClone(frame));
  }

  /** Sends a farewell with the reason, and closes. @param {Frame} [end] */
  end(end) {
    if (end) this.say({ msgType: 55, ...end });
    if (this.isOpen) this.listener.closed();
    this.isOpen = false;
  }

  /** Answers a login. @param {Frame[]} [convs] @param {Frame[]} [runs] @param {Frame} [limits] */
  async welcome(convs = [], runs = [], limits = {}) {
    const login = await this.next(1);
    this.say(
      { msgType: 40, errno: 200, level: 2, device: login.device, name: 'ann', user: 1, token: 'token-1', tokenExpires: 9e12, limits: { frame: 65536, inflight: 256, page: 200, ...limits } },
      { msgType: 43, more: false, convs },
      ...runs,
      { msgType: 45, synced: true },
    );
    return login;
  }
}

/** A client that is connected to a fake server. */
export class Fake {
  /** @type {FakeConnection[]} */
  connections = [];
  store = new MemoryStore();
  /** Events as `[name, detail]`. @type {[string, any][]} */
  events = [];

  /** @param {Partial<import('../../../web/raybox.js').Options>} [options] */
  constructor(options = {}) {
    if (options.store instanceof MemoryStore) this.store = options.store;
    this.box = new RayBox({
      url: 'fake:', store: this.store, scale: 0.01, random: () => 0,
      open: (_, listener) => {
        const connection = new FakeConnection(listener);
        this.connections.push(connection);
        queueMicrotask(() => listener.open());
        return { send: (text) => connection.take(JSON.parse(text)), close: () => connection.end() };
      },
      ...options,
    });
    for (const name of ['message', 'altered', 'reset', 'status', 'presence', 'typing']) {
      this.box.addEventListener(name, (event) => this.events.push([name, /** @type {CustomEvent} */ (event).detail]));
    }
  }

  /** The connection number `at`, counted from 0. @param {number} at */
  async connection(at) {
    await until(`connection ${at}`, () => this.connections.length > at);
    return this.connections[at];
  }

  /** Logs Ann in, and returns the connection. @param {Frame[]} [convs] @param {Frame[]} [runs] */
  async login(convs, runs) {
    await this.box.start();
    const done = this.box.login({ name: 'ann', password: 'secret-a' });
    const connection = await this.connection(0);
    await connection.welcome(convs, runs);
    await done;
    await this.online();
    return connection;
  }

  online() {
    return until('the client is online', () => this.box.status.state === 'online');
  }

  /** The details of the events of this name. @param {string} name */
  told(name) {
    return this.events.filter(([event]) => event === name).map(([, detail]) => detail);
  }

  /** All messages of a conversation in the store. @param {string} conv */
  held(conv) {
    return this.store.read(conv, 1, 10_000);
  }
}

/** An entry of a 43. @param {string} conv @param {number} head @param {Frame} [more] */
export const entry = (conv, head, more = {}) => ({
  conv, kind: conv[0] === 'g' ? 'group' : 'user', name: 'bob', floor: 0, head, tag: tagOf(head), read: 0, unread: 0, ...more,
});

/** A 42. @param {string} conv @param {number} seq @param {Frame} [m] @param {Frame} [more] */
export const push = (conv, seq, m = {}, more = {}) => ({
  msgType: 42, conv, seq, tag: tagOf(seq), from: 2, time: 1_789_891_200_000 + seq, m: { msgType: 4, msg: `text ${seq}`, ...m }, ...more,
});

/** @param {number} seq */
export const tagOf = (seq) => seq.toString(16).padStart(8, '0');

/** A 41. @param {string} cid @param {string} conv @param {number} seq @param {Frame} [more] */
export const ack = (cid, conv, seq, more = {}) => ({
  msgType: 41, errno: 200, cid, conv, seq, tag: tagOf(seq), time: 1_789_891_200_000 + seq, ...more,
});
