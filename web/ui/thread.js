// One conversation: its heading, its messages, and the field for writing.

import { partnerOf, Type } from '../raybox.js';
import { avatar, box, Listening, names, personName, presenceText, titleOf } from './client.js';
import { Composer } from './composer.js';
import { fill, h, iconButton, once } from './dom.js';
import { button } from './forms.js';
import { openGroup } from './group-info.js';
import { t } from './i18n.js';
import { MessageList } from './message-list.js';
import { openUser } from './user-info.js';

/** How long a user counts as typing after the last event, in milliseconds. */
const TYPING = 5000;

class Thread extends HTMLElement {
  #conv = '';
  #listening = new Listening();
  #head = h('header', { class: 'thread-head' });
  /** @type {Map<number, ReturnType<typeof setTimeout>>} */
  #typing = new Map();
  /** @type {MessageList | undefined} */
  #list;
  /** The text of the heading that is shown. */
  #shown = '';

  connectedCallback() {
    this.#conv = this.getAttribute('conv') ?? '';
    const foot = h('div', { class: 'thread-foot' });
    const list = new MessageList(this.#conv);
    this.#list = list;
    const composer = new Composer(this.#conv, () => list.lastOwn());
    list.addEventListener('edit', (event) => composer.edit(/** @type {CustomEvent} */ (event).detail));
    const renderFoot = once(() => this.#renderFoot(foot, composer));
    fill(this, this.#head, list.element, foot);
    this.#renderFoot(foot, composer);
    const head = once(() => this.#renderHead());
    this.#listening
      .on(box, 'conversations reset presence account status', head).on(names, 'found', head)
      .on(box, 'conversations', renderFoot)
      .on(box, 'typing', (detail) => detail.conv === this.#conv && this.#typed(detail.from))
      .on(box, 'status', ({ state }) => state === 'online' && this.#askMembers())
      .on(box, 'message', (msg) => msg.conv === this.#conv && this.#onMessage(msg));
    this.#renderHead();
    list.start();
    if (matchMedia('(pointer: fine)').matches) composer.focus();
    if (box.status.state === 'online') this.#askMembers();
  }

  disconnectedCallback() {
    this.#listening.end();
    this.#list?.stop();
    for (const timer of this.#typing.values()) clearTimeout(timer);
  }

  #askMembers() {
    if (this.#conv[0] === 'g') box.members(this.#conv).catch(() => undefined);
  }

  /** @param {import('../raybox.js').Message} msg */
  #onMessage(msg) {
    this.#stopped(msg.from);
    if (msg.m?.msgType === Type.event) this.#askMembers();
  }

  /** @param {HTMLElement} foot @param {Composer} composer */
  #renderFoot(foot, composer) {
    const closed = box.conversations.get(this.#conv)?.closed;
    if (!closed && composer.element.parentNode === foot) return;
    if (!closed) fill(foot, composer.element);
    else {
      const forget = async () => {
        await box.forget(this.#conv);
        location.hash = '';
      };
      const why = partnerOf(this.#conv) ? 'closedUser' : closed === 403 ? 'closed403' : 'closed404';
      fill(foot, h('div', { class: 'closed quiet' }, t(why), button(t('forget'), () => void forget(), 'is-small')));
    }
  }

  #renderHead() {
    const conv = box.conversations.get(this.#conv);
    const title = titleOf(this.#conv);
    const user = partnerOf(this.#conv);
    const isSelf = user === box.account.user;
    const subtitle = this.#subtitle(conv, user, isSelf);
    const isOnline = user > 0 && box.online.get(user) === true;
    const shows = JSON.stringify([title, isOnline, typeof subtitle === 'string' ? subtitle : subtitle.textContent]);
    if (shows === this.#shown) return;
    this.#shown = shows;
    const open = () => (user ? openUser(user) : openGroup(this.#conv));
    const focused = [...this.#head.children].indexOf(document.activeElement);
    fill(this.#head,
      iconButton('back', t('back'), () => (location.hash = ''), { class: 'icon-button back' }),
      h('button', { type: 'button', class: 'head-title', onclick: open, disabled: isSelf, title: t('details') },
        h('span', { class: 'avatar-place' }, avatar(this.#conv, title), isOnline && h('span', { class: 'online-dot' })),
        h('span', { class: 'head-lines' }, h('h2', {}, h('bdi', {}, title)), h('small', { class: 'quiet' }, subtitle))),
      !isSelf && iconButton('info', t('details'), open));
    if (focused >= 0) /** @type {HTMLElement} */ (this.#head.children[focused])?.focus();
  }

  /**
   * @param {import('../raybox.js').Conversation | undefined} conv
   * @param {number} user
   * @param {boolean} isSelf
   */
  #subtitle(conv, user, isSelf) {
    const [typing] = this.#typing.keys();
    if (typing !== undefined) return h('span', { class: 'typing' }, user ? t('typingUser') : t('typingOf', { name: personName(typing, conv) }));
    if (!user) return conv?.members ? t('membersCount', { count: conv.members.length }) : '';
    if (isSelf || box.status.state !== 'online') return '';
    return presenceText(user);
  }

  /** @param {number} user */
  #typed(user) {
    clearTimeout(this.#typing.get(user));
    this.#typing.set(user, setTimeout(() => this.#stopped(user), TYPING));
    this.#renderHead();
  }

  /** @param {number} user */
  #stopped(user) {
    if (!this.#typing.has(user)) return;
    clearTimeout(this.#typing.get(user));
    this.#typing.delete(user);
    this.#renderHead();
  }
}

customElements.define('rb-thread', Thread);

