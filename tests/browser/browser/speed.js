// How soon the page can be used.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Person } from '../support/people.js';
import { place } from '../support/place.js';

/** @typedef {import('playwright-core').Page} Page */

/** The number of times that the page is loaded in each way; the median counts. */
const ROUNDS = 5;

/** Much longer than the page needs on a busy machine, in milliseconds. */
const BOUND = 60_000;

/** Runs in the page: notes when its user can begin, in milliseconds since the navigation began. */
function noteTimes() {
  const times = /** @type {any} */ (globalThis).times = /** @type {Record<string, number>} */ ({});
  const look = () => {
    if (document.querySelector('rb-shell .conversation')) times.usable ??= performance.now();
    if (times.usable && document.querySelector('rb-connection:empty')) times.connected ??= performance.now();
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true });
}

/** Loads the page and returns its times. @param {Page} page */
async function load(page) {
  await page.reload();
  await page.waitForFunction(() => {
    const [paint] = performance.getEntriesByName('first-contentful-paint');
    return paint && /** @type {any} */ (globalThis).times.connected;
  });
  return page.evaluate(() => ({
    painted: performance.getEntriesByName('first-contentful-paint')[0].startTime,
    .../** @type {{usable: number, connected: number}} */ (/** @type {any} */ (globalThis).times),
    fetched: performance.getEntriesByType('resource').filter((file) => /** @type {any} */ (file).transferSize > 0).length,
  }));
}

/** Removes the service worker with its files, and what the browser has cached. @param {Person} person */
async function forgetFiles({ page, context }) {
  await page.evaluate(async () => {
    for (const worker of await navigator.serviceWorker.getRegistrations()) await worker.unregister();
    for (const name of await caches.keys()) await caches.delete(name);
  });
  const session = await context.newCDPSession(page);
  await session.send('Network.clearBrowserCache');
  await session.detach();
}

/** @param {number[]} values */
const median = (values) => Math.round(values.sort((a, b) => a - b)[values.length >> 1]);

/** Registers the tests. */
export function speed() {
  test('the page can be used soon, without any file in the browser and with the service worker', async (t) => {
    const ann = await Person.join(place.browser, place.server.url, 'ann speed');
    const { page } = ann;
    await ann.open(`u${ann.id}`);
    await ann.write('a note');
    await page.waitForSelector('.mark.is-sent');
    await ann.context.addInitScript(noteTimes);
    for (const isCold of [true, false]) {
      /** @type {Awaited<ReturnType<typeof load>>[]} */
      const loads = [];
      for (let round = 0; round < ROUNDS; round++) {
        if (isCold) await forgetFiles(ann);
        else await page.evaluate(async () => { await navigator.serviceWorker.ready; });
        loads.push(await load(page));
      }
      const of = (/** @type {'painted' | 'usable' | 'connected' | 'fetched'} */ name) => median(loads.map((one) => one[name]));
      t.diagnostic(`${isCold ? 'cold' : 'with the service worker'}: painted after ${of('painted')} ms, conversations after ${of('usable')} ms, connected after ${of('connected')} ms; ${of('fetched')} files fetched`);
      assert.ok(of('connected') < BOUND);
      assert.equal(of('fetched') > 0, isCold, 'with the service worker, nothing is fetched');
    }
    await ann.leave();
  });
}
