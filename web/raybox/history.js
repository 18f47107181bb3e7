// Pages of a conversation: from the store if it has them, otherwise from the server.

import { rangeAt } from './ranges.js';
import { RayBoxError, Type } from './wire.js';

/** @typedef {import('./wire.js').Message} Message */
/** @typedef {import('./wire.js').Conversation} Conversation */
/** @typedef {import('./wire.js').Frame} Frame */

/**
 * A page, with messages in ascending order.
 * @typedef {object} Page
 * @property {Message[]} msgs
 * @property {boolean} atStart whether no messages come before the page
 * @property {boolean} atEnd whether no messages come after the page
 */

/**
 * The wanted page: `before` or `after` a number (both exclusive), or `around` it; without any of
 * them, the newest page.
 * @typedef {{before?: number, after?: number, around?: number, limit?: number}} Where
 */

/**
 * @typedef {object} HistorySource
 * @property {(conv: string, from: number, to: number) => Promise<Message[]>} read reads from the
 *   store
 * @property {(frame: Frame) => Promise<Frame>} ask
 * @property {(conv: Conversation, request: () => Promise<Frame>) => Promise<Message[]>} page puts a
 *   reply into the store
 * @property {(conv: Conversation) => void} lost the store lacks messages that it should have
 */

/**
 * Reads a page. It may have fewer messages than `limit` although there are more; only `atStart` and
 * `atEnd` tell.
 * @param {HistorySource} source
 * @param {Conversation} conv
 * @param {Where} where
 * @returns {Promise<Page>}
 */
export async function readPage(source, conv, { before, after, around, limit = 50 }) {
  if (around !== undefined) {
    const above = await pageAfter(source, conv, around - 1, Math.ceil(limit / 2));
    const below = await pageBefore(source, conv, around, Math.floor(limit / 2));
    return { msgs: [...below.msgs, ...above.msgs], atStart: below.atStart, atEnd: above.atEnd };
  }
  if (after !== undefined) return pageAfter(source, conv, after, limit);
  return pageBefore(source, conv, before ?? conv.seq + 1, limit);
}

/**
 * @param {HistorySource} source
 * @param {Conversation} conv
 * @param {number} before
 * @param {number} limit
 * @returns {Promise<Page>}
 */
async function pageBefore(source, conv, before, limit) {
  const top = Math.min(before - 1, conv.seq);
  if (top <= conv.floor) return { msgs: [], atStart: true, atEnd: top >= conv.seq };
  const range = rangeAt(conv.held, top);
  const stored = range && await readAll(source, conv, Math.max(range[0], top - limit + 1), top);
  const msgs = stored ?? await fetchPage(source, conv, { before: top + 1, limit });
  const first = msgs.length > 0 ? msgs[0].seq : conv.floor + 1;
  return { msgs, atStart: first <= conv.floor + 1, atEnd: top >= conv.seq };
}

/**
 * @param {HistorySource} source
 * @param {Conversation} conv
 * @param {number} after
 * @param {number} limit
 * @returns {Promise<Page>}
 */
async function pageAfter(source, conv, after, limit) {
  const low = Math.max(after, conv.floor) + 1;
  if (low > conv.seq) return { msgs: [], atStart: low <= conv.floor + 1, atEnd: true };
  const range = rangeAt(conv.held, low);
  const stored = range && await readAll(source, conv, low, Math.min(range[1], low + limit - 1));
  const msgs = stored ?? await fetchPage(source, conv, { after: low - 1, limit });
  const last = msgs.length > 0 ? msgs[msgs.length - 1].seq : conv.seq;
  return { msgs, atStart: low <= conv.floor + 1, atEnd: last >= conv.seq };
}

/**
 * Reads from the store; `undefined` if any message is missing, as after the user has deleted the
 * data of this site.
 * @param {HistorySource} source @param {Conversation} conv @param {number} from @param {number} to
 */
async function readAll(source, conv, from, to) {
  const msgs = await source.read(conv.conv, from, to);
  if (msgs.length === to - from + 1) return msgs;
  source.lost(conv);
  return undefined;
}

/**
 * @param {HistorySource} source
 * @param {Conversation} conv
 * @param {Frame} where
 * @returns {Promise<Message[]>}
 */
async function fetchPage(source, conv, where) {
  const request = () => source.ask({ msgType: Type.page, conv: conv.conv, ...where });
  try {
    return await source.page(conv, request);
  } catch (error) {
    // All these messages were deleted meanwhile.
    if (error instanceof RayBoxError && error.errno === 410) return [];
    throw error;
  }
}
