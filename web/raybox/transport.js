// A connection that carries JSON objects: a WebSocket in browsers, TCP or TLS in Node.

/** @typedef {import('./wire.js').Frame} Frame */

/**
 * The events of a connection. `closed` is always called, once and last.
 * @typedef {object} Listener
 * @property {() => void} open
 * @property {(frame: Frame) => void} frame
 * @property {() => void} closed
 */

/** @typedef {{send: (text: string) => void, close: () => void}} Socket */

/** @typedef {(url: string, listener: Listener) => Socket} OpenSocket */

/**
 * Opens `ws://`, `wss://` (browsers, and Node from 22 on), or `tcp://`, `tls://` (Node).
 * @type {OpenSocket}
 */
export function openSocket(url, listener) {
  return /^wss?:/.test(url) ? openWebSocket(url, listener) : openTcp(url, listener);
}

/** @type {OpenSocket} */
function openWebSocket(url, listener) {
  const socket = new WebSocket(url, 'raybox.2');
  let ended = false;
  const end = () => {
    if (ended) return;
    ended = true;
    listener.closed();
  };
  socket.onopen = () => !ended && listener.open();
  socket.onclose = end;
  socket.onmessage = (event) => {
    if (ended) return;
    const frame = parsed(event.data);
    if (frame) listener.frame(frame);
    else {
      socket.close();
      end();
    }
  };
  return {
    send: (text) => socket.send(text),
    // A dead peer would delay the event `close`, so the end is reported at once.
    close: () => {
      socket.close();
      end();
    },
  };
}

/**
 * Parses a frame; `undefined` if the text is not one. Later frames cannot be trusted then.
 * @param {unknown} text
 * @returns {Frame | undefined}
 */
export function parsed(text) {
  try {
    const frame = typeof text === 'string' ? JSON.parse(text) : undefined;
    return typeof frame === 'object' && frame !== null ? frame : undefined;
  } catch {
    return undefined;
  }
}

/** @type {OpenSocket} */
function openTcp(url, listener) {
  /** @type {Socket | undefined} */
  let inner;
  let ended = false;
  const once = {
    open: () => !ended && listener.open(),
    frame: (/** @type {Frame} */ frame) => !ended && listener.frame(frame),
    closed: () => {
      if (!ended) listener.closed();
      ended = true;
    },
  };
  // Only Node has these modules; a browser never gets here.
  import('./tcp.js').then((tcp) => {
    if (!ended) inner = tcp.openTcp(url, once);
  }, once.closed);
  return {
    send: (text) => inner?.send(text),
    close: () => {
      inner?.close();
      once.closed();
    },
  };
}
