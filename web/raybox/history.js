// Pages of a conversation: from the store as far as it goes, the rest from the server.

import { rangeAt } from './ranges.js';
import { RayBoxError, Type } from './wire.js';

/** @typedef {import('./wire.js').Message} Message */
/** @typedef {import('./wire.js').Conversation} Conversation */
/** @typedef {import('./wire.js').Frame} Frame */

/**
 * A page, ascending.
 * @typedef {object} Page
 * @property {Message[]} msgs
 * @property {boolean} atStart there is nothing before it
 * @property {boolean} atEnd there is nothing behind it
 */

/**
 * Which page: one of `before`, `after` (both exclusive) and `around`; the newest one without.
 * @typedef {{before?: number, after?: number, around?: number, limit?: number}} Where
 */

/**
 * @typedef {object} HistorySource
 * @property {(conv: string, from: number, to: number) => Promise<Message[]>} read reads from the store
 * @property {(frame: Frame) => Promise<Frame>} ask
 * @property {(conv: Conversation, request: () => Promise<Frame>) => Promise<Message[]>} page puts a reply into the store
 * @property {(conv: Conversation) => void} lost the store does not have what it should
 */

/**
 * Reads a page. Fewer messages than `limit` do not mean that there are no more: `atStart` and `atEnd` do.
 * @param {HistorySource} source @param {Conversation} conv @param {Where} where @returns {Promise<Page>}
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

/** @param {HistorySource} source @param {Conversation} conv @param {number} before @param {number} limit @returns {Promise<Page>} */
async function pageBefore(source, conv, before, limit) {
  const top = Math.min(before - 1, conv.seq);
  if (top <= conv.floor) return { msgs: [], atStart: true, atEnd: top >= conv.seq };
  const range = rangeAt(conv.held, top);
  const stored = range && await readAll(source, conv, Math.max(range[0], top - limit + 1), top);
  const msgs = stored ?? await fetchPage(source, conv, { before: top + 1, limit });
  const first = msgs.length > 0 ? msgs[0].seq : conv.floor + 1;
  return { msgs, atStart: first <= conv.floor + 1, atEnd: top >= conv.seq };
}

/** @param {HistorySource} source @param {Conversation} conv @param {number} after @param {number} limit @returns {Promise<Page>} */
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
 * Reads from the store; `undefined` if something is not there, as after the user has deleted the data of this site.
 * @param {HistorySource} source @param {Conversation} conv @param {number} from @param {number} to
 */
async function readAll(source, conv, from, to) {
  const msgs = await source.read(conv.conv, from, to);
  if (msgs.length === to - from + 1) return msgs;
  source.lost(conv);
  return undefined;
}

/** @param {HistorySource} source @param {Conversation} conv @param {Frame} where @returns {Promise<Message[]>} */
async function fetchPage(source, conv, where) {
  const request = () => source.ask({ msgType: Type.page, conv: conv.conv, ...where });
  try {
    return await source.page(conv, request);
  } catch (error) {
    // All of it has gone meanwhile.
    if (error instanceof RayBoxError && error.errno === 410) return [];
    throw error;
  }
}
