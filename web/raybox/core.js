// The part of the client that runs without its user: it logs in, synchronises, and connects
// conversations, outbox and marks. Its events are plain objects that can be copied to other tabs.

import { Conversations } from './conversations.js';
import { Journal } from './journal.js';
import { Link } from './link.js';
import { Marks } from './marks.js';
import { Names } from './names.js';
import { Outbox } from './outbox.js';
import { Requests } from './requests.js';
import { errorOf, newContact, offlineError, randomBytes, Type } from './wire.js';

/** @typedef {import('./wire.js').Frame} Frame */
/** @typedef {import('./wire.js').Message} Message */
/** @typedef {import('./wire.js').Conversation} Conversation */
/** @typedef {import('./wire.js').Pending} Pending */
/** @typedef {import('./wire.js').Status} Status */
/** @typedef {import('./wire.js').Account} Account */

/**
 * The seconds between pings of the server, and the most messages of one conversation that a
 * synchronisation brings.
 */
const PING = 45;
const RESUME = 200;

/**
 * The events of the engine.
 * @typedef {{kind: 'status', status: Status}
 *   | {kind: 'account', account: Account}
 *   | {kind: 'conversations', list: Conversation[]}
 *   | {kind: 'message', msg: Message}
 *   | {kind: 'altered', msg: Message}
 *   | {kind: 'reset', conv: string}
 *   | {kind: 'outbox', conv: string, list: Pending[]}
 *   | {kind: 'typing', conv: string, from: number}
 *   | {kind: 'presence', user: number, online: boolean}
 *   | {kind: 'trouble', message: string | null}
 *   | {kind: 'cleared'}} EngineEvent
 */

/**
 * @typedef {{name?: string, user?: number, password?: string, jwt?: string, register?: boolean}}
 *   Credentials
 */

/**
 * @typedef {object} EngineOptions
 * @property {import('./memory-store.js').Store} store
 * @property {string} [deviceKind] the beginning of the device's name
 * @property {JwtSource} [jwt]
 */

/**
 * A token of an identity provider (JSON web token), or a function that fetches a fresh one.
 * @typedef {string | (() => string | Promise<string>)} JwtSource
 */

export class Core {
  store;
  link;
  requests;
  journal;
  emit;
  #deviceKind;
  #jwt;
  /** @type {Account} */
  account = { device: '' };
  /** @type {Status} */
  status = { state: 'starting' };
  /** The reason why nothing can be stored at the moment. @type {string | null} */
  trouble = null;
  conversations;
  outbox;
  marks;
  names;
  /** @type {import('./wire.js').Limits} */
  limits = { frame: 65536, inflight: 256, page: 200 };
  /**
   * The request that the next frame answers before the login is complete.
   * @type {'none' | 'register' | 'login'}
   */
  #phase = 'none';
  /**
   * @type {{proof: Credentials, resolve: () => void, reject: (error: Error) => void} | undefined}
   */
  #login;
  // The JSON web token of a login that has to be repeated with the cursors: the server's token may
  // have ended with it.
  /** @type {string | undefined} */
  #again;
  /** Whether the login has sent the cursors that are stored here. */
  #isOwn = true;
  /** The conversations of each 46 that has no 45 yet. @type {Map<number, string[]>} */
  #asked = new Map();
  /** Changed conversations whose event is still to be sent. @type {Set<string>} */
  #changed = new Set();
  /** Conversations with a changed outbox whose event is still to be sent. @type {Set<string>} */
  #pending = new Set();
  /** @type {number[]} */
  watched = [];
  /** @type {Map<number, boolean>} */
  online = new Map();

  /**
   * @param {EngineOptions & import('./link.js').LinkOptions} options
   * @param {(event: EngineEvent) => void} emit
   */
  constructor(options, emit) {
    this.store = options.store;
    this.emit = emit;
    this.#deviceKind = options.deviceKind ?? 'js';
    this.#jwt = options.jwt;
    this.journal = new Journal(options.store, (error) => {
      this.setTrouble(error);
      if (error !== null) this.outbox.pump();
    }, () => this.conversations.shrink());
    this.link = new Link(options, {
      // Until the server has accepted a login, no user is logged in, whatever is stored here.
      opening: () => this.setStatus({ state: this.account.token ? 'connecting' : 'signedOut' }),
      opened: () => this.#hello(),
      frame: (frame) => this.#onFrame(frame),
      isWaiting: () => this.outbox.isWaiting || this.requests.isWaiting || this.#asked.size > 0,
      down: (wait, end) => this.#onDown(wait, end),
    });
    const send = (/** @type {Frame} */ frame) => {
      if (this.status.state !== 'online' && this.status.state !== 'syncing') return false;
      this.link.send(frame);
      return true;
    };
    this.requests = new Requests(send);
    this.conversations = new Conversations(this.journal, (...range) => this.store.read(...range), {
      changed: (conv) => this.#noteChanged(conv),
      message: (msg) => {
        this.journal.after(() => this.marks.stored(msg.conv, msg.seq));
        this.names.find(this.conversations.get(msg.conv));
        emit({ kind: 'message', msg });
      },
      altered: (msg) => emit({ kind: 'altered', msg }),
      reset: (conv) => {
        this.outbox.requeue(conv);
        this.marks.learn(this.conversations.get(conv));
        emit({ kind: 'reset', conv });
      },
      ask: (have) => this.#ask(have),
    });
    this.outbox = new Outbox(this.journal, {
      transmit: (text) => this.link.sendText(text),
      isReady: (conv) => this.conversations.isReady(conv),
      place: (msg) => this.conversations.show(msg),
      isPast: (msg) => msg.seq <= this.conversations.get(msg.conv).seq,
      changed: (conv) => this.#notePending(conv),
    });
    this.marks = new Marks({
      send,
      ask: (frame) => this.requests.ask(frame),
      confirmed: (reply) => this.conversations.onRead(reply),
    });
    this.names = new Names((frame) => this.request(frame), (conv, name) => void this.learn(conv, { name }));
  }

  /** Reads the store, and connects if a user is logged in. */
  async start() {
    const { account, convs, outbox } = await this.store.open();
    if (account) this.account = account;
    for (const conv of convs) this.conversations.all.set(conv.conv, conv);
    this.outbox.restore(outbox);
    this.#isUser(account?.user ?? 0);
    if (this.account.token) this.link.start();
    else if (this.#jwt) await this.#loginWithJwt();
    else this.setStatus({ state: 'signedOut' });
  }

  /** Logs in with a fresh token of the identity provider. A failure is in the status. */
  async #loginWithJwt() {
    try {
      const jwt = typeof this.#jwt === 'function' ? await this.#jwt() : this.#jwt;
      await this.login({ jwt });
    } catch (error) {
      // After a refusal, the status has the reason.
      if (this.status.state !== 'signedOut' || !this.status.reason) {
        this.setStatus({ state: 'signedOut', reason: 'expired', errmsg: String(error) });
      }
    }
  }

  /** Ends the connection, and writes nothing from now on. */
  stop() {
    this.link.stop();
    this.journal.close();
    this.store.close();
  }

  /** Everything that another tab needs to show the same state. */
  snapshot() {
    return structuredClone({
      status: this.status,
      account: publicAccount(this.account),
      convs: [...this.conversations.all.values()],
      outbox: [...this.outbox.all.values()],
      online: [...this.online],
      trouble: this.trouble,
    });
  }

  /** Notes whether the browser can store anything. @param {unknown} error `null` if it can */
  setTrouble(error) {
    this.trouble = error === null ? null : String(error);
    this.emit({ kind: 'trouble', message: this.trouble });
  }

  // ---- Logging in and out ----

  /** @param {Credentials} proof @returns {Promise<void>} */
  async login(proof) {
    return new Promise((resolve, reject) => {
      this.#login?.reject(offlineError());
      this.#login = { proof, resolve, reject };
      this.link.stop();
      this.link.start();
    });
  }

  #hello() {
    const proof = this.#login?.proof;
    if (proof?.register) {
      this.#phase = 'register';
      this.link.sendFirst({ msgType: Type.register, name: proof.name, password: proof.password });
    } else this.#sendLogin();
  }

  #sendLogin() {
    if (!this.account.device) {
      this.account.device = `${this.#deviceKind}-${randomText()}`;
      this.journal.account(this.account);
    }
    this.#phase = 'login';
    const { name, user, password, jwt } = this.#login?.proof ?? { jwt: this.#again };
    const proof = jwt ? { jwt } : password === undefined ? { token: this.account.token } : { name, USERID: user, password };
    // Cursors are private, so a login that may be for another user sends none.
    this.#isOwn = !this.#login || (name !== undefined && name.toLowerCase() === this.account.name?.toLowerCase());
    const have = this.#isOwn ? this.conversations.have(this.limits.frame) : this.conversations.haveNothing();
    this.link.sendFirst({ msgType: Type.login, level: 2, device: this.account.device, ping: PING, resume: RESUME, have, ...proof });
  }

  /** @param {Frame} frame the reply to a registration or a login */
  #onAnswer(frame) {
    const phase = this.#phase;
    this.#phase = 'none';
    if (frame.errno !== 200) this.#refused(frame);
    else if (phase === 'register') {
      if (this.#login) this.#login.proof = { ...this.#login.proof, register: false };
      this.#sendLogin();
    } else if (frame.msgType === Type.welcome) this.#welcome(frame);
    else this.#refused({ errno: 501, errmsg: 'this server speaks level 1 only; this client needs level 2' });
  }

  /** @param {Frame} frame */
  #refused(frame) {
    const login = this.#login;
    this.#login = undefined;
    this.#again = undefined;
    if (!login && frame.errno === 302 && this.#jwt) {
      // The token has ended with the JSON web token of its login.
      delete this.account.token;
      this.journal.account(this.account);
      this.link.stop();
      void this.#loginWithJwt();
      return;
    }
    if (login || frame.retryAfter === undefined) {
      // A wrong token stays wrong, so it is deleted.
      if (!login && frame.errno === 302) delete this.account.token;
      this.journal.account(this.account);
      this.link.giveUp({ reason: frame.errno === 302 ? 'expired' : 'refused', errmsg: frame.errmsg });
      login?.reject(errorOf(frame));
    } else this.link.giveUp({ retryAfter: frame.retryAfter, errmsg: frame.errmsg });
  }

  /** Handles a 40. @param {Frame} frame */
  #welcome(frame) {
    const { user, name, token, tokenExpires, limits } = frame;
    const isStored = this.account.user !== undefined;
    const isOther = isStored && this.account.user !== user;
    if (isOther) {
      // The data stored here belongs to another user, and only now is it safe to delete: a wrong
      // password or a mistyped name must not cost unsent messages.
      const device = this.account.device;
      this.clear();
      this.account.device = device;
    }
    this.account = { ...this.account, user, name, token, tokenExpires };
    this.limits = limits;
    this.#isUser(user);
    this.journal.account(this.account);
    this.emit({ kind: 'account', account: publicAccount(this.account) });
    const { jwt } = this.#login?.proof ?? {};
    this.#again = undefined;
    this.#login?.resolve();
    this.#login = undefined;
    // The login has sent another user's cursors, or none although there are some. Log in again.
    if (isStored && isOther === this.#isOwn) {
      this.#again = jwt;
      this.link.restart();
    } else this.setStatus({ state: 'syncing' });
  }

  /** Deletes everything stored here, in one transaction with the changes that follow. */
  clear() {
    this.conversations.clear();
    this.outbox.down();
    this.outbox.all.clear();
    this.online.clear();
    this.watched = [];
    this.journal.clear();
    this.account = { device: '' };
    this.emit({ kind: 'cleared' });
  }

  /** @param {number} user */
  #isUser(user) {
    this.conversations.user = user;
    this.outbox.user = user;
  }

  // ---- Frames ----

  /** @param {Frame} frame */
  #onFrame(frame) {
    if (this.#phase !== 'none') this.#onAnswer(frame);
    else if (frame.msgType === Type.message) this.#onMessage(frame);
    else if (frame.msgType === Type.ack) this.outbox.onAck(frame);
    else if (frame.msgType === Type.synced) this.#onSynced(frame);
    else if (!this.requests.take(frame)) this.#onPush(frame);
  }

  /** @param {Frame} frame */
  #onPush(frame) {
    if (frame.msgType === Type.overview) this.conversations.onOverview(frame);
    else if (frame.msgType === Type.run) this.conversations.onRun(frame);
    else if (frame.msgType === Type.read) this.conversations.onRead(frame);
    else if (frame.msgType === Type.partnerRead) this.conversations.onPartnerRead(frame);
    else if (frame.msgType === Type.typing) this.emit({ kind: 'typing', conv: frame.conv, from: frame.from });
    else if (frame.msgType === Type.presence && frame.user !== undefined) {
      this.online.set(frame.user, frame.online);
      this.emit({ kind: 'presence', user: frame.user, online: frame.online });
    }
  }

  /** Handles a 42. @param {Frame} frame */
  #onMessage({ conv, seq, tag, from, time, m, edited, recalled, imported }) {
    /** @type {Message} */
    const msg = { conv, seq, tag, from, time, m };
    if (edited) msg.edited = edited;
    if (recalled) msg.recalled = recalled;
    if (imported) msg.imported = imported;
    if (this.conversations.show(msg) && from === this.account.user) {
      this.outbox.shown(m?.cid);
      this.outbox.settled(conv, seq);
    }
    // By default only friends and members of common groups are shown as online.
    const user = newContact(msg);
    if (this.status.state === 'online' && (user === this.account.user || this.watched.includes(user))) this.sendWatch();
  }

  /** Handles a 45 of the login or of a 46. @param {Frame} frame */
  #onSynced(frame) {
    const asked = this.#asked.get(frame.rid);
    this.#asked.delete(frame.rid);
    if (frame.errno && frame.errno !== 200) {
      this.link.giveUp({ retryAfter: frame.retryAfter ?? 1 });
      return;
    }
    if (asked) this.conversations.onSynced(asked);
    const rest = this.conversations.moreHave(this.limits.frame);
    if (rest) this.#ask(rest);
    for (const conv of this.conversations.all.values()) this.outbox.settled(conv.conv, conv.seq);
    if (this.status.state === 'syncing') this.#live();
    else this.outbox.pump();
  }

  #live() {
    this.link.proved(PING);
    this.conversations.live();
    this.setStatus({ state: 'online' });
    this.outbox.live(this.limits);
    this.marks.live([...this.conversations.all.values()]);
    this.sendWatch();
    for (const conv of this.conversations.all.values()) this.names.find(conv);
  }

  /** @param {Record<string, string>} have */
  #ask(have) {
    const rid = this.requests.next();
    this.#asked.set(rid, Object.keys(have));
    this.link.send({ msgType: Type.sync, have, resume: RESUME, rid });
  }

  /** @param {number | undefined} wait @param {Frame | undefined} end */
  #onDown(wait, end) {
    this.#phase = 'none';
    this.#asked.clear();
    this.requests.down();
    if (end?.errno === 413) this.outbox.tooLong();
    this.outbox.down();
    this.marks.down();
    this.online.clear();
    // A login that the user has requested fails at once, so that the user can decide.
    if (this.#login && wait !== undefined) {
      this.#login.reject(offlineError());
      this.#login = undefined;
      this.link.stop();
      wait = undefined;
      if (!this.account.token) end = { reason: 'offline' };
    }
    const { reason, errmsg } = end ?? {};
    if (reason === 'revoked' || reason === 'logout') {
      delete this.account.token;
      this.journal.account(this.account);
    }
    const isOut = wait === undefined && !this.account.token;
    this.setStatus({
      state: isOut ? 'signedOut' : 'offline', reason, errmsg,
      until: wait === undefined ? undefined : Date.now() + wait * 1000,
    });
  }

  /** @param {Status} status */
  setStatus(status) {
    this.status = status;
    this.emit({ kind: 'status', status });
  }

  /** @param {string} conv */
  #notePending(conv) {
    if (this.#pending.size === 0) {
      queueMicrotask(() => {
        for (const name of this.#pending) this.emit({ kind: 'outbox', conv: name, list: structuredClone(this.outbox.of(name)) });
        this.#pending.clear();
      });
    }
    this.#pending.add(conv);
  }

  /** @param {Conversation} conv */
  #noteChanged(conv) {
    if (this.#changed.size === 0) {
      queueMicrotask(() => {
        const list = [...this.#changed].flatMap((name) => this.conversations.all.get(name) ?? []);
        this.#changed.clear();
        this.emit({ kind: 'conversations', list: structuredClone(list) });
      });
    }
    this.#changed.add(conv.conv);
  }

  /** @param {Frame} frame @returns {Promise<Frame>} */
  request(frame) {
    return this.requests.ask(frame);
  }

  /** Watches whether these users are online, at most 500. @param {number[]} users */
  async watch(users) {
    const wanted = [...new Set(users)].filter((user) => user > 0).slice(0, 500);
    if (wanted.length === this.watched.length && wanted.every((user, at) => user === this.watched[at])) return;
    this.watched = wanted;
    if (this.status.state === 'online') this.sendWatch();
  }

  /**
   * Adds facts from a reply to the record of a conversation.
   * @param {string} name
   * @param {Partial<Conversation>} facts
   */
  async learn(name, facts) {
    const conv = this.conversations.get(name);
    Object.assign(conv, facts);
    this.conversations.changed(conv);
  }

  /** Adds facts from a reply to the record of the account. @param {Partial<Account>} facts */
  async learnAccount(facts) {
    this.account = { ...this.account, ...facts };
    this.journal.account(this.account);
    this.emit({ kind: 'account', account: publicAccount(this.account) });
  }

  sendWatch() {
    this.request({ msgType: Type.presence, watch: this.watched }).catch(() => undefined);
  }
}

/**
 * The account without its token, which only the tab with the connection needs.
 * @param {Account} account
 * @returns {Account}
 */
export function publicAccount(account) {
  const { token, ...rest } = account;
  return token === undefined ? rest : { ...rest };
}

function randomText() {
  return Array.from(randomBytes(6), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
