// One message, as an element.

import { groupOf, isChange, isFriendRequest, Type } from '../raybox.js';
import { avatar, box, clip, eventText, friend, personName, textOf } from './client.js';
import { h, icon } from './dom.js';
import { button } from './forms.js';
import { clock, dayName, errorText, fullTime, t } from './i18n.js';
import { isEmojiOnly, withLinks } from './links.js';
import { attempt } from './notices.js';

/** @typedef {import('../raybox.js').Message} Message */
/** @typedef {import('../raybox.js').Pending} Pending */
/** @typedef {import('../raybox.js').Conversation} Conversation */

/** Only the beginning of a longer text is shown at first. */
const LONG = 3000;

/** @param {number} time */
export const dayLine = (time) => h('li', { class: 'day-line' }, h('span', {}, dayName(time)));

export const newLine = () => h('li', { class: 'new-line' }, h('span', {}, t('newMessages')));

/** The progress of an own message. @param {Message} msg @param {Conversation | undefined} conv */
export function progressOf(msg, conv) {
  if (msg.from !== box.account.user || msg.m === null || !conv) return undefined;
  if (conv.kind === 'group' || msg.conv === `u${box.account.user}`) return 'sent';
  if (conv.peerRead >= msg.seq) return 'read';
  return conv.peerRecv >= msg.seq ? 'delivered' : 'sent';
}

/** @type {Record<string, string>} */
const MARKS = { pending: 'clock', sent: 'check', delivered: 'checks', read: 'checks', failed: 'warning' };

/** @param {string} progress */
const mark = (progress) => h('span', { class: `mark is-${progress}`, role: 'img', 'aria-label': t(/** @type {any} */ (progress)), title: t(/** @type {any} */ (progress)) }, icon(MARKS[progress]));

/**
 * A message in its place.
 * @param {Message} msg
 * @param {Conversation | undefined} conv
 * @param {{isFirst: boolean}} place whether it is the first of a group of one sender
 */
export function messageView(msg, conv, { isFirst }) {
  const event = eventText(msg, conv);
  if (event !== undefined) return eventView(msg, event);
  const isMine = msg.from === box.account.user;
  const name = personName(msg.from, conv);
  const isGroup = conv?.kind === 'group' && !isMine;
  const body = msg.m === null ? h('p', { class: 'message-text is-gone' }, t('recalled')) : textView(textOf(msg.m));
  const progress = progressOf(msg, conv);
  return h('li', { class: `message ${isMine ? 'is-mine' : ''} ${isFirst ? 'is-first' : ''}`, tabindex: -1, 'data-seq': msg.seq },
    isGroup && (isFirst ? avatar(`u${msg.from}`, name) : h('span', { class: 'avatar is-empty' })),
    h('div', { class: 'bubble' },
      h('span', { class: isGroup && isFirst ? 'sender' : 'hidden-text' }, h('bdi', {}, name)),
      body,
      h('span', { class: 'meta' },
        msg.imported && h('span', { title: t('imported'), role: 'img', 'aria-label': t('imported') }, icon('info', 'small')),
        msg.edited && msg.m && h('span', {}, t('edited')),
        h('time', { datetime: new Date(msg.time).toISOString(), title: fullTime(msg.time) }, clock(msg.time)),
        progress && mark(progress))));
}

/** @param {string} text */
function textView(text) {
  const view = h('p', { class: `message-text ${isEmojiOnly(text) ? 'is-emoji' : ''}`, dir: 'auto' });
  if (text.length <= LONG) view.append(...withLinks(text));
  else {
    const all = button(t('showAll', { count: text.length }), () => view.replaceChildren(...withLinks(text)), 'is-small');
    view.append(...withLinks(`${clip(text, LONG)}…`), document.createElement('br'), all);
  }
  return view;
}

/** @param {Message} msg @param {string} text */
function eventView(msg, text) {
  const isAsked = msg.from !== box.account.user && !friend(msg.from) && isFriendRequest(msg.m);
  return h('li', { class: 'event', tabindex: -1, 'data-seq': msg.seq },
    h('span', { class: 'event-text' }, h('bdi', {}, text)),
    isAsked && h('span', { class: 'buttons' },
      button(t('accept'), () => void attempt(() => box.addFriend(msg.from), t('friendAdded')), 'is-small is-main'),
      button(t('block'), () => void attempt(() => box.block(msg.from, true), t('isBlocked')), 'is-small')));
}

/** A message that has no number yet. @param {Pending} pending @param {{isFirst: boolean}} place */
export function pendingView(pending, { isFirst }) {
  const isFailed = pending.state === 'failed';
  const reason = isFailed ? errorText({ errno: pending.errno, message: pending.errmsg }, isChange(pending.m) ? 'change' : groupOf(pending.conv) ? 'group' : 'user') : '';
  const choices = isFailed && h('span', { class: 'buttons' },
    button(t('retry'), () => void box.retry(pending.cid), 'is-small'),
    button(t('discard'), () => void box.discard(pending.cid), 'is-small'));
  if (isChange(pending.m) || pending.m.msgType === Type.friendRequest) {
    const text = pending.m.msgType === Type.friendRequest ? t('friendRequestMine') : '';
    return h('li', { class: 'event' }, h('span', { class: 'event-text' }, isFailed ? t('changeFailed', { text: reason }) : text), choices);
  }
  return h('li', { class: `message is-mine is-pending ${isFirst ? 'is-first' : ''} ${isFailed ? 'is-failed' : ''}`, tabindex: -1 },
    h('div', { class: 'bubble' },
      textView(textOf(pending.m)),
      h('span', { class: 'meta' }, isFailed && h('span', { class: 'reason' }, reason), h('time', {}, clock(pending.time)),
        mark(isFailed ? 'failed' : 'pending')),
      choices));
}
