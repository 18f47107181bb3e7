// Requests and their replies, which are matched by `rid`.

import { errorOf, offlineError, Type } from './wire.js';

/** @typedef {import('./wire.js').Frame} Frame */

export class Requests {
  /**
   * The open requests. `members` are the members so far of a 61 whose reply has more frames.
   * @type
   *   {Map<number, {resolve: (frame: Frame) => void, reject: (error: Error) => void, members?: Frame[]}>}
   */
  #open = new Map();
  #last = 0;
  #send;

  /** @param {(frame: Frame) => boolean} send `false` if there is no connection */
  constructor(send) {
    this.#send = send;
  }

  /** Whether a request is unanswered. */
  get isWaiting() {
    return this.#open.size > 0;
  }

  /** A number for a request that is answered in another way than by a reply. */
  next() {
    this.#last += 1;
    return this.#last;
  }

  /**
   * Sends a request. Throws a `RayBoxError` if it is refused or the connection ends before the
   * reply.
   * @param {Frame} frame @returns {Promise<Frame>}
   */
  ask(frame) {
    return new Promise((resolve, reject) => {
      const rid = this.next();
      if (!this.#send({ ...frame, rid })) reject(offlineError());
      else this.#open.set(rid, { resolve, reject });
    });
  }

  /** Takes a frame; returns whether it was the reply to a request. @param {Frame} frame */
  take(frame) {
    const request = this.#open.get(frame.rid);
    if (!request) return false;
    if (frame.more && frame.msgType === Type.members) {
      request.members = [...(request.members ?? []), ...frame.members];
      return true;
    }
    this.#open.delete(frame.rid);
    if (request.members && frame.errno === 200) frame = { ...frame, members: [...request.members, ...frame.members] };
    if (frame.errno === 200 || frame.errno === 202) request.resolve(frame);
    else request.reject(errorOf(frame));
    return true;
  }

  /** Fails all open requests, because the connection is gone. */
  down() {
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const { reject } of open) reject(offlineError());
  }
}
