// The served files: the service worker's list has all of them, and nothing is loaded from another
// host.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { filesIn, stamped } from '../support/stamp.js';

const WEB = fileURLToPath(new URL('../../../web', import.meta.url));

test('the service worker has every file as it is: after a change, `npm run stamp` in tests/browser', async () => {
  assert.equal(await readFile(join(WEB, 'sw.js'), 'utf8'), stamped(WEB));
});

test('nothing is fetched from elsewhere, nothing is inline, and all of it is small', async (t) => {
  let bytes = 0;
  for (const name of filesIn(WEB)) {
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
