// The status page of the admin port: without a fault, and after another node of the list was
// killed.

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { seriousFaults } from './looks.js';
import { place } from '../support/place.js';
import { Nc, Server } from '../support/server.js';
import { until } from '../support/wait.js';

/** @typedef {import('playwright-core').Page} Page */

/** Registers the tests. */
export function status() {
  test('the status page says that all is well, and what is wrong while a node is away', async () => {
    const [here, there] = await Promise.all([freeAddress(), freeAddress()]);
    const options = ['--admin-nodes', `${here},${there}`];
    const first = await Server.start('--admin', here, '--node-name', 'north', ...options);
    const second = await Server.start('--admin', there, '--node-name', 'south', ...options);
    const context = await place.browser.newContext({ locale: 'en-GB', viewport: { width: 360, height: 740 }, colorScheme: 'dark', reducedMotion: 'reduce' });
    try {
      const page = await context.newPage();
      const faults = watch(page, here);
      await page.goto(`http://${here}/`);
      await shows(page, 'All is well.');
      // Each node is shown once, although it is in both lists.
      await until('both nodes are shown', async () => (await names(page)).join() === 'north,south');
      const nc = new Nc(first.port);
      await nc.join('ann');
      await until('the user is counted', async () => (await page.locator('.node').first().textContent())?.includes('Users1'));
      assert.equal(await page.getByRole('img', { name: /^Messages: now .*, at most .* in the last [\d.]+ (ms|s|min)$/ }).count(), 1);
      await fits(page);
      assert.deepEqual(await seriousFaults(page), []);
      await second.kill();
      await shows(page, 'One thing is wrong.');
      const finding = page.locator('.finding.is-page');
      assert.match(await finding.textContent() ?? '', /^Nowsouth \(127\.0\.0\.1:\d+\) does not answer: .*The process has ended or hangs.*\.$/);
      assert.equal(await page.locator('.state.is-bad').textContent(), 'no answer');
      await fits(page);
      assert.deepEqual(await seriousFaults(page), [], 'with a finding, in dark colours');
      await page.emulateMedia({ colorScheme: 'light' });
      assert.deepEqual(await seriousFaults(page), [], 'in light colours');
      await second.launch();
      await shows(page, 'All is well.');
      nc.close();
      await first.kill();
      await until('the page says that nobody answers', async () => /^No answer since/.test(await page.locator('#away').textContent() ?? ''));
      assert.match(await page.locator('#verdict').textContent() ?? '', /^Not known: no answer since /);
      assert.equal(await page.getByText('All is well.').count(), 0, 'nobody knows');
      assert.deepEqual(await seriousFaults(page), [], 'while nobody answers');
      await first.launch();
      await page.locator('#away').waitFor({ state: 'hidden', timeout: 60_000 });
      assert.doesNotMatch(await page.locator('#verdict').textContent() ?? '', /^Not known/);
      assert.deepEqual(faults, []);
    } finally {
      await context.close();
      await Promise.all([first.stop(), second.stop()]);
    }
  });

  test('the status page looks right with an hour to show', async () => {
    const here = await freeAddress();
    const server = await Server.start('--admin', here, '--node-name', 'chat1');
    const context = await place.browser.newContext({ locale: 'en-GB', viewport: { width: 390, height: 1238 }, colorScheme: 'dark', reducedMotion: 'reduce' });
    try {
      const page = await context.newPage();
      const faults = watch(page, here);
      // The test does not wait for an hour: it makes up numbers in the form of the server's.
      await page.route('**/status.json', async (route) => {
        const answer = await route.fetch();
        await route.fulfill({ response: answer, json: anHour(await answer.json()) });
      });
      await page.goto(`http://${here}/`);
      await shows(page, 'One thing is wrong.');
      await fits(page);
      assert.deepEqual(await seriousFaults(page), []);
      await page.setViewportSize({ width: 1180, height: 900 });
      await fits(page);
      assert.deepEqual(faults, []);
    } finally {
      await context.close();
      await server.stop();
    }
  });
}

/**
 * The faults of the page from now on: exceptions, violations of the content security policy, and
 * requests to other hosts.
 * @param {Page} page
 * @param {string} host
 */
function watch(page, host) {
  /** @type {string[]} */
  const faults = [];
  page.on('pageerror', (error) => faults.push(String(error.stack)));
  page.on('console', (message) => {
    if (/content security policy/i.test(message.text())) faults.push(message.text());
  });
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (url.protocol !== 'data:' && url.host !== host) faults.push(request.url());
  });
  return faults;
}

/** @param {Page} page @param {string} verdict */
const shows = (page, verdict) => until(`the page says: ${verdict}`, async () => (await page.locator('#verdict').textContent()) === verdict);

/** The names of the nodes. @param {Page} page @returns {Promise<string[]>} */
const names = (page) => page.locator('.node h3').evaluateAll((titles) => titles.map((title) => title.firstChild?.textContent ?? ''));

/** @param {Page} page */
async function fits(page) {
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, 'nothing is cut off');
}

/** A free address on this machine. @returns {Promise<string>} */
function freeAddress() {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
      server.close(() => resolve(`127.0.0.1:${port}`));
    });
  });
}

/** A status with three nodes, one of which is unreachable, and with the series of an hour. @param {any} picture */
function anHour(picture) {
  const { findings, nodes: [own], trend } = picture;
  const series = trend.series.map((/** @type {any} */ one) => ({ ...one, values: values(one.name, trend.samples) }));
  const last = (/** @type {string} */ name) => series.find((/** @type {any} */ one) => one.name === name).values.at(-1);
  const pools = [{ name: 'mysql', open: 16, idle: 13, max: 64 }, { name: 'redis', open: 4, idle: 3, max: 16 }];
  const node = {
    ...own.node, pools, uptime_seconds: 777_600, probe_seconds: 0.31, users: last('users'), messages_per_second: last('messages'),
    lane_items: last('waiting'), cpu: last('cpu'), memory_bytes: last('memory'),
  };
  const second = { ...node, name: 'chat2', users: node.users - 291, messages_per_second: 2411, probe_seconds: 0.12, cpu: 0.71, memory_bytes: 398e6, lane_items: 33 };
  const nodes = [
    { ...own, node },
    { address: '10.0.0.2:9600', trouble: null, seconds_ago: 2, node: second },
    { address: '10.0.0.3:9600', trouble: 'connection refused', seconds_ago: 74, node: { ...second, name: 'chat3' } },
  ];
  const down = {
    alert: 'ServerDown', severity: 'page', what: `chat3 (10.0.0.3:9600) does not answer: ${nodes[2].trouble}`,
    action: 'The process has ended or hangs, or its machine is down. Clients connect to the other servers. Look at the server\'s log. '
      + 'After an upgrade that changes tables, the first start may take minutes.',
  };
  return { findings: [down, ...findings], nodes, trend: { ...trend, series } };
}

/** The series of an hour. At its end another node dies, and its clients come to this one. @param {string} name @param {number} samples */
function values(name, samples) {
  /** @type {Record<string, [number, number]>} The usual number, and how much it grows at the end. */
  const usual = {
    users: [12_160, 1.5], connections: [12_410, 1.5], messages: [1905, 1.5], level2_sends: [1480, 1.5], logins: [3.1, 95],
    failed_logins: [0.2, 3], turn_time: [0.00062, 2.4], busiest_loop: [0.21, 1.7], waiting: [14, 3], cpu: [0.49, 1.5], memory: [298e6, 1.38],
    refusals: [0, 0], slow_consumers: [0, 0], spool: [0, 0],
  };
  const [level, growth] = usual[name] ?? [0, 1];
  const steady = ['users', 'connections', 'memory'].includes(name);
  let random = name.length;
  return Array.from({ length: samples }, (_, nth) => {
    random = (random * 16_807) % 2_147_483_647;
    const noise = steady ? 1 : 0.82 + (0.36 * random) / 2_147_483_647;
    const since = nth - (samples - 24);
    const jump = ['logins', 'failed_logins'].includes(name) ? Math.exp(-Math.max(since, 0) / 5) : 1 - Math.exp(-Math.max(since, 0) / 3);
    const grown = since < 0 ? 1 : 1 + (growth - 1) * jump;
    const number = level * (0.9 + 0.1 * Math.sin(nth / 55)) * noise * grown;
    return level > 10 ? Math.round(number) : number;
  });
}
