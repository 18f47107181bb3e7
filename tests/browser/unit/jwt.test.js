// Logins with tokens of an identity provider, in Node against the real server.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { MemoryStore, RayBox, RayBoxError } from '../../../web/raybox.js';
import { Server } from '../support/server.js';
import { until } from '../support/wait.js';

const SECRET = 'a secret of at least 32 characters';
/** @type {Server} */
let server;
/** @type {string} */
let folder;
/** @type {RayBox[]} */
const boxes = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'raybox-jwt-'));
  const key = join(folder, 'secret');
  await writeFile(key, SECRET);
  server = await Server.start('--jwt-key', key, '--jwt-algorithm', 'HS256', '--jwt-register', 'on');
});
after(async () => {
  for (const box of boxes) box.stop();
  await server.stop();
  await rm(folder, { recursive: true });
});

/** A token of this user. @param {string} sub @param {number} seconds until it expires */
function sign(sub, seconds = 3600) {
  const encode = (/** @type {object} */ part) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const message = `${encode({ alg: 'HS256' })}.${encode({ sub, exp })}`;
  return `${message}.${createHmac('sha256', SECRET).update(message).digest('base64url')}`;
}

/** @param {Partial<import('../../../web/raybox.js').Options>} options */
async function client(options) {
  const box = new RayBox({ url: `tcp://127.0.0.1:${server.port}`, scale: 0.2, ...options });
  boxes.push(box);
  await box.start();
  return box;
}

/** @param {RayBox} box */
const online = (box) => until('online', () => box.status.state === 'online');

test('a text or a function logs in at the start', async () => {
  const text = await client({ jwt: sign('ann') });
  await online(text);
  assert.equal(text.account.name, 'ann');
  const fetched = await client({ jwt: async () => sign('ann') });
  await online(fetched);
  assert.equal(fetched.account.user, text.account.user);
});

test('a fresh token is fetched when the login has expired', async () => {
  let count = 0;
  // It has expired, but within the leeway. So the token of the server has expired as well.
  const jwt = () => {
    count += 1;
    return sign('bob', -5);
  };
  const box = await client({ jwt });
  await online(box);
  assert.equal(count, 1);
  await server.kill();
  await until('offline', () => box.status.state !== 'online');
  await server.launch();
  await online(box);
  assert.equal(count, 2, 'the token was refused first');
  assert.equal(box.account.name, 'bob');
});

test('a source that fails, and a wrong token, are told', async () => {
  const failing = await client({ jwt: () => Promise.reject(new Error('the provider is away')) });
  assert.equal(failing.status.state, 'signedOut');
  assert.match(String(failing.status.errmsg), /the provider is away/);
  const wrong = await client({ jwt: 'x' });
  await until('signed out', () => wrong.status.state === 'signedOut');
  assert.equal(wrong.status.reason, 'expired');
  await assert.rejects(wrong.login({ jwt: 'y' }), (error) => error instanceof RayBoxError && error.errno === 302);
  await wrong.login({ jwt: sign('cat') });
  await online(wrong);
});

test('a fresh token takes the place of the password', async () => {
  const store = new MemoryStore();
  const box = await client({ jwt: sign('dan'), store });
  await online(box);
  await assert.rejects(box.changePassword('', 'word'), (error) => error instanceof RayBoxError && error.errno === 302);
  await box.changePassword({ jwt: sign('dan') }, 'word');
  const other = await client({});
  await other.login({ name: 'dan', password: 'word' });
  await box.deleteAccount({ jwt: sign('dan') });
  assert.equal(box.status.reason, 'deleted');
});
