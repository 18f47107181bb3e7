// Conversations and their messages. Each message from the server is put in its place, once and in
// order.
//
// In each conversation the numbers that a connection is shown ascend without a gap. `#places` has
// the last number that this connection was shown, or one that counts as such. The record's `seq` is
// the last stored number. The library does not take a number that leaves a gap. Instead it asks for
// a run from its cursor (46).

import { addRange, cutBelow } from './ranges.js';
import { isChange, isChat, isFriendRequest, partnerOf, Type } from './wire.js';

/** @typedef {import('./wire.js').Frame} Frame */
/** @typedef {import('./wire.js').Message} Message */
/** @typedef {import('./wire.js').Conversation} Conversation */
/** @typedef {import('./journal.js').Journal} Journal */

/** The tag of a cursor at 0. */
const NO_TAG = '00000000';

/** The messages that stay of each conversation when the browser has no more room. */
const KEPT = 100;

/** The bytes of a login or a 46 that are reserved for everything but cursors. */
const ROOM = 2048;

/**
 * The events of the conversations.
 * @typedef {object} ConversationEvents
 * @property {(conv: Conversation) => void} changed
 * @property {(msg: Message) => void} message a new message is in its place
 * @property {(msg: Message) => void} altered a message was edited or recalled
 * @property {(conv: string) => void} reset all that was known of this conversation is void
 * @property {(have: Record<string, string>) => void} ask wants a 46 with these cursors
 */

export class Conversations {
  /** @type {Map<string, Conversation>} */
  all = new Map();
  /** The id of this user. */
  user = 0;
  #journal;
  #events;
  #read;
  /** @type {Map<string, number>} */
  #places = new Map();
  /**
   * The numbers up to which the 43s of this login, or 49s, have counted unread messages.
   * @type {Map<string, number>}
   */
  #counted = new Map();
  /** Whether all runs of the login have come. */
  #isLive = false;
  /**
   * Conversations whose run was or will be requested, so a gap needs no further request.
   * @type {Set<string>}
   */
  #waiting = new Set();
  /** Conversations for which the login had no room. @type {Conversation[]} */
  #leftOut = [];
  /**
   * Edits and recalls that came while pages were in flight; such a page may be older than they are.
   * @type {Set<Message[]>}
   */
  #witnesses = new Set();

  /**
   * @param {Journal} journal
   * @param {(conv: string, from: number, to: number) => Promise<Message[]>} read reads from the
   *   store
   * @param {ConversationEvents} events
   */
  constructor(journal, read, events) {
    this.#journal = journal;
    this.#read = read;
    this.#events = events;
  }

  /** The record of a conversation, which is created if needed. @param {string} name */
  get(name) {
    let conv = this.all.get(name);
    if (!conv) {
      conv = {
        conv: name, kind: name[0] === 'g' ? 'group' : 'user', name: '', seq: 0, tag: NO_TAG, floor: 0, read: 0, unread: 0,
        peerRead: 0, peerRecv: 0, last: null, time: 0, held: [],
      };
      this.all.set(name, conv);
    }
    return conv;
  }

  /** Notes that a record has changed. @param {Conversation} conv */
  changed(conv) {
    this.#journal.conv(conv);
    this.#events.changed(conv);
  }

  /** Whether an own message to this conversation would be shown in its place. @param {string} name */
  isReady(name) {
    return !this.#waiting.has(name);
  }

  // ---- Synchronising ----

  /**
   * The cursors for a login: as many as fit into a frame, the most recently active conversations
   * first.
   * @param {number} frame the longest frame in bytes
   */
  have(frame) {
    this.haveNothing();
    const convs = [...this.all.values()].filter((conv) => conv.seq > 0).sort((a, b) => b.time - a.time);
    const fitting = this.#fit(convs, frame);
    this.#leftOut = convs.slice(fitting.length);
    for (const conv of convs) this.#places.set(conv.conv, conv.seq);
    for (const conv of this.#leftOut) this.#waiting.add(conv.conv);
    return cursors(fitting);
  }

  /** The cursors of a login that reveals none. @returns {Record<string, string>} */
  haveNothing() {
    this.#isLive = false;
    this.#places.clear();
    this.#counted.clear();
    this.#waiting.clear();
    this.#leftOut = [];
    return {};
  }

  /** Drops everything, because it belongs to another user. */
  clear() {
    this.all.clear();
    this.#witnesses.clear();
    this.haveNothing();
  }

  /** The next cursors for which the login had no room, or `undefined`. @param {number} frame */
  moreHave(frame) {
    const fitting = this.#fit(this.#leftOut, frame);
    this.#leftOut = this.#leftOut.slice(fitting.length);
    return fitting.length > 0 ? cursors(fitting) : undefined;
  }

  /** @param {Conversation[]} convs @param {number} frame */
  #fit(convs, frame) {
    let room = frame - ROOM;
    const end = convs.findIndex((conv) => (room -= conv.conv.length + String(conv.seq).length + 16) < 0);
    return end < 0 ? convs : convs.slice(0, end);
  }

  /** Handles a 43. @param {Frame} frame */
  onOverview(frame) {
    for (const shown of frame.convs) {
      const isNew = !this.#places.has(shown.conv);
      const conv = this.get(shown.conv);
      if (isNew) {
        conv.seq = shown.head;
        conv.tag = shown.tag ?? NO_TAG;
        this.#places.set(conv.conv, conv.seq);
      }
      conv.name = shown.name ?? null;
      delete conv.closed;
      conv.read = Math.max(shown.read, conv.markDue ?? 0);
      conv.unread = shown.unread;
      this.#counted.set(conv.conv, shown.head);
      conv.peerRead = shown.peerRead ?? 0;
      conv.peerRecv = shown.peerRecv ?? 0;
      this.#setFloor(conv, shown.floor);
      if (shown.last) {
        this.#noteRequest(conv, shown.last);
        this.#preview(conv, { conv: conv.conv, ...shown.last });
      }
      this.changed(conv);
    }
  }

  /** @param {Conversation} conv @param {number} floor */
  #setFloor(conv, floor) {
    conv.floor = floor;
    conv.held = cutBelow(conv.held, conv.floor);
  }

  /** Handles a 44. @param {Frame} frame */
  onRun(frame) {
    const conv = this.get(frame.conv);
    this.#waiting.delete(conv.conv);
    if (frame.errno) {
      conv.closed = frame.errno;
      this.changed(conv);
      return;
    }
    if (frame.reset) this.#reset(conv, frame.to);
    delete conv.closed;
    this.#places.set(conv.conv, frame.from - 1);
    this.changed(conv);
  }

  /**
   * Drops the messages of a conversation, and lowers marks that are above its head.
   * @param {Conversation} conv
   * @param {number} head
   */
  #reset(conv, head) {
    const [read, peerRead, peerRecv] = [conv.read, conv.peerRead, conv.peerRecv].map((mark) => Math.min(mark, head));
    Object.assign(conv, { seq: 0, tag: NO_TAG, held: [], last: null, read, peerRead, peerRecv });
    if (this.#isLive || !this.#counted.has(conv.conv)) {
      // No 43 has counted the messages that follow. The answer to a 49 does.
      this.#counted.delete(conv.conv);
      conv.unread = 0;
    }
    delete conv.markDue;
    delete conv.asked;
    this.#journal.empty(conv.conv);
    this.#events.reset(conv.conv);
  }

  /**
   * Handles a 45: requested conversations without a run have no messages after their cursors.
   * @param {string[]} asked
   */
  onSynced(asked) {
    for (const name of asked) this.#waiting.delete(name);
  }

  /** Notes that all runs of the login have come. From now on every message is counted. */
  live() {
    this.#isLive = true;
    this.#counted.clear();
  }

  /** @param {Conversation} conv */
  #ask(conv) {
    if (this.#waiting.has(conv.conv)) return;
    this.#waiting.add(conv.conv);
    this.#places.set(conv.conv, conv.seq);
    this.#events.ask(cursors([conv]));
  }

  // ---- Messages ----

  /**
   * Handles a 42, or the 41 of an own message. Returns whether the message is in its place now, or
   * was there before.
   * @param {Message} msg
   */
  show(msg) {
    const known = this.all.has(msg.conv);
    const conv = this.get(msg.conv);
    // A group that was joined meanwhile may begin with any number.
    const isFirst = !this.#places.has(msg.conv) && !known && conv.kind === 'group';
    const place = isFirst ? msg.seq - 1 : (this.#places.get(msg.conv) ?? conv.seq);
    if (msg.seq <= place) return true;
    if (msg.seq > place + 1) {
      this.#ask(conv);
      return false;
    }
    this.#places.set(msg.conv, msg.seq);
    if (isFirst) conv.floor = msg.seq - 1;
    this.#take(conv, msg);
    return true;
  }

  /** @param {Conversation} conv @param {Message} msg */
  #take(conv, msg) {
    conv.seq = msg.seq;
    conv.tag = msg.tag;
    conv.held = addRange(conv.held, msg.seq, msg.seq);
    this.#journal.msg(msg);
    // The server has counted the unread messages up to this number.
    const counted = this.#counted.get(msg.conv) ?? 0;
    if (msg.from === this.user) {
      if (msg.seq > Math.max(conv.read, counted)) {
        conv.read = msg.seq;
        conv.unread = 0;
        delete conv.markDue;
      }
    } else if (msg.seq > Math.max(conv.read, counted) && isChat(msg.m, msg.seq)) conv.unread += 1;
    const lost = this.#lostBy(msg.m);
    if (lost) conv.closed = lost;
    else delete conv.closed;
    if (msg.m?.msgType === Type.event && msg.m.event === 'renamed') conv.name = msg.m.name;
    this.#noteRequest(conv, msg);
    this.#preview(conv, msg);
    this.changed(conv);
    this.#events.message(msg);
    if (isChange(msg.m, msg.seq)) {
      for (const witness of this.#witnesses) witness.push(msg);
      void this.#alter(conv, msg);
    }
  }

  /** The errno of the group if this event takes it from the user, otherwise 0. @param {Frame | null} m */
  #lostBy(m) {
    if (m?.msgType !== Type.event) return 0;
    if (m.event === 'dissolved') return 404;
    return (m.event === 'left' || m.event === 'removed') && m.USERID === this.user ? 403 : 0;
  }

  /** @param {Conversation} conv @param {{seq: number, from: number, m: Frame | null}} msg */
  #noteRequest(conv, { seq, from, m }) {
    if (from !== this.user && isFriendRequest(m)) conv.asked = Math.max(conv.asked ?? 0, seq);
  }

  /**
   * Makes this the last message if it is shown by itself; otherwise applies it to the last one.
   * @param {Conversation} conv
   * @param {Message} msg
   */
  #preview(conv, msg) {
    conv.time = Math.max(conv.time, msg.time);
    const last = conv.last;
    const target = msg.m?.edit ?? msg.m?.recall;
    if (!isChange(msg.m, msg.seq)) conv.last = msg;
    else if (last === null || last.seq === target) conv.last = changedBy(last ?? { ...msg, seq: target }, msg);
  }

  /**
   * Applies an edit or a recall to the stored messages.
   * @param {Conversation} conv
   * @param {Message} change
   */
  async #alter(conv, change) {
    const { edit, recall } = /** @type {Frame} */ (change.m);
    await this.#journal.stored();
    const target = edit ?? recall;
    const held = await this.#read(conv.conv, target, edit === undefined ? change.seq - 1 : target);
    for (const msg of held) {
      if (msg.from !== change.from || (msg.seq !== target && msg.m?.edit !== target)) continue;
      const altered = changedBy(msg, change);
      if (altered === msg) continue;
      this.#journal.msg(altered);
      if (msg.seq !== target) continue;
      if (recall !== undefined && isChat(msg.m, msg.seq) && msg.seq > conv.read && conv.unread > 0) {
        conv.unread -= 1;
        this.changed(conv);
      }
      this.#events.altered(altered);
    }
  }

  /**
   * Puts a page from the server, which `request` fetches, into the store. Edits and recalls that
   * come meanwhile are applied, because the server may have read the page before them.
   * @param {Conversation} conv
   * @param {() => Promise<Frame>} request
   */
  async page(conv, request) {
    /** @type {Message[]} */
    const witness = [];
    this.#witnesses.add(witness);
    try {
      const reply = await request();
      // Another user has logged in meanwhile, or the user has deleted the conversation here.
      if (this.all.get(conv.conv) !== conv) return [];
      const msgs = this.#withChanges(conv, reply.msgs, witness);
      this.#setFloor(conv, reply.floor);
      if (msgs.length > 0) {
        for (const msg of msgs) {
          this.#journal.msg(msg);
          this.#noteRequest(conv, msg);
        }
        conv.held = addRange(conv.held, msgs[0].seq, msgs[msgs.length - 1].seq);
      }
      this.changed(conv);
      return msgs;
    } finally {
      this.#witnesses.delete(witness);
    }
  }

  /**
   * @param {Conversation} conv
   * @param {any[]} shown
   * @param {Message[]} changes
   * @returns {Message[]}
   */
  #withChanges(conv, shown, changes) {
    // Messages beyond the cursor will come later in their place.
    const msgs = shown.filter((msg) => msg.seq <= conv.seq).map((msg) => ({ conv: conv.conv, ...msg }));
    for (const change of changes) {
      if (change.conv !== conv.conv) continue;
      const target = change.m?.edit ?? change.m?.recall;
      const at = msgs.findIndex((msg) => msg.seq === target);
      if (at >= 0) msgs[at] = changedBy(msgs[at], change);
    }
    return msgs;
  }

  /**
   * Makes room in a full browser: only the newest messages of each conversation stay. Others are
   * read from the server when the user scrolls to them. Returns the conversations, each with the
   * number up to which its messages are to be deleted.
   */
  shrink() {
    /** @type {[string, number][]} */
    const cut = [];
    for (const conv of this.all.values()) {
      const below = conv.seq - KEPT;
      if (conv.closed || !conv.held.some(([from]) => from <= below)) continue;
      conv.held = cutBelow(conv.held, below);
      cut.push([conv.conv, below]);
      this.changed(conv);
    }
    return cut;
  }

  /**
   * Notes that the store has lost messages of a conversation, which are thus not held any more.
   * @param {Conversation} conv
   */
  lost(conv) {
    conv.held = [];
    this.changed(conv);
  }

  // ---- Marks ----

  /** Handles a 49: the own mark. @param {Frame} frame */
  onRead(frame) {
    const conv = this.all.get(frame.conv);
    if (!conv) return;
    // A mark that is older than the last shown message does not cover it. Other marks fall only
    // after a reset.
    conv.read = Math.max(frame.read, frame.head >= conv.seq ? (conv.markDue ?? 0) : conv.read);
    if (frame.read >= conv.read) {
      conv.unread = frame.unread;
      // The server has counted messages that are still to come.
      if (frame.head > conv.seq) this.#counted.set(conv.conv, frame.head);
    }
    if (conv.markDue !== undefined && conv.markDue <= frame.read) delete conv.markDue;
    this.changed(conv);
  }

  /** Handles a 50: the partner's marks. @param {Frame} frame */
  onPartnerRead(frame) {
    const conv = this.all.get(frame.conv);
    if (!conv || partnerOf(conv.conv) !== frame.user) return;
    // Of one connection, each 50 is above the last one. They fall only with a lost history.
    conv.peerRead = frame.read;
    conv.peerRecv = Math.max(frame.recv, frame.read);
    this.changed(conv);
  }
}

/**
 * The message with an edit or a recall applied; the same message if it is newer than the change.
 * @param {Message} msg @param {Message} change @returns {Message}
 */
function changedBy(msg, change) {
  if (msg.recalled || (msg.edited ?? 0) >= change.seq) return msg;
  const isRecall = change.m?.recall !== undefined || change.m === null;
  return isRecall ? { ...msg, m: null, recalled: change.seq } : { ...msg, m: change.m, edited: change.seq };
}

/** @param {Conversation[]} convs */
const cursors = (convs) => Object.fromEntries(convs.map((conv) => [conv.conv, `${conv.seq}:${conv.tag}`]));

