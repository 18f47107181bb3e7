// One conversation: who it is with, its messages, and the place to write.

import { partnerOf } from '../raybox.js';
import { avatar, box, Listening, names, personName, titleOf } from './client.js';
import { Composer } from './composer.js';
import { fill, h, iconButton, once } from './dom.js';
import { button } from './forms.js';
import { openGroup } from './group-info.js';
import { t } from './i18n.js';
import { MessageList } from './message-list.js';
import { openUser } from './user-info.js';

/** How long somebody counts as typing after the last sign, in milliseconds. */
const TYPING = 5000;

class Thread extends HTMLElement {
  #conv = '';
  #listening = new Listening();
  #head = h('header', { class: 'thread-head' });
  /** @type {Map<number, ReturnType<typeof setTimeout>>} */
  #typing = new Map();
  /** @type {MessageList | undefined} */
  #list;

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
      .on(box, 'message', (msg) => msg.conv === this.#conv && this.#stopped(msg.from));
    this.#renderHead();
    list.start();
    if (matchMedia('(pointer: fine)').matches) composer.focus();
    if (this.#conv[0] === 'g' && box.status.state === 'online') box.members(this.#conv).catch(() => undefined);
  }

  disconnectedCallback() {
    this.#listening.end();
    this.#list?.stop();
    for (const timer of this.#typing.values()) clearTimeout(timer);
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
      fill(foot, h('div', { class: 'closed quiet' }, t(closed === 403 ? 'closed403' : 'closed404'), button(t('forget'), () => void forget(), 'is-small')));
    }
  }

  #renderHead() {
    const conv = box.conversations.get(this.#conv);
    const title = titleOf(this.#conv);
    const user = partnerOf(this.#conv);
    const isSelf = user === box.account.user;
    const open = () => (user ? openUser(user) : openGroup(this.#conv));
    const focused = document.activeElement?.classList.contains('head-title');
    fill(this.#head,
      iconButton('back', t('back'), () => (location.hash = ''), { class: 'icon-button back' }),
      h('button', { type: 'button', class: 'head-title', onclick: open, disabled: isSelf, title: t('details') },
        h('span', { class: 'avatar-place' }, avatar(this.#conv, title), user > 0 && box.online.get(user) && h('span', { class: 'online-dot' })),
        h('span', { class: 'head-lines' }, h('h2', {}, h('bdi', {}, title)), h('small', { class: 'quiet' }, this.#subtitle(conv, user, isSelf)))),
      !isSelf && iconButton('info', t('details'), open));
    if (focused) /** @type {HTMLElement} */ (this.#head.querySelector('.head-title')).focus();
  }

  /** @param {import('../raybox.js').Conversation | undefined} conv @param {number} user @param {boolean} isSelf */
  #subtitle(conv, user, isSelf) {
    const [typing] = this.#typing.keys();
    if (typing !== undefined) return h('span', { class: 'typing' }, user ? t('typingUser') : t('typingOf', { name: personName(typing, conv) }));
    if (!user) return conv?.members ? t('membersCount', { count: conv.members.length }) : '';
    if (isSelf || box.status.state !== 'online') return '';
    return t(box.online.get(user) ? 'isOnline' : 'isOffline');
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

