// The client behind one connection, with everything that its user can do. It knows nothing of pages
// and clicks.

import { Core } from './core.js';
import { readPage } from './history.js';
import { groupOf, partnerOf, RayBoxError, Type } from './wire.js';

/** @typedef {import('./wire.js').Frame} Frame */

export class Engine extends Core {
  /** Logs this device out and deletes everything that is stored here. */
  async logout() {
    const user = this.account.user;
    try {
      await this.request({ msgType: Type.logout, USERID: user });
    } catch {
      // Without a connection, the device stays in the list of devices until the user revokes it.
    }
    this.link.stop();
    this.clear();
    this.setStatus({ state: 'signedOut' });
    await this.journal.tried();
  }

  /** Connects at once instead of waiting, or checks whether the server is still there. */
  async wake({ isPatient = false } = {}) {
    if (this.account.token) this.link.probe(isPatient);
  }

  /** Connects again after the end with the reason `replaced`. */
  async reconnect() {
    if (this.account.token) this.link.start();
  }

  /**
   * Puts a message into the outbox.
   * @param {string} conv @param {Frame} body @param {string} cid
   */
  async send(conv, body, cid) {
    const group = groupOf(conv);
    const to = group ? { GROUPID: group } : { TOID: partnerOf(conv) };
    const frame = { msgType: group ? Type.groupChat : Type.chat, FROMID: this.account.user, ...to, ...body };
    const bytes = new TextEncoder().encode(JSON.stringify({ ...frame, cid })).length;
    if (bytes > this.limits.frame) {
      throw new RayBoxError(413, `the message has ${bytes} bytes, and the server takes ${this.limits.frame}; make it shorter`);
    }
    this.conversations.changed(this.conversations.get(conv));
    this.outbox.add(conv, frame, cid);
    await this.journal.tried();
  }

  /** @param {string} cid */
  async retry(cid) {
    this.outbox.retry(cid);
  }

  /** @param {string} cid */
  async discard(cid) {
    return this.outbox.discard(cid);
  }

  /** @param {string} conv @param {import('./history.js').Where} where */
  async history(conv, where) {
    await this.journal.tried();
    const source = {
      read: (/** @type {[string, number, number]} */ ...range) => this.store.read(...range),
      ask: (/** @type {Frame} */ frame) => this.requests.ask(frame),
      page: this.conversations.page.bind(this.conversations),
      lost: this.conversations.lost.bind(this.conversations),
    };
    return readPage(source, this.conversations.get(conv), where);
  }

  /** @param {string} name @param {number} seq */
  async markRead(name, seq) {
    const conv = this.conversations.all.get(name);
    if (!conv || seq <= conv.read || seq > conv.seq) return;
    conv.read = seq;
    if (seq === conv.seq) conv.unread = 0;
    conv.markDue = seq;
    this.conversations.changed(conv);
    this.marks.read(conv);
  }

  /** @param {string} conv */
  async typing(conv) {
    this.marks.typing(conv);
  }

  /**
   * The name of a user; `null` if the user does not exist.
   * @param {number} user
   * @returns {Promise<string | null>}
   */
  async userName(user) {
    return this.names.user(user);
  }

  /** @param {string | {jwt: string}} password @param {string} next */
  async changePassword(password, next) {
    const { token } = await this.request({ msgType: Type.changePassword, ...proofOf(password), new: next });
    await this.learnAccount({ token });
  }

  /** @param {string | {jwt: string}} password */
  async deleteAccount(password) {
    await this.request({ msgType: Type.deleteAccount, ...proofOf(password) });
    this.link.stop();
    this.clear();
    this.setStatus({ state: 'signedOut', reason: 'deleted' });
    await this.journal.tried();
  }

  /** Forgets a conversation that the user no longer belongs to. @param {string} name */
  async forget(name) {
    if (!this.conversations.all.get(name)?.closed) return;
    this.conversations.all.delete(name);
    this.journal.drop(name);
    this.emit({ kind: 'reset', conv: name });
  }
}

/** @param {string | {jwt: string}} password */
function proofOf(password) {
  return typeof password === 'string' ? { password } : { jwt: password.jwt };
}
