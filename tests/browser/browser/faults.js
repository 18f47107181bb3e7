// Faults: a server that is killed, a missing connection, and several tabs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pair, withServer } from '../support/place.js';
import { until } from '../support/wait.js';

/** @param {import('../support/people.js').Person} person */
const nothingPending = (person) => until('nothing is pending', async () => (await person.page.locator('.is-pending').count()) === 0);

/** Registers the tests. */
export function faults() {
  test('killed and restarted while both send: both show the same, everything once, in order', () => withServer(async (server) => {
    const [ann, bob] = await pair('1', server.url);
    const each = 40;
    const writing = Promise.all([ann, bob].map(async (person) => {
      for (let at = 0; at < each; at++) await person.write(`${person.name} ${at}`);
    }));
    for (let kills = 0; kills < 2; kills++) {
      await until('some are there', async () => (await ann.texts()).length > kills * 20 + 10);
      await server.kill();
      await server.launch();
    }
    await writing;
    await Promise.all([ann, bob].map(nothingPending));
    await until('all are there', async () => (await ann.texts()).length === 2 * each && (await bob.texts()).length === 2 * each);
    const [hers, his] = await Promise.all([ann.texts(), bob.texts()]);
    assert.deepEqual(hers, his);
    for (const { name } of [ann, bob]) {
      assert.deepEqual(hers.filter((text) => text.startsWith(name)), Array.from({ length: each }, (_, at) => `${name} ${at}`));
    }
    await Promise.all([ann.leave(), bob.leave()]);
  }));

  test('without a server the client opens, shows what it has, and sends what was written later', () => withServer(async (server) => {
    const [ann, bob] = await pair('2', server.url);
    await ann.write('before');
    await bob.sees('before');
    await ann.page.evaluate(() => navigator.serviceWorker.ready.then(() => undefined));
    await server.kill();
    await ann.page.reload();
    await ann.sees('before');
    await ann.page.getByText('Offline.').waitFor();
    await ann.write('written offline');
    await ann.page.waitForSelector('.is-pending');
    await ann.page.reload();
    await ann.sees('written offline');
    await server.launch();
    await ann.page.getByRole('button', { name: 'Try now' }).click({ timeout: 2000 }).catch(() => undefined);
    await nothingPending(ann);
    await bob.sees('written offline');
    assert.deepEqual(await bob.texts(), ['before', 'written offline']);
    await Promise.all([ann.leave(), bob.leave()]);
  }));

  test('two tabs share one connection, and the second goes on when the first is closed', async () => {
    const [ann, bob] = await pair('f3');
    const second = await ann.tab();
    await ann.isIn(second);
    await ann.open(`u${bob.id}`, second);
    await ann.write('from the second tab', second);
    await ann.sees('from the second tab');
    await bob.sees('from the second tab');
    await bob.write('to both');
    await Promise.all([ann.sees('to both'), ann.sees('to both', second)]);
    await second.getByRole('button', { name: 'Settings' }).click();
    await second.locator('.dialog .person').first().waitFor();
    assert.equal(await second.locator('.dialog .person', { hasText: 'web-' }).count(), 1, 'one device');
    await second.keyboard.press('Escape');
    assert.equal(await ann.page.getByText('connected somewhere else').count(), 0);
    await ann.page.close();
    await bob.write('to the one that is left');
    await ann.sees('to the one that is left', second);
    await ann.write('still here', second);
    await bob.sees('still here');
    await Promise.all([ann.leave(), bob.leave()]);
  });
}
