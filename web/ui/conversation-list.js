// The list of conversations, the most recently active first.

import { partnerOf } from '../raybox.js';
import { avatar, box, Listening, names, previewOf, timeOf, titleOf } from './client.js';
import { arrange, fill, h, icon, once } from './dom.js';
import { shortTime, t } from './i18n.js';

/** @typedef {import('../raybox.js').Conversation} Conversation */

/** The most conversations in the page; the filter finds the others. */
const SHOWN = 300;

class ConversationList extends HTMLElement {
  #listening = new Listening();
  #filter = h('input', { class: 'input', type: 'search', placeholder: t('filter'), 'aria-label': t('filter'), dir: 'auto' });
  #list = h('ul', { class: 'conversations' });
  #render = once(() => this.#renderNow());
  /**
   * The rows, and the texts that they show. A row stays the same element, so that it can be clicked
   * while messages come.
   * @type {Map<string, {row: HTMLElement, link: HTMLElement, shows: string}>}
   */
  #rows = new Map();

  connectedCallback() {
    fill(this, h('div', { class: 'list-filter' }, icon('search'), this.#filter), h('nav', { 'aria-label': t('conversations') }, this.#list));
    this.#filter.addEventListener('input', this.#render);
    this.#listening.on(box, 'reset conversations outbox presence account', this.#render).on(names, 'found', this.#render).on(window, 'hashchange', this.#render);
    this.#render();
  }

  disconnectedCallback() {
    this.#listening.end();
  }

  #renderNow() {
    const words = this.#filter.value.trim().toLowerCase();
    const open = location.hash.slice(1);
    const convs = [...box.conversations.values()]
      .filter((conv) => !words || titleOf(conv.conv).toLowerCase().includes(words) || conv.conv.slice(1) === words)
      .sort((a, b) => timeOf(b) - timeOf(a))
      .slice(0, SHOWN);
    const rows = convs.map((conv) => this.#row(conv, conv.conv === open));
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    if (rows.length > 0) arrange(this.#list, rows);
    else fill(this.#list, h('li', { class: 'empty quiet' }, t(words ? 'nothingFound' : 'noConversations')));
    // A moved row has lost the focus.
    if (focused && this.#list.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** @param {Conversation} conv @param {boolean} isOpen */
  #row(conv, isOpen) {
    const title = titleOf(conv.conv);
    const user = partnerOf(conv.conv);
    const isOnline = user > 0 && box.online.get(user) === true;
    const pending = box.pending(conv.conv).findLast((one) => one.m.msg !== undefined && one.state !== 'acked');
    const preview = pending ? `${t('you')}: ${pending.m.msg}` : previewOf(conv);
    const time = shortTime(timeOf(conv));
    const shows = JSON.stringify([title, isOnline, preview, time, conv.unread, isOpen, pending?.state]);
    const known = this.#rows.get(conv.conv);
    if (known?.shows === shows) return known.row;
    const state = pending && icon(pending.state === 'failed' ? 'warning' : 'clock', 'small');
    const link = known?.link ?? h('a', { href: `#${conv.conv}`, class: 'conversation' });
    const row = known?.row ?? h('li', {}, link);
    if (isOpen) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
    fill(link,
      h('span', { class: 'avatar-place' }, avatar(conv.conv, title), isOnline && h('span', { class: 'online-dot', role: 'img', 'aria-label': t('isOnline') })),
      h('span', { class: 'conversation-lines' },
        h('span', { class: 'line' }, h('bdi', { class: 'conversation-name' }, title), h('time', { class: 'quiet' }, time)),
        h('span', { class: 'line' }, h('span', { class: 'preview quiet', dir: 'auto' }, state, preview),
          conv.unread > 0 && h('span', { class: 'badge' }, conv.unread > 999 ? '999+' : conv.unread, h('span', { class: 'hidden-text' }, ` ${t('unreadCount', { count: conv.unread })}`)))));
    this.#rows.set(conv.conv, { row, link, shows });
    return row;
  }
}

customElements.define('rb-conversations', ConversationList);
