// The names of users and groups of which only the number is known.

import { groupOf, partnerOf, Type } from './wire.js';

/** @typedef {import('./wire.js').Frame} Frame */
/** @typedef {import('./wire.js').Conversation} Conversation */

export class Names {
  #ask;
  #learned;
  /** @type {Set<string>} */
  #asking = new Set();
  /** @type {Map<number, Promise<string | null>>} */
  #users = new Map();

  /**
   * @param {(frame: Frame) => Promise<Frame>} ask
   * @param {(conv: string, name: string | null) => void} learned
   */
  constructor(ask, learned) {
    this.#ask = ask;
    this.#learned = learned;
  }

  /** Looks up the name of a conversation if it is unknown. @param {Conversation} conv */
  find(conv) {
    const name = conv.conv;
    if (conv.name !== '' || this.#asking.has(name)) return;
    this.#asking.add(name);
    const found = conv.kind === 'group' ? this.#group(groupOf(name)) : this.user(partnerOf(name));
    found.then((text) => this.#learned(name, text), () => undefined).finally(() => this.#asking.delete(name));
  }

  /** @param {number} user @returns {Promise<string | null>} */
  user(user) {
    let known = this.#users.get(user);
    if (!known) {
      known = this.#search(user, '0');
      this.#users.set(user, known);
      // A failure is forgotten, so that the next call asks again.
      known.catch(() => this.#users.delete(user));
    }
    return known;
  }

  /** @param {number} group */
  #group(group) {
    return this.#search(group, '1');
  }

  /** @param {number} id @param {'0' | '1'} isGroup @returns {Promise<string | null>} */
  async #search(id, isGroup) {
    const { results } = await this.#ask({ msgType: Type.search, keyword: String(id) });
    const found = results.find((/** @type {Frame} */ result) => result.isGroup === isGroup && result.id === String(id));
    return found?.name ?? null;
  }
}
