/**
 * A client of RayBox servers for browsers and Node, without dependencies. docs/clients.md explains
 * how to use it.
 *
 *     import { RayBox } from './raybox.js';
 *
 *     const box = new RayBox();
 *     await box.start();
 *     box.addEventListener('message', ({ detail: msg }) => console.log(msg.from, msg.m.msg));
 *     await box.login({ name: 'ann', password: 'secret-a' });
 *     await box.send('u2', 'hello bob');
 *
 * Events, each with its `detail`:
 *
 * | event | detail | when |
 * |---|---|---|
 * | `status` | `Status` | the connection comes or goes |
 * | `account` | `Account` | a user is logged in, or the user's name or friends have changed |
 * | `reset` | `undefined` or the name of a conversation | everything that was shown (of it) is void: read `conversations` and `history` again |
 * | `conversations` | `Conversation[]` | these conversations have changed |
 * | `message` | `Message` | a new message has its place: it is stored, or about to be |
 * | `altered` | `Message` | a message was edited or recalled |
 * | `outbox` | the name of a conversation | its unacknowledged messages have changed |
 * | `typing` | `{conv, from}` | a user is typing |
 * | `presence` | `{user, online}` | a watched user has come or gone |
 * | `trouble` | a text, or `null` | the browser cannot store anything at the moment; `null`: it can again |
 *
 * @module
 */

import { IdbStore } from './raybox/idb-store.js';
import { MemoryStore } from './raybox/memory-store.js';
import { LocalHub, SharedHub } from './raybox/tabs.js';
import { groupOf, RayBoxError, Type, uuid7 } from './raybox/wire.js';

export { IdbStore, MemoryStore, RayBoxError, Type, uuid7 };
export { groupOf, isChange, isChat, isFriendRequest, partnerOf } from './raybox/wire.js';

/** @typedef {import('./raybox/wire.js').Frame} Frame */
/** @typedef {import('./raybox/wire.js').Message} Message */
/** @typedef {import('./raybox/wire.js').Conversation} Conversation */
/** @typedef {import('./raybox/wire.js').Member} Member */
/** @typedef {import('./raybox/wire.js').Pending} Pending */
/** @typedef {import('./raybox/wire.js').Account} Account */
/** @typedef {import('./raybox/wire.js').Status} Status */
/** @typedef {import('./raybox/history.js').Page} Page */
/** @typedef {import('./raybox/history.js').Where} Where */
/** @typedef {import('./raybox/memory-store.js').Store} Store */

/**
 * @typedef {object} Options
 * @property {string} [url] `wss://host/ws`, or in Node `tcp://host:port` or `tls://host:port`.
 *   Default in a page: the server that the page came from
 * @property {Store} [store] default: an IndexedDB database in browsers, memory elsewhere
 * @property {boolean} [shared] whether the tabs of this browser share one connection; default:
 *   `true` in pages
 * @property {string} [deviceKind] the beginning of the device's name in the list of devices
 * @property {import('./raybox/transport.js').OpenSocket} [open] opens connections in another way
 * @property {import('./raybox/core.js').JwtSource} [jwt] logs in with a token of an identity provider
 *   (docs/jwt.md) whenever there is no valid login. A function is called for each login and should
 *   return a fresh one
 * @property {() => number} [random] a number from 0 to 1, for the random part of waits
 * @property {number} [scale] multiplies all waits; for tests
 */

/** Node 18 has no `CustomEvent`. */
const Told = globalThis.CustomEvent ?? class extends Event {
  /** @param {string} name @param {{detail: unknown}} init */
  constructor(name, { detail }) {
    super(name);
    this.detail = detail;
  }
};

/** A user's client. */
export class RayBox extends EventTarget {
  #hub;
  /** @type {Status} */
  status = { state: 'starting' };
  /** @type {Account} */
  account = { device: '' };
  /** @type {Map<string, Conversation>} */
  conversations = new Map();
  /** The reason why nothing can be stored at the moment. @type {string | null} */
  trouble = null;
  /** The watched users, and whether they are online. @type {Map<number, boolean>} */
  online = new Map();
  /** @type {Map<string, Pending[]>} */
  #outbox = new Map();

  /** @param {Options} [options] */
  constructor(options = {}) {
    super();
    const isPage = typeof window !== 'undefined' && typeof indexedDB !== 'undefined';
    const settings = {
      ...options,
      url: options.url ?? pageUrl(),
      store: options.store ?? (isPage ? new IdbStore('raybox') : new MemoryStore()),
      deviceKind: options.deviceKind ?? (isPage ? 'web' : 'js'),
    };
    /** @type {import('./raybox/tabs.js').HubEvents} */
    const events = { snapshot: (snapshot) => this.#onSnapshot(snapshot), event: (event) => this.#onEvent(event) };
    const shared = options.shared ?? (isPage && 'locks' in navigator && 'BroadcastChannel' in globalThis);
    this.#hub = shared ? new SharedHub('raybox', settings, events) : new LocalHub(settings, events);
  }

  /** Reads the store, and connects if a user is logged in. Call it once, before anything else. */
  async start() {
    await this.#hub.start();
  }

  /**
   * Whether this tab has the connection that the tabs share. A program with one client always has
   * it.
   */
  get leads() {
    return this.#hub.leads;
  }

  /** Ends the connection. This object must not be used afterwards. */
  stop() {
    this.#hub.stop();
  }

  // ---- Accounts ----

  /**
   * Logs in. A refusal throws a `RayBoxError`; its errno 302 means a wrong name or password.
   * @param {{name?: string, user?: number, password?: string, jwt?: string}} proof
   */
  login(proof) {
    return this.#call('login', proof);
  }

  /**
   * Creates an account and logs in. A name that is taken or not allowed throws a `RayBoxError` with
   * errno 500.
   * @param {{name: string, password: string}} proof
   */
  register(proof) {
    return this.#call('login', { ...proof, register: true });
  }

  /**
   * Logs this device out and deletes all data stored on it, unsent messages included.
   */
  logout() {
    return this.#call('logout');
  }

  /**
   * Changes the password; all other devices are logged out.
   * @param {string | {jwt: string}} password the old one, or a fresh JSON web token
   * @param {string} next
   */
  changePassword(password, next) {
    return this.#call('changePassword', password, next);
  }

  /** @param {string | {jwt: string}} password or a fresh JSON web token */
  deleteAccount(password) {
    return this.#call('deleteAccount', password);
  }

  /**
   * Returns the user's own account, after making `changes`.
   * @param {{name?: string, receipts?: boolean}} [changes]
   * @returns {Promise<{name: string, receipts: boolean, user: number}>}
   */
  async profile(changes = {}) {
    const reply = await this.request({ msgType: Type.account, ...changes });
    if (changes.name !== undefined) await this.#call('learnAccount', { name: reply.name });
    return /** @type {any} */ (reply);
  }

  /**
   * Returns the user's own devices, after logging `revoke` out.
   * @param {string} [revoke]
   * @returns {Promise<{device: string, online: boolean, seen: number}[]>}
   */
  async devices(revoke) {
    return (await this.request({ msgType: Type.devices, revoke })).devices;
  }

  // ---- Messages ----

  /**
   * Sends a text. Resolves when the message is stored here; from then on sending is retried until
   * the server has it.
   * @param {string} conv
   * @param {string} text
   * @param {{edit?: number}} [more] `edit`: the number of the own message that gets this text
   * @returns {Promise<string>} its `cid`
   */
  async send(conv, text, more = {}) {
    return this.sendBody(conv, { ...more, msg: text, sendTime: Date.now() });
  }

  /** Recalls an own message. @param {string} conv @param {number} seq */
  recall(conv, seq) {
    return this.sendBody(conv, { recall: seq });
  }

  /** Asks a user to be friends. @param {number} user */
  requestFriend(user) {
    return this.sendBody(`u${user}`, { msgType: Type.friendRequest, name: this.account.name });
  }

  /**
   * Sends a message with any members.
   * @param {string} conv
   * @param {Frame} body
   * @returns {Promise<string>} its `cid`
   */
  async sendBody(conv, body) {
    const cid = uuid7();
    await this.#call('send', conv, body, cid);
    return cid;
  }

  /**
   * The messages of a conversation that have no number yet, in order.
   * @param {string} conv
   * @returns {Pending[]}
   */
  pending(conv) {
    return this.#outbox.get(conv) ?? [];
  }

  /** Sends a failed message again, as a new one. @param {string} cid */
  retry(cid) {
    return this.#call('retry', cid);
  }

  /**
   * Discards a message that has failed or was never sent; `false` if it may have been sent.
   * @param {string} cid
   * @returns {Promise<boolean>}
   */
  discard(cid) {
    return this.#call('discard', cid);
  }

  /**
   * Reads a page of a conversation from the store or from the server.
   * @param {string} conv
   * @param {Where} [where]
   * @returns {Promise<Page>}
   */
  history(conv, where = {}) {
    return this.#call('history', conv, where);
  }

  /**
   * Marks everything up to `seq` as read.
   * @param {string} conv
   * @param {number} seq
   * @returns {Promise<void>}
   */
  markRead(conv, seq) {
    return this.#call('markRead', conv, seq);
  }

  /**
   * Reports that the user is typing; you may call it at every key.
   * @param {string} conv
   * @returns {Promise<void>}
   */
  typing(conv) {
    return this.#call('typing', conv);
  }

  // ---- Friends ----

  /**
   * Reads friends and groups, and stores the friends in `account`.
   * @returns
   *   {Promise<{friends: {id: number, name: string}[], groups: {id: number, name: string}[]}>}
   */
  async contacts() {
    const reply = await this.request({ msgType: Type.contacts, FROMID: this.account.user });
    const some = (/** @type {string} */ isGroup) =>
      reply.friends.filter((/** @type {Frame} */ one) => one.isGroup === isGroup)
        .map((/** @type {Frame} */ one) => ({ id: Number(one.id), name: one.name }));
    const found = { friends: some('0'), groups: some('1') };
    await this.#call('learnAccount', { friends: found.friends });
    return found;
  }

  /** Makes friends; `false` if the other user is asked first. @param {number} user */
  async addFriend(user) {
    const reply = await this.request({ msgType: Type.addFriend, U1: this.account.user, U2: user });
    await this.contacts();
    return reply.errno === 200;
  }

  /** @param {number} user */
  async removeFriend(user) {
    await this.request({ msgType: Type.removeFriend, FROMID: this.account.user, TOID: user });
    await this.contacts();
  }

  /** Blocks or unblocks a user. @param {number} user @param {boolean} block */
  async block(user, block) {
    await this.request({ msgType: Type.block, USERID: user, block });
  }

  /** @returns {Promise<{id: number, name: string}[]>} */
  async blocked() {
    return (await this.request({ msgType: Type.block })).blocked;
  }

  /**
   * Finds users by number or full name, and groups by number or part of the name.
   * @param {string} keyword
   * @returns {Promise<{id: number, name: string, isGroup: boolean, desc?: string}[]>}
   */
  async search(keyword) {
    const { results } = await this.request({ msgType: Type.search, keyword, byName: true });
    return results.map((/** @type {Frame} */ found) => ({ ...found, id: Number(found.id), isGroup: found.isGroup === '1' }));
  }

  /**
   * The name of a user; `null` if the user does not exist.
   * @param {number} user
   * @returns {Promise<string | null>}
   */
  userName(user) {
    return this.#call('userName', user);
  }

  /**
   * Watches whether these users are online, at most 500. Each call replaces the list before.
   * @param {number[]} users
   * @returns {Promise<void>}
   */
  watch(users) {
    return this.#call('watch', users);
  }

  // ---- Groups ----

  /** @param {string} name @param {string} description @returns {Promise<number>} its number */
  async createGroup(name, description) {
    const reply = await this.request({ msgType: Type.createGroup, FROMID: this.account.user, name, description });
    await this.#call('learn', `g${reply.GROUPID}`, { name });
    return reply.GROUPID;
  }

  /** @param {number} group */
  async joinGroup(group) {
    const reply = await this.request({ msgType: Type.joinGroup, FROMID: this.account.user, GROUPID: group });
    await this.#call('learn', `g${group}`, { name: reply.name });
  }

  /**
   * Reads the members, and stores them in the conversation.
   * @param {string} conv
   * @returns {Promise<Member[]>}
   */
  async members(conv) {
    const { members } = await this.request({ msgType: Type.members, GROUPID: groupOf(conv) });
    await this.#call('learn', conv, { members });
    return members;
  }

  /** @param {number} group */
  async leaveGroup(group) {
    await this.request({ msgType: Type.leaveGroup, GROUPID: group });
  }

  /**
   * Removes a member, who cannot join again. `ban: false` lifts that ban, `add: true` adds a user.
   * @param {number} group
   * @param {number} user
   * @param {{ban?: false, add?: true}} [more]
   */
  async removeMember(group, user, more = {}) {
    await this.request({ msgType: Type.removeMember, GROUPID: group, USERID: user, ...more });
  }

  /** @param {number} group @param {{name?: string, description?: string}} changes */
  async changeGroup(group, changes) {
    await this.request({ msgType: Type.changeGroup, GROUPID: group, ...changes });
  }

  /** @param {number} group */
  async dissolveGroup(group) {
    await this.request({ msgType: Type.dissolveGroup, GROUPID: group });
  }

  /** Forgets a conversation that the user no longer belongs to. @param {string} conv */
  forget(conv) {
    return this.#call('forget', conv);
  }

  // ---- The connection ----

  /** Sends any request that has a reply. @param {Frame} frame without `rid` @returns {Promise<Frame>} */
  request(frame) {
    return this.#call('request', frame);
  }

  /**
   * Connects at once instead of waiting, or checks whether the server is still there.
   * @param {{isPatient?: boolean}} [how] `isPatient`: a wait that the server has asked for is not
   *   cut short
   * @returns {Promise<void>}
   */
  wake(how = {}) {
    return this.#call('wake', how);
  }

  /** Connects again after another connection of this device has ended this one (`replaced`). */
  reconnect() {
    return this.#call('reconnect');
  }

  /** @param {string} name @param {...any} args @returns {Promise<any>} */
  #call(name, ...args) {
    return this.#hub.call(name, args);
  }

  // ---- Events of the engine ----

  /** @param {import('./raybox/tabs.js').Snapshot} snapshot */
  #onSnapshot({ status, account, convs, outbox, online, trouble }) {
    this.status = status;
    this.account = account;
    this.conversations = new Map(convs.map((conv) => [conv.conv, conv]));
    this.online = new Map(online);
    this.#outbox = new Map();
    for (const pending of outbox) this.#outbox.set(pending.conv, [...this.pending(pending.conv), pending]);
    this.#tell('account', account);
    this.#tell('reset', undefined);
    this.#tell('status', status);
    if (trouble !== this.trouble) this.#onEvent({ kind: 'trouble', message: trouble });
  }

  /** @param {import('./raybox/core.js').EngineEvent} event */
  #onEvent(event) {
    switch (event.kind) {
      case 'status':
        this.status = event.status;
        if (event.status.state !== 'online') this.online.clear();
        return this.#tell('status', event.status);
      case 'account':
        this.account = event.account;
        return this.#tell('account', event.account);
      case 'conversations':
        for (const conv of event.list) this.conversations.set(conv.conv, conv);
        return this.#tell('conversations', event.list);
      case 'outbox':
        this.#outbox.set(event.conv, event.list);
        return this.#tell('outbox', event.conv);
      case 'message':
      case 'altered':
        return this.#tell(event.kind, event.msg);
      case 'presence':
        this.online.set(event.user, event.online);
        return this.#tell('presence', { user: event.user, online: event.online });
      case 'typing':
        return this.#tell('typing', { conv: event.conv, from: event.from });
      case 'trouble':
        this.trouble = event.message;
        return this.#tell('trouble', event.message);
      case 'reset':
        if (!this.conversations.get(event.conv)?.closed) return this.#tell('reset', event.conv);
        this.conversations.delete(event.conv);
        return this.#tell('reset', event.conv);
      case 'cleared':
        this.conversations.clear();
        this.#outbox.clear();
        this.account = { device: '' };
        return this.#tell('reset', undefined);
    }
  }

  /** @param {string} name @param {unknown} detail */
  #tell(name, detail) {
    this.dispatchEvent(new Told(name, { detail }));
  }
}

/** The WebSocket of the server that this page came from. */
function pageUrl() {
  if (typeof location === 'undefined') return 'tcp://127.0.0.1:6000';
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`;
}
