// Cases for Node only: an old version, and peers that are not RayBox servers.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { RayBox } from '../../../web/raybox.js';
import { until } from '../support/wait.js';

const LIBRARY = fileURLToPath(new URL('../../../web/raybox.js', import.meta.url));

test('the library works in Node 18, which lacks some globals', async () => {
  // The test removes the globals that Node 18 lacks. Later versions of Node have all the others.
  const program = `
    for (const name of ['CustomEvent', 'crypto', 'navigator', 'WebSocket']) delete globalThis[name];
    const { RayBox, uuid7 } = await import(${JSON.stringify(LIBRARY)});
    const box = new RayBox({ url: 'fake:', open: () => ({ send() {}, close() {} }) });
    box.addEventListener('status', ({ detail }) => console.log(detail.state, uuid7().length));
    await box.start();
    box.stop();`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program]);
  assert.match(stdout, /^signedOut 36$/m);
});

test('a peer that is no server of this kind ends the connection, not the program', async (t) => {
  for (const greeting of ['SSH-2.0-OpenSSH_9.2\r\n', '[]\n7\n', 'x'.repeat(3 << 20)]) {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.write(greeting);
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
    t.after(() => server.close());
    const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
    const box = new RayBox({ url: `tcp://127.0.0.1:${port}`, scale: 0.01 });
    t.after(() => box.stop());
    await box.start();
    await assert.rejects(box.login({ name: 'ann', password: 'secret' }));
    await until('it has given up', () => box.status.state === 'signedOut');
  }
});
