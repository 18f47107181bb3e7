// What is served: nothing is missing in the service worker's list, and nothing comes from elsewhere.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const WEB = fileURLToPath(new URL('../../../web', import.meta.url));

/** For Node only, for npm only, and the worker itself. */
const NOT_STORED = ['package.json', 'raybox/tcp.js', 'sw.js'];

/** @param {string} folder @returns {Promise<string[]>} */
async function filesIn(folder) {
  const entries = await readdir(folder, { withFileTypes: true });
  const lists = entries.map((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesIn(path) : [relative(WEB, path)];
  });
  return (await Promise.all(lists)).flat();
}

test('the service worker stores every file', async () => {
  const worker = await readFile(join(WEB, 'sw.js'), 'utf8');
  const list = worker.slice(worker.indexOf('const FILES'), worker.indexOf('];'));
  const stored = [...list.matchAll(/'([^']+)'/g)].map(([, name]) => (name === './' ? 'index.html' : name));
  const wanted = (await filesIn(WEB)).filter((name) => !NOT_STORED.includes(name));
  assert.deepEqual(stored.sort(), wanted.sort());
});

test('nothing is fetched from elsewhere, nothing is inline, and all of it is small', async (t) => {
  let bytes = 0;
  for (const name of await filesIn(WEB)) {
    const text = await readFile(join(WEB, name), 'utf8');
    bytes += gzipSync(text).length;
    const addresses = [...text.matchAll(/https?:\/\/[^\s'"<>)]*/g)].map(([address]) => address);
    assert.deepEqual(addresses.filter((address) => address !== 'http://www.w3.org/2000/svg' && !address.includes('\\')), [], name);
    assert.ok(text.split('\n').length <= 560, `${name} is too long`);
    if (name.endsWith('.html')) assert.doesNotMatch(text, /\son\w+=|\sstyle=|<style|<script(?![^>]*src=)/, name);
  }
  t.diagnostic(`all files, compressed: ${bytes} bytes`);
  assert.ok(bytes < 100_000, `${bytes} bytes`);
});
