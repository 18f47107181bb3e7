// The one client of this page, and texts for its records.

import { isChange, isFriendRequest, partnerOf, RayBox, Type } from '../raybox.js';
import { h } from './dom.js';
import { t } from './i18n.js';

/** @typedef {import('../raybox.js').Conversation} Conversation */
/** @typedef {import('../raybox.js').Message} Message */
/** @typedef {import('../raybox.js').Frame} Frame */

export const box = new RayBox({ deviceKind: deviceKind(navigator.userAgent) });

/** Sends an event when a name was looked up. */
export const names = new EventTarget();

/** @type {Map<number, string>} */
const found = new Map();
/** @type {Set<number>} */
const asking = new Set();

/**
 * The name of a user. An unknown name is looked up, and a placeholder is returned.
 * @param {number} user
 * @param {Conversation} [conv]
 */
export function personName(user, conv) {
  if (user === box.account.user) return box.account.name ?? t('you');
  const member = conv?.members?.find(({ id }) => id === user);
  const name = member?.name ?? box.conversations.get(`u${user}`)?.name ?? friend(user)?.name ?? found.get(user);
  if (name) return name;
  lookUp(user);
  return t('unknownUser', { id: user });
}

/** Like `personName`, but waits until the name is known. @param {number} user @param {Conversation} [conv] */
export async function foundName(user, conv) {
  if (personName(user, conv) !== t('unknownUser', { id: user })) return personName(user, conv);
  return (await box.userName(user).catch(() => null)) ?? personName(user, conv);
}

/** @param {number} user */
export const friend = (user) => box.account.friends?.find(({ id }) => id === user);

/** @param {number} user */
function lookUp(user) {
  if (asking.has(user) || box.status.state !== 'online') return;
  asking.add(user);
  box.userName(user).then((name) => {
    found.set(user, name ?? t('deletedUser'));
    names.dispatchEvent(new Event('found'));
  }).catch(() => asking.delete(user));
}

/**
 * Whether a user is online, in words. A server may reveal nothing about strangers, so they are not
 * called offline.
 * @param {number} user
 */
export function presenceText(user) {
  if (box.online.get(user)) return t('isOnline');
  return friend(user) ? t('isOffline') : '';
}

/** The title of a conversation. @param {string} name */
export function titleOf(name) {
  const conv = box.conversations.get(name);
  const user = partnerOf(name);
  if (user && user === box.account.user) return t('notes');
  if (conv?.name === null) return user ? t('deletedUser') : t('group', { id: name.slice(1) });
  if (conv?.name) return conv.name;
  return user ? personName(user) : t('group', { id: name.slice(1) });
}

/**
 * A disc with the first letter of the title.
 * @param {string} name of a conversation
 * @param {string} title
 */
export function avatar(name, title) {
  const hue = [...name].reduce((sum, char) => (sum * 31 + char.charCodeAt(0)) % 997, 7) % 10;
  const first = [...title.trim()][0] ?? '?';
  return h('span', { class: `avatar hue-${hue} ${name[0] === 'g' ? 'is-group' : ''}`, 'aria-hidden': 'true' }, first.toUpperCase());
}

/** The text of a body. @param {Frame} m */
export function textOf(m) {
  if (typeof m.msg === 'string') return m.msg;
  return m.msg === undefined ? t('otherMessage') : JSON.stringify(m.msg);
}

/**
 * The text of an event of a group, or of a friendship. `undefined` for chats.
 * @param {Message} msg
 * @param {Conversation} [conv]
 */
export function eventText({ m, from }, conv) {
  if (!m) return undefined;
  const isMine = from === box.account.user;
  const name = personName(from, conv);
  if (isFriendRequest(m)) return t(isMine ? 'friendRequestMine' : 'friendRequest', { name });
  if (m.msgType === Type.addFriend) return t(isMine ? 'becameFriendsMine' : 'becameFriends', { name });
  if (m.msgType !== Type.event) return undefined;
  const by = m.by === undefined ? name : personName(m.by, conv);
  const isAdded = m.event === 'joined' && m.by !== undefined && m.by !== m.USERID;
  const key = /** @type {import('./i18n.js').Key} */ (`event_${isAdded ? 'added' : m.event}`);
  return t(key, { by, name: m.name ?? '' });
}

/** The beginning of a text, cut between characters. @param {string} text @param {number} length */
export function clip(text, length) {
  const cut = text.slice(0, length);
  return text.length > length ? cut.replace(/[\ud800-\udbff]$/, '') : cut;
}

/** The last message in one line. @param {Conversation} conv */
export function previewOf(conv) {
  const msg = conv.last;
  if (!msg) return '';
  if (msg.m === null) return t('recalled');
  const event = eventText(msg, conv);
  if (event !== undefined) return event;
  const text = clip(textOf(msg.m), 200).replace(/\s+/g, ' ');
  if (msg.from === box.account.user) return `${t('you')}: ${text}`;
  return conv.kind === 'group' ? `${personName(msg.from, conv)}: ${text}` : text;
}

/**
 * The time of the last event in a conversation; pending messages count.
 * @param {Conversation} conv
 */
export const timeOf = (conv) => Math.max(conv.time, ...box.pending(conv.conv).map((pending) => pending.time));

/** The number of messages in all conversations that wait to be sent. */
export const waitingCount = () =>
  [...box.conversations.keys()].reduce((sum, conv) => sum + box.pending(conv).filter((pending) => pending.state !== 'acked').length, 0);

/** Whether a message is shown by itself: it is neither an edit nor a recall. @param {Message} msg */
export const isShown = (msg) => !isChange(msg.m, msg.seq);

/** Watches the presence of partners and friends. */
export function watchAll() {
  const partners = [...box.conversations.keys()].map(partnerOf);
  const friends = (box.account.friends ?? []).map(({ id }) => id);
  void box.watch([...new Set([...partners, ...friends])].filter((user) => user > 0 && user !== box.account.user));
}

/** Listens to events as long as an element is in the page. */
export class Listening {
  #ends = new AbortController();

  /**
   * @param {EventTarget} target
   * @param {string} names separated by blanks
   * @param {(detail: any) => void} run
   */
  on(target, names, run) {
    for (const name of names.split(' ')) {
      target.addEventListener(name, (event) => run(event instanceof CustomEvent ? event.detail : event), { signal: this.#ends.signal });
    }
    return this;
  }

  end() {
    this.#ends.abort();
  }
}

/** A short name of this browser for the list of devices. @param {string} agent */
function deviceKind(agent) {
  const find = (/** @type {[RegExp, string][]} */ kinds) => kinds.find(([sign]) => sign.test(agent))?.[1] ?? 'other';
  const browser = find([[/Firefox|FxiOS/, 'firefox'], [/Edg/, 'edge'], [/OPR/, 'opera'], [/Chrom|CriOS/, 'chrome'], [/Safari/, 'safari']]);
  const system = find([[/Android/, 'android'], [/iPhone/, 'iphone'], [/iPad/, 'ipad'], [/Windows/, 'windows'], [/Mac/, 'mac'], [/Linux/, 'linux']]);
  return `web-${browser}-${system}`;
}
