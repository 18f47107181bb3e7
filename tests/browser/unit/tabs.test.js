// Several tabs, which share one connection, without a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RayBoxError } from '../../../web/raybox.js';
import { tabsOf, withLocks } from '../support/tabs.js';
import { until } from '../support/wait.js';

test('when the tab with the connection is closed, no call of the others waits for ever', async (t) => {
  withLocks(t);
  const tab = tabsOf(t, t.name);
  const [first, second, third] = [tab(), tab(), tab()];
  for (const one of [first, second, third]) {
    await one.hub.start();
    await until('it has started', () => one.snapshots > 0);
  }
  assert.deepEqual([first.hub.leads, second.hub.leads, third.hub.leads], [true, false, false]);
  // This call is not answered: there is no server, and the first tab is closed.
  const waiting = third.hub.call('login', [{ name: 'ann', password: 'secret' }]);
  waiting.catch(() => undefined);
  const repeated = third.hub.call('watch', [[1]]);
  first.hub.stop();
  await assert.rejects(waiting, (error) => error instanceof RayBoxError && error.errno === 0);
  await repeated;
  assert.deepEqual([second.hub.leads, third.hub.leads], [true, false]);
});

test('a call that comes before there is a leader is made once, by whoever leads', async (t) => {
  withLocks(t);
  const tab = tabsOf(t, t.name);
  const [first, second] = [tab(), tab()];
  const early = second.hub.call('learn', ['u2', { name: 'bob' }]);
  await Promise.all([first.hub.start(), second.hub.start()]);
  await early;
});

test('a tab that is asleep loses the connection to one that is awake', async (t) => {
  withLocks(t);
  const tab = tabsOf(t, t.name);
  const name = t.name;
  let isStolen = false;
  // This tab holds the lock and answers nothing.
  navigator.locks.request(name, {}, () => new Promise(() => {})).catch(() => (isStolen = true));
  const second = tab();
  await second.hub.start();
  await until('it has taken the lock', () => second.hub.leads);
  assert.equal(isStolen, true);
  // When it is awake again, it does not lead any more.
  const third = tab();
  await third.hub.start();
  await until('it has heard of the leader', () => third.snapshots > 0);
  await third.hub.call('watch', [[1]]);
  assert.equal(third.hub.leads, false);
});

test('a browser that refuses locks is no reason not to work', async (t) => {
  withLocks(t, { request: () => Promise.reject(new DOMException('no storage', 'SecurityError')) });
  const one = tabsOf(t, t.name)();
  await one.hub.start();
  await until('it has started', () => one.snapshots > 0);
  await one.hub.call('watch', [[1]]);
});
