// The messages of a conversation. Only some hundreds of them are in the page. A message that is
// scrolled far out of sight is removed from the page, and comes back from the store.

import { isChat } from '../raybox.js';
import { box, clip, eventText, isShown, Listening, names, personName, textOf } from './client.js';
import { arrange, h, icon, once } from './dom.js';
import { errorText, isSameDay, t } from './i18n.js';
import { MessageActions } from './message-actions.js';
import { dayLine, messageView, newLine, pendingView, progressOf } from './message-view.js';
import { announce } from './notices.js';

/** @typedef {import('../raybox.js').Message} Message */

/** The number of messages that are loaded at once, and the most in the page. */
const PAGE = 100;
const MOST = 300;

/** More messages are loaded when fewer than this many pixels are left to scroll. */
const NEAR = 800;

/** Messages of one sender within this time are grouped, in milliseconds. */
const TOGETHER = 5 * 60_000;

export class MessageList extends EventTarget {
  #conv;
  /** The loaded messages, ascending and without gaps. @type {Message[]} */
  #items = [];
  #atStart = false;
  #atEnd = true;
  #isLoading = false;
  /** Counts the new beginnings of the list; a page requested before the last one is dropped. */
  #beginning = 0;
  #isStopped = false;
  /**
   * The read mark when the conversation was opened: the line for new messages follows it.
   * @type {number | undefined}
   */
  #newFrom;
  /** The elements, and the texts that they show. @type {Map<string, {node: HTMLElement, shows: string}>} */
  #nodes = new Map();
  #listening = new Listening();
  #list = h('ol', { class: 'messages' });
  #notice = h('p', { class: 'list-notice quiet', role: 'status' });
  #scroller = h('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': t('messages') }, this.#notice, this.#list);
  #jump = h('button', { type: 'button', class: 'jump', hidden: true, onclick: () => void this.#toEnd() });
  #actions = new MessageActions((msg) => this.dispatchEvent(new CustomEvent('edit', { detail: msg })));
  element = h('div', { class: 'thread-messages' }, this.#scroller, this.#jump);
  #renderSoon = once(() => this.#render());

  /** @param {string} conv */
  constructor(conv) {
    super();
    this.#conv = conv;
  }

  start() {
    const mine = (/** @type {(msg: Message) => void} */ run) => (/** @type {Message} */ msg) => msg.conv === this.#conv && run(msg);
    this.#listening
      .on(box, 'message', mine((msg) => this.#onMessage(msg)))
      .on(box, 'altered', mine((msg) => this.#onAltered(msg)))
      .on(box, 'outbox', (conv) => conv === this.#conv && this.#renderSoon())
      .on(box, 'conversations', (list) => list.some((/** @type {any} */ conv) => conv.conv === this.#conv) && this.#renderSoon())
      .on(box, 'account', this.#renderSoon).on(names, 'found', this.#renderSoon)
      .on(box, 'reset', (conv) => (conv === undefined || conv === this.#conv) && void this.#open())
      .on(box, 'status', ({ state }) => state === 'online' && this.#items.length === 0 && void this.#open())
      .on(window, 'focus', () => this.#see())
      .on(this.#scroller, 'scroll', () => this.#onScroll())
      .on(this.#scroller, 'keydown', (event) => this.#onKey(event));
    this.#actions.attach(this.#list, (seq) => this.#items.find((msg) => msg.seq === seq));
    new ResizeObserver(() => this.#stick && this.#bottom()).observe(this.#scroller);
    void this.#open();
  }

  stop() {
    this.#isStopped = true;
    this.#listening.end();
  }

  /** The last own text, for editing. */
  lastOwn() {
    return this.#items.findLast((msg) => msg.from === box.account.user && isChat(msg.m, msg.seq));
  }

  // ---- Loading ----

  /** Shows the first unread message, or the end. */
  async #open() {
    const conv = box.conversations.get(this.#conv);
    this.#newFrom = conv && conv.unread > 0 ? conv.read : undefined;
    const where = this.#newFrom !== undefined ? { around: this.#newFrom + 1, limit: PAGE } : { limit: PAGE };
    const isFirst = await this.#load(where, (msgs) => (this.#items = msgs), true);
    if (!isFirst) return;
    const line = this.#list.querySelector('.new-line');
    if (line) line.scrollIntoView({ block: 'start' });
    else this.#bottom();
    this.#onScroll();
  }

  async #toEnd() {
    if (!this.#atEnd) await this.#load({ limit: PAGE }, (msgs) => (this.#items = msgs), true);
    this.#bottom();
    this.#scroller.focus({ preventScroll: true });
  }

  /**
   * @param {import('../raybox.js').Where} where
   * @param {(msgs: Message[]) => void} put
   * @param {boolean} isNew whether the page replaces the present messages
   */
  async #load(where, put, isNew) {
    if (this.#isLoading && !isNew) return false;
    this.#isLoading = true;
    if (isNew) this.#beginning += 1;
    const beginning = this.#beginning;
    try {
      const page = await box.history(this.#conv, where);
      if (this.#isStopped || beginning !== this.#beginning) return false;
      put(page.msgs);
      if (isNew || where.before !== undefined) this.#atStart = page.atStart;
      if (isNew || where.after !== undefined) this.#atEnd = page.atEnd;
      this.#notice.textContent = this.#atStart && this.#items.length > 0 ? t('beginning') : '';
      this.#render();
      // These messages may be too few to fill the screen: edits, for example, are not shown by
      // themselves.
      if (page.msgs.length > 0) setTimeout(() => !this.#isStopped && this.#onScroll(), 0);
      return true;
    } catch (error) {
      if (this.#isStopped || beginning !== this.#beginning) return false;
      const { errno } = /** @type {any} */ (error);
      // An unknown conversation is new, and begins with its first message.
      this.#notice.textContent = errno === 404 ? '' : errno === 0 ? t('loadFailed') : errorText(error);
      this.#render();
      return false;
    } finally {
      if (beginning === this.#beginning) this.#isLoading = false;
    }
  }

  #onScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const below = scrollHeight - scrollTop - clientHeight;
    this.#stick = this.#atEnd && below < 40;
    if (scrollTop < NEAR && !this.#atStart && this.#items.length > 0) void this.#loadBefore();
    else if (below < NEAR && !this.#atEnd && this.#items.length > 0) void this.#loadAfter();
    this.#showJump();
    this.#see();
  }

  #stick = true;

  async #loadBefore() {
    await this.#load({ before: this.#items[0].seq, limit: PAGE }, (msgs) => {
      this.#items = [...msgs, ...this.#items];
      if (this.#items.length <= MOST) return;
      this.#items = this.#items.slice(0, MOST);
      this.#atEnd = false;
    }, false);
  }

  async #loadAfter() {
    await this.#load({ after: this.#items[this.#items.length - 1].seq, limit: PAGE }, (msgs) => {
      this.#items = [...this.#items, ...msgs];
      if (this.#items.length <= MOST) return;
      this.#items = this.#items.slice(-MOST);
      this.#atStart = false;
    }, false);
  }

  // ---- Events ----

  /** @param {Message} msg */
  #onMessage(msg) {
    const last = this.#items[this.#items.length - 1];
    if (this.#atEnd && (!last || msg.seq === last.seq + 1)) this.#items.push(msg);
    else if (!last || msg.seq > last.seq) this.#atEnd = false;
    if (msg.from !== box.account.user && isShown(msg) && document.visibilityState === 'visible') this.#announce(msg);
    if (msg.from === box.account.user && isShown(msg)) {
      this.#newFrom = undefined;
      this.#stick = this.#atEnd;
    }
    this.#renderSoon();
    // Load messages that came while a page was in flight; they follow it.
    if (!this.#atEnd && this.#stick) queueMicrotask(() => void this.#loadAfterAll());
  }

  async #loadAfterAll() {
    if (this.#items.length > 0) await this.#loadAfter();
    if (this.#stick) this.#bottom();
  }

  /** @param {Message} msg */
  #announce(msg) {
    const conv = box.conversations.get(this.#conv);
    const text = eventText(msg, conv) ?? (msg.m ? t('newMessageFrom', { name: personName(msg.from, conv), text: clip(textOf(msg.m), 300) }) : '');
    announce(text);
  }

  /** @param {Message} msg */
  #onAltered(msg) {
    const at = this.#items.findIndex(({ seq }) => seq === msg.seq);
    if (at < 0) return;
    this.#items[at] = msg;
    this.#renderSoon();
  }

  /** Marks the visible messages as read. */
  #see() {
    if (document.visibilityState !== 'visible' || !document.hasFocus()) return;
    const conv = box.conversations.get(this.#conv);
    if (!conv || conv.seq <= conv.read) return;
    if (this.#stick) {
      void box.markRead(this.#conv, conv.seq);
      return;
    }
    const end = this.#scroller.getBoundingClientRect().bottom;
    const seen = [...this.#list.querySelectorAll('[data-seq]')].findLast((node) => node.getBoundingClientRect().bottom <= end + 8);
    if (seen) void box.markRead(this.#conv, Number(seen.dataset.seq));
  }

  #bottom() {
    this.#stick = this.#atEnd;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #showJump() {
    const conv = box.conversations.get(this.#conv);
    const isFar = !this.#stick && this.#items.length > 0;
    this.#jump.hidden = !isFar;
    const unread = conv?.unread ?? 0;
    this.#jump.setAttribute('aria-label', t('toLatest'));
    this.#jump.title = t('toLatest');
    this.#jump.replaceChildren(icon('down'), ...(unread > 0 ? [h('span', { class: 'badge' }, unread)] : []));
  }

  /** Moves from message to message with the keys Up and Down. @param {KeyboardEvent} event */
  #onKey(event) {
    const from = /** @type {HTMLElement} */ (event.target).closest('li');
    if (event.key !== 'ArrowUp' && event.key !== 'ArrowDown') return;
    if (event.target !== this.#scroller && event.target !== from) return;
    const all = [...this.#list.querySelectorAll('li[tabindex]')];
    const at = from ? all.indexOf(from) : all.length;
    const next = all[event.key === 'ArrowUp' ? at - 1 : at + 1];
    if (!next) return;
    event.preventDefault();
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: 'nearest' });
  }

  // ---- Drawing ----

  #render() {
    if (this.#isStopped) return;
    const anchor = this.#stick ? undefined : this.#anchor();
    arrange(this.#list, this.#wanted());
    if (anchor) this.#scroller.scrollTop += anchor.node.getBoundingClientRect().top - anchor.top;
    else this.#bottom();
    this.#showJump();
    this.#see();
  }

  /** A visible message that must stay where it is when others are added before it. */
  #anchor() {
    const top = this.#scroller.getBoundingClientRect().top;
    for (const node of this.#list.children) {
      const box = node.getBoundingClientRect();
      if (box.bottom > top && node.dataset.seq && this.#items.some(({ seq }) => seq === Number(node.dataset.seq))) return { node, top: box.top };
    }
    return undefined;
  }

  /** The elements that should be in the page, in order. @returns {HTMLElement[]} */
  #wanted() {
    const conv = box.conversations.get(this.#conv);
    const old = this.#nodes;
    this.#nodes = new Map();
    /** @type {HTMLElement[]} */
    const wanted = [];
    const put = (/** @type {string} */ key, /** @type {string} */ shows, /** @type {() => HTMLElement} */ make) => {
      const known = old.get(key);
      const entry = known?.shows === shows ? known : { node: make(), shows };
      this.#nodes.set(key, entry);
      wanted.push(entry.node);
    };
    /** @type {{from: number, time: number} | undefined} */
    let before;
    let hasLine = false;
    const dayAndGroup = (/** @type {number} */ from, /** @type {number} */ time) => {
      if (!before || !isSameDay(before.time, time)) put(`day ${new Date(time).toDateString()}`, '', () => dayLine(time));
      const isFirst = !before || before.from !== from || time - before.time > TOGETHER || !isSameDay(before.time, time);
      before = { from, time };
      return isFirst;
    };
    for (const msg of visible(this.#items)) {
      if (this.#newFrom !== undefined && !hasLine && msg.seq > this.#newFrom && msg.from !== box.account.user) {
        hasLine = true;
        put('new', '', newLine);
        before = undefined;
      }
      const isEvent = eventText(msg, conv) !== undefined;
      const isFirst = dayAndGroup(isEvent ? -msg.seq : msg.from, msg.time);
      const shows = JSON.stringify([msg.tag, isFirst, msg.edited, msg.recalled, progressOf(msg, conv), isEvent ? eventText(msg, conv) : personName(msg.from, conv), box.account.friends?.length]);
      put(`seq ${msg.seq}`, shows, () => messageView(msg, conv, { isFirst }));
    }
    if (this.#atEnd) {
      for (const pending of box.pending(this.#conv)) {
        if (pending.state === 'acked' || (pending.m.edit !== undefined || pending.m.recall !== undefined) && pending.state !== 'failed') continue;
        const isFirst = dayAndGroup(Number(box.account.user), pending.time);
        put(`cid ${pending.cid}`, JSON.stringify([isFirst, pending.state === 'failed']), () => pendingView(pending, { isFirst }));
      }
    }
    return wanted;
  }
}

/**
 * The messages that are shown by themselves. A recalled message is shown once; its edits, which are
 * empty too, are not.
 * @param {Message[]} msgs
 */
function visible(msgs) {
  /** @type {Set<number>} */
  const recalls = new Set();
  return msgs.filter((msg) => {
    if (!isShown(msg)) return false;
    if (msg.recalled === undefined) return true;
    const isEdit = recalls.has(msg.recalled);
    recalls.add(msg.recalled);
    return !isEdit;
  });
}
