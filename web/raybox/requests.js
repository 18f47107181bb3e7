// Requests and their replies, told apart by `rid`.

import { errorOf, offlineError, Type } from './wire.js';

/** @typedef {import('./wire.js').Frame} Frame */

export class Requests {
  /**
   * `members` are those of a 61 whose reply has more frames.
   * @type {Map<number, {resolve: (frame: Frame) => void, reject: (error: Error) => void, members?: Frame[]}>}
   */
  #open = new Map();
  #last = 0;
  #send;

  /** @param {(frame: Frame) => boolean} send `false` if there is no connection */
  constructor(send) {
    this.#send = send;
  }

  /** A number for a question that is not answered with a reply. */
  next() {
    this.#last += 1;
    return this.#last;
  }

  /**
   * Sends a request. A refusal, and a connection that ends before the reply, are a `RayBoxError`.
   * @param {Frame} frame @returns {Promise<Frame>}
   */
  ask(frame) {
    return new Promise((resolve, reject) => {
      const rid = this.next();
      if (!this.#send({ ...frame, rid })) reject(offlineError());
      else this.#open.set(rid, { resolve, reject });
    });
  }

  /** Whether this frame was the reply to a request. @param {Frame} frame */
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

  /** The connection is gone, and with it all replies. */
  down() {
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const { reject } of open) reject(offlineError());
  }
}
