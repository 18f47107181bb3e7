// TCP and TLS for Node: one JSON object per line, in both directions.

import { connect as connectTcp } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { parsed } from './transport.js';

/**
 * The longest frame. A RayBox server's frames stay below half of it, so a peer that sends a longer
 * one is not such a server.
 */
const LONGEST = 1 << 20;

/** @type {import('./transport.js').OpenSocket} */
export function openTcp(url, listener) {
  const { protocol, hostname, port } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, '');
  const secure = protocol === 'tls:';
  const socket = secure
    ? connectTls({ host, port: Number(port), servername: host })
    : connectTcp({ host, port: Number(port), noDelay: true });
  let rest = '';
  socket.setEncoding('utf8');
  socket.on(secure ? 'secureConnect' : 'connect', () => listener.open());
  socket.on('data', (/** @type {string} */ data) => {
    const lines = (rest + data).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (!line || socket.destroyed) continue;
      const frame = parsed(line);
      if (frame) listener.frame(frame);
      else socket.destroy();
    }
    if (rest.length > LONGEST) socket.destroy();
  });
  socket.on('error', () => socket.destroy());
  socket.on('close', () => listener.closed());
  return {
    send: (text) => void socket.write(`${text}\n`),
    close: () => void socket.destroy(),
  };
}
