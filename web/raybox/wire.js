// The terms of the protocol: frame types, the records that the library stores, and errors.

/**
 * The values of `msgType`.
 * @readonly
 */
export const Type = Object.freeze({
  login: 1, register: 2, logout: 3, chat: 4, friendRequest: 5, addFriend: 6, removeFriend: 7, contacts: 8,
  groupChat: 9, joinGroup: 10, myGroups: 11, createGroup: 12, findGroups: 13, search: 15,
  welcome: 40, ack: 41, message: 42, overview: 43, run: 44, synced: 45, sync: 46, stored: 47, page: 48, read: 49,
  partnerRead: 50, typing: 51, presence: 52, ping: 53, pong: 54, end: 55, event: 57, find: 58,
  changePassword: 60, members: 61, leaveGroup: 62, removeMember: 63, changeGroup: 64, dissolveGroup: 65, block: 66,
  account: 67, devices: 68, deleteAccount: 69,
});

/**
 * A frame of the wire, or the body of a message.
 * @typedef {Record<string, any>} Frame
 */

/**
 * A message as it is stored and shown. `m` is the body as its sender wrote it; all other members
 * come from the server.
 * @typedef {object} Message
 * @property {string} conv the conversation, such as `u9` or `g3`
 * @property {number} seq its number in the conversation
 * @property {string} tag
 * @property {number} from the sender, verified by the server
 * @property {number} time milliseconds since 1970, by the server's clock
 * @property {Frame | null} m `null` after a recall
 * @property {number} [edited] the number of the newest edit
 * @property {number} [recalled] the number of the recall
 * @property {boolean} [imported] whether the message was imported, so that `from` is unverified
 */

/**
 * A conversation.
 * @typedef {object} Conversation
 * @property {string} conv
 * @property {'user' | 'group'} kind
 * @property {string | null} name `null` if the account was deleted, `''` while the name is not
 *   known
 * @property {number} seq the cursor: every message up to here has been received or can be read in
 *   pages
 * @property {string} tag the tag of number `seq`
 * @property {number} floor messages up to this number are gone
 * @property {number} read the own read mark
 * @property {number} unread
 * @property {number} peerRead the number up to which the partner has read
 * @property {number} peerRecv the number up to which a device of the partner has received
 * @property {Message | null} last the last message
 * @property {number} time the time of the last event
 * @property {[number, number][]} held the ranges of numbers that are stored here, ascending
 * @property {number} [markDue] a read mark that the server has not confirmed
 * @property {number} [closed] 403 or 404 if the user no longer belongs to the conversation
 * @property {Member[]} [members] the members of a group, as last requested
 * @property {number} [asked] the number of the partner's newest known request for friendship
 */

/** @typedef {{id: number, name: string | null, role: 'creator' | 'member'}} Member */

/**
 * A message that has no number yet.
 * @typedef {object} Pending
 * @property {number} order the place in the outbox
 * @property {string} cid
 * @property {string} conv
 * @property {string} text the exact frame, because a retry must have the same bytes
 * @property {Frame} m the parsed frame
 * @property {number} time the time by this machine's clock
 * @property {'queued' | 'sent' | 'acked' | 'failed'} state `acked`: committed, but not shown in its
 *   place yet
 * @property {boolean} [tried] whether it was sent at least once
 * @property {number} [seq] the number of an acked message
 * @property {number} [errno] the reason of the failure
 * @property {string} [errmsg]
 */

/**
 * The logged-in account.
 * @typedef {object} Account
 * @property {string} device
 * @property {number} [user]
 * @property {string} [name]
 * @property {string} [token]
 * @property {number} [tokenExpires]
 * @property {{id: number, name: string}[]} [friends] the friends, as last requested
 */

/** @typedef {{frame: number, inflight: number, page: number}} Limits */

/**
 * The state of the connection.
 * @typedef {object} Status
 * @property {'starting' | 'signedOut' | 'connecting' | 'syncing' | 'online' | 'offline'} state
 * @property {string} [reason] the reason why it is not online: `replaced`, `revoked`, `logout`, `drain`, …
 * @property {string} [errmsg]
 * @property {number} [until] the time of the next attempt, in milliseconds of `Date.now()`
 */

/** The error of a request that was refused or could not be sent. */
export class RayBoxError extends Error {
  /**
   * @param {number} errno the errno of the reply; 0 if there is no connection
   * @param {string} message the advice to the user
   * @param {number} [retryAfter] the seconds to wait; present only if a retry may succeed
   */
  constructor(errno, message, retryAfter) {
    super(message);
    this.name = 'RayBoxError';
    this.errno = errno;
    this.retryAfter = retryAfter;
  }
}

/** @param {Frame} frame */
export function errorOf(frame) {
  return new RayBoxError(frame.errno, frame.errmsg ?? frame.msg ?? `the server refused it with ${frame.errno}`, frame.retryAfter);
}

export const offlineError = () => new RayBoxError(0, 'there is no connection; try again when there is one', 1);

/** The user at the other end of a conversation, or 0 for a group. @param {string} conv */
export const partnerOf = (conv) => (conv[0] === 'u' ? Number(conv.slice(1)) : 0);

/** The group of a conversation, or 0. @param {string} conv */
export const groupOf = (conv) => (conv[0] === 'g' ? Number(conv.slice(1)) : 0);

/**
 * Whether a message counts as unread for others: a chat that is neither an edit nor a recall.
 * @param {Frame | null} m @param {number} [seq] its number
 */
export function isChat(m, seq) {
  return m !== null && (m.msgType === Type.chat || m.msgType === Type.groupChat) && !isChange(m, seq);
}

/**
 * Whether a message changes another one: an edit or a recall. An edited message has the frame of
 * its edit, which names the message itself, and is not a change.
 * @param {Frame | null} m @param {number} [seq] its number
 */
export function isChange(m, seq) {
  return m !== null && ((Number.isInteger(m.edit) && m.edit !== seq) || Number.isInteger(m.recall));
}

// Node 18 has this only as a module. A browser never gets to the import.
const random = globalThis.crypto ?? (await import('node:crypto')).webcrypto;

/** Unpredictable random bytes. @param {number} count */
export const randomBytes = (count) => random.getRandomValues(new Uint8Array(count));

/** Milliseconds of a monotonic clock, for waits. */
export const ticks = () => performance.now();

/**
 * The user that a message makes a friend or a member of a group; 0 if it does neither.
 * @param {Message} msg
 * @returns {number}
 */
export function newContact({ conv, m }) {
  if (m?.msgType === Type.addFriend && m.ask !== true) return partnerOf(conv);
  return m?.msgType === Type.event && m.event === 'joined' ? m.USERID : 0;
}

/** Whether a body is a request for friendship. @param {Frame | null} m */
export const isFriendRequest = (m) => m !== null && (m.msgType === Type.friendRequest || (m.msgType === Type.addFriend && m.ask === true));

/**
 * A UUID of version 7: its first 48 bits are the time, so that ids sort by it.
 * @param {number} [now]
 */
export function uuid7(now = Date.now()) {
  const bytes = randomBytes(16);
  for (let at = 5, rest = now; at >= 0; at--, rest = Math.floor(rest / 256)) bytes[at] = rest % 256;
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
