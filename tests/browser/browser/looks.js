// A long history, small screens, accessibility, and the pictures of the README.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MemoryStore, RayBox } from '../../../web/raybox.js';
import { Person } from '../support/people.js';
import { place, withServer } from '../support/place.js';
import { Nc } from '../support/server.js';
import { until } from '../support/wait.js';

/** Registers the tests. */
export function looks() {
  test('a conversation of 5,000 messages scrolls from its end to its beginning', async (t) => {
    const ann = await Person.join(place.browser, place.server.url, 'ann long');
    const nc = new Nc(place.server.port);
    const bob = await nc.join('bob long');
    nc.close();
    const sender = new Nc(place.server.port);
    sender.say({ msgType: 1, name: 'bob long', password: 'secret-bob long', level: 2, device: 'd' });
    await sender.hear((frame) => frame.msgType === 45);
    for (let at = 1; at <= 5000; at++) sender.say({ msgType: 4, FROMID: bob, TOID: ann.id, cid: `c${at}`, msg: `number ${at}` });
    await until('all are acknowledged', () => sender.heard.filter((frame) => frame.msgType === 41).length === 5000);
    sender.close();
    const { page } = ann;
    await page.getByRole('link', { name: /5000|999\+/ }).click();
    // The conversation opens at the first unread message, which is the very first one. From its end
    // the test scrolls back.
    await ann.sees('number 1');
    assert.equal(await page.locator('.new-line').count(), 1);
    await page.getByRole('button', { name: 'To the latest message' }).click();
    await ann.sees('number 5000');
    const started = Date.now();
    const { seen, most, holes } = await page.locator('.scroller').evaluate(scrollUp);
    t.diagnostic(`scrolled through 5,000 messages in ${Date.now() - started} ms`);
    assert.deepEqual(holes, []);
    assert.equal(seen, 5000);
    assert.ok(most <= 300, `${most} messages were in the page`);
    await ann.leave();
  });

  test('it looks right: light, dark, on a phone, and for a screen reader', () => withServer(async (server) => {
    const ann = await Person.join(place.browser, server.url, 'Ann', { timezoneId: 'UTC' });
    const { page } = ann;
    assert.deepEqual(await seriousFaults(page), []);
    const friends = await talkTo(ann, server);
    await page.getByRole('link', { name: /Hikers/ }).click();
    await ann.sees('Bring water, it will be hot.');
    await ann.write('I will bring cake as well.');
    await page.waitForSelector('.mark.is-sent');
    await page.getByRole('link', { name: /^online Bob/ }).click();
    await ann.sees('🏔️🥾');
    await ann.write('Yes! See you at the station.');
    await ann.write('I will bring cake.');
    await until('both are delivered', async () => (await page.locator('.mark.is-delivered').count()) === 2);
    await friends[0].markRead(`u${ann.id}`, Number(friends[0].conversations.get(`u${ann.id}`)?.seq));
    await until('both are read', async () => (await page.locator('.mark.is-read').count()) === 2);
    await page.mouse.move(600, 600);
    for (const scheme of /** @type {const} */ (['light', 'dark'])) {
      await page.emulateMedia({ colorScheme: scheme });
      assert.deepEqual(await seriousFaults(page), [], scheme);
      await picture(ann, `web-${scheme}`);
    }
    await page.emulateMedia({ colorScheme: 'light' });
    for (const name of ['Find people and groups', 'Settings']) {
      await page.getByRole('button', { name, exact: true }).click();
      await page.waitForSelector('.dialog');
      assert.deepEqual(await seriousFaults(page), [], name);
      await page.keyboard.press('Escape');
      await page.waitForSelector('.dialog', { state: 'detached' });
    }
    await phone(ann);
    for (const friend of friends) friend.stop();
    await page.getByRole('link', { name: /^Bob/ }).waitFor();
    await ann.leave();
  }));
}

/**
 * Runs in the page: scrolls up until the first message is there.
 * @param {Element} scroller
 */
async function scrollUp(scroller) {
  /** @type {Set<number>} */
  const seen = new Set();
  /** @type {number[]} */
  const holes = [];
  let most = 0;
  while (!seen.has(1)) {
    scroller.scrollTop = 0;
    await new Promise((resolve) => requestAnimationFrame(resolve));
    const numbers = [...scroller.querySelectorAll('.message-text')].map((text) => Number(text.textContent?.slice(7)));
    numbers.forEach((number, at) => {
      if (at > 0 && number !== numbers[at - 1] + 1) holes.push(number);
      seen.add(number);
    });
    most = Math.max(most, numbers.length);
  }
  return { seen: seen.size, most, holes };
}

/** The serious faults that axe-core finds in the page. @param {import('playwright-core').Page} page */
export async function seriousFaults(page) {
  const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  // The debugger adds the script, because the content security policy does not apply to it.
  await page.evaluate(axe);
  const found = await page.evaluate(() => /** @type {any} */ (globalThis).axe.run(document, { resultTypes: ['violations'] }));
  return found.violations
    .filter((/** @type {any} */ fault) => fault.impact === 'serious' || fault.impact === 'critical')
    .map((/** @type {any} */ fault) => `${fault.id}: ${fault.nodes.map((/** @type {any} */ node) => `${node.html} ${node.failureSummary}`).join('\n')}`);
}

/** Writes a picture into docs/img if that is requested. @param {{ page: import('playwright-core').Page }} person @param {string} name */
export async function picture(person, name) {
  const folder = process.env.RAYBOX_PICTURES;
  const path = folder && fileURLToPath(new URL(`${name}.png`, `file://${folder}/`));
  const bytes = await person.page.screenshot({ path: path || undefined, animations: 'disabled', caret: 'hide' });
  assert.ok(bytes.length < 150_000, `${name} has ${bytes.length} bytes`);
}

/** @param {Person} ann */
async function phone(ann) {
  const { page } = ann;
  await page.setViewportSize({ width: 390, height: 780 });
  const isWide = () => page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  assert.equal(await isWide(), false, 'nothing is cut off in a conversation');
  assert.deepEqual(await seriousFaults(page), [], 'on a phone');
  await picture(ann, 'web-phone');
  await page.getByRole('button', { name: 'Back to the list' }).click();
  assert.equal(await page.locator('.side').isVisible(), true);
  assert.equal(await page.locator('.main').isVisible(), false);
  assert.equal(await isWide(), false, 'nor in the list');
  await page.getByRole('button', { name: 'Settings' }).click();
  assert.equal(await isWide(), false, 'nor in a dialog');
  await page.keyboard.press('Escape');
}

/** Makes friends who have written to Ann; the first one is Bob. @param {Person} ann @param {import('../support/server.js').Server} server @returns {Promise<RayBox[]>} */
async function talkTo(ann, server) {
  const friends = await Promise.all(['Bob', '林美', 'Dana'].map(async (name) => {
    const box = new RayBox({ url: `tcp://127.0.0.1:${server.port}`, store: new MemoryStore() });
    await box.start();
    await box.register({ name, password: 'secret' });
    await until('online', () => box.status.state === 'online');
    return box;
  }));
  const [bob, mei, dana] = friends;
  const conv = `u${ann.id}`;
  await mei.send(conv, '早上好！今天下午有空吗？');
  await dana.send(conv, 'The train leaves at 7:32 🚆');
  const group = await dana.createGroup('Hikers', 'every Sunday');
  await bob.joinGroup(group);
  await ann.page.getByRole('button', { name: 'Find people and groups' }).click();
  await ann.page.getByLabel(/number of a person/).fill('Hikers');
  await ann.page.getByRole('button', { name: 'Search', exact: true }).click();
  await ann.page.getByRole('button', { name: 'Join' }).click();
  await ann.page.waitForSelector('rb-thread[conv^="g"]');
  await until('Ann is a member', () => bob.conversations.get(`g${group}`)?.last?.m?.USERID === ann.id);
  await dana.send(`g${group}`, 'Welcome, Ann!');
  await until('in order', () => bob.conversations.get(`g${group}`)?.last?.m?.msg === 'Welcome, Ann!');
  await bob.send(`g${group}`, 'Great that you are here.');
  await bob.send(`g${group}`, 'Bring water, it will be hot.');
  const texts = [
    'Hi Ann! Are you coming on Sunday?', 'We meet at eight: https://example.org/hikers',
    'The path goes along the river, up to the old mill and back through the woods. It is 14 km, so take good shoes.', '🏔️🥾',
  ];
  for (const text of texts) await bob.send(conv, text);
  await ann.page.getByRole('link', { name: /^online Bob/ }).waitFor();
  return friends;
}
