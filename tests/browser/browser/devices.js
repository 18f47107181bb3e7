// Devices, the end of an account, receipts, notifications, browsers that store nothing, and TLS.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { promisify } from 'node:util';
import { Person } from '../support/people.js';
import { pair, place, two, withServer } from '../support/place.js';
import { until } from '../support/wait.js';

/** Runs in the page: notes notifications instead of showing them. */
function noteNotifications() {
  const all = /** @type {any} */ (globalThis);
  all.shown = [];
  all.Notification = class {
    static permission = 'granted';

    /** @param {string} title @param {any} options */
    constructor(title, { body, tag, renotify }) {
      all.shown.push([title, body, tag, renotify]);
    }

    close() {}
  };
}

/** The notifications that a page has shown. @param {import('playwright-core').Page} page @returns {Promise<any[]>} */
const shown = (page) => page.evaluate(() => /** @type {any} */ (globalThis).shown);

/** Runs in the page: makes a browser that cannot store anything, as if all cookies were blocked. */
function storeNothing() {
  const refuse = () => {
    throw new DOMException('access is denied', 'SecurityError');
  };
  for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, { get: refuse });
  IDBFactory.prototype.open = refuse;
  LockManager.prototype.request = () => Promise.reject(new DOMException('access is denied', 'SecurityError'));
  ServiceWorkerContainer.prototype.register = () => Promise.reject(new DOMException('access is denied', 'SecurityError'));
}

/** Registers the tests. */
export function devices() {
  test('a device is logged out by another one, and says so; what was written there is for its user only', async () => {
    const [ann, bob] = await two('d1');
    const other = await Person.come(place.browser, place.server.url, ann.name);
    await other.logIn();
    await other.open(`u${bob.id}`);
    await other.page.locator('.composer-input').fill('a secret draft');
    await other.page.reload();
    await other.page.waitForSelector('rb-thread .composer');
    assert.equal(await other.page.locator('.composer-input').inputValue(), 'a secret draft', 'it stays when the page is loaded again');
    const device = await other.page.evaluate(() => new Promise((resolve) => {
      indexedDB.open('raybox').onsuccess = (event) => {
        const request = /** @type {any} */ (event.target).result.transaction('meta').objectStore('meta').get('account');
        request.onsuccess = () => resolve(request.result.device);
      };
    }));
    await ann.page.getByRole('button', { name: 'Settings' }).click();
    await ann.page.locator('.dialog .person', { hasText: String(device) }).getByRole('button', { name: 'Log out' }).click();
    await ann.confirm('Log out');
    await other.page.getByText('This device was logged out.').waitFor();
    await ann.page.locator('.dialog .person', { hasText: 'this device' }).waitFor();
    // Now another user uses that browser.
    other.name = bob.name;
    await other.logIn();
    await other.open(`u${bob.id}`);
    assert.equal(await other.page.locator('.composer-input').inputValue(), '');
    await Promise.all([ann.leave(), bob.leave(), other.leave()]);
  });

  test('an account is deleted: its user is out, others keep the messages and see that it is gone', async () => {
    const [ann, bob] = await pair('d2');
    await ann.write('good bye');
    await bob.sees('good bye');
    await ann.page.getByRole('button', { name: 'Settings' }).click();
    await ann.page.locator('summary', { hasText: 'Delete account' }).click();
    const form = ann.page.locator('details');
    await form.getByLabel('Password').fill('wrong');
    await form.getByRole('button', { name: 'Delete account' }).click();
    await ann.confirm('Delete account');
    // An error of a dialog is shown inside the dialog.
    await ann.page.locator('dialog .toast', { hasText: 'wrong' }).waitFor();
    await form.getByLabel('Password').fill('secret-ann d2');
    await form.getByRole('button', { name: 'Delete account' }).click();
    await ann.confirm('Delete account');
    await ann.page.getByText('The account is deleted.').waitFor();
    await bob.write('are you there?');
    await bob.page.getByText('This person does not exist.').waitFor();
    await bob.page.reload();
    await bob.page.locator('.head-title', { hasText: 'Deleted user' }).waitFor();
    await bob.sees('good bye');
    await Promise.all([ann.leave(), bob.leave()]);
  });

  test('without receipts nobody sees how far the other one has read', async () => {
    const [ann, bob] = await pair('d3');
    await ann.write('one');
    await ann.page.locator('.mark.is-read').waitFor();
    await bob.page.getByRole('button', { name: 'Settings' }).click();
    const receipts = bob.page.getByLabel('Show others how far I have read');
    await until('the setting is known', () => receipts.isEnabled());
    await receipts.uncheck();
    await bob.page.getByText('Saved.').waitFor();
    await bob.page.keyboard.press('Escape');
    await ann.write('two');
    await bob.sees('two');
    await bob.write('three');
    await ann.sees('three');
    await bob.sees('three');
    assert.equal(await ann.page.locator('.message', { hasText: 'two' }).locator('.mark.is-sent').count(), 1);
    assert.equal(await bob.page.locator('.message', { hasText: 'three' }).locator('.mark.is-sent').count(), 1, 'and the other way round');
    await Promise.all([ann.leave(), bob.leave()]);
  });

  test('a message is notified once, whatever tabs are open, and not where it is looked at', async () => {
    const [ann, bob] = await two('d4');
    await ann.context.addInitScript(noteNotifications);
    await ann.page.reload();
    await ann.isIn();
    const second = await ann.tab();
    await ann.isIn(second);
    const all = async () => [...await shown(ann.page), ...await shown(second)];
    await bob.open(`u${ann.id}`);
    await bob.write('first');
    await until('it is notified', async () => (await all()).length > 0);
    await bob.write('second');
    await until('that too', async () => (await all()).length > 1);
    assert.deepEqual(await all(), ['first', 'second'].map((text) => ['bob d4', text, `u${bob.id}`, true]));
    await ann.page.waitForFunction(() => document.title.startsWith('(2)'));
    await ann.open(`u${bob.id}`);
    await bob.write('seen at once');
    await ann.sees('seen at once');
    await ann.page.waitForFunction(() => document.title === 'RayBox');
    assert.equal((await all()).length, 2);
    await Promise.all([ann.leave(), bob.leave()]);
  });

  test('a browser that may store nothing says so, and works', async () => {
    const [bob, ann] = await Promise.all([
      Person.join(place.browser, place.server.url, 'bob d5'),
      Person.come(place.browser, place.server.url, 'ann d5', {}, (context) => context.addInitScript(storeNothing)),
    ]);
    const { page } = ann;
    await page.getByRole('button', { name: 'Create account' }).click();
    await page.getByLabel('Name').fill(ann.name);
    await page.getByLabel('Password', { exact: true }).fill('secret');
    await page.getByLabel('Password again').fill('secret');
    await page.getByRole('button', { name: 'Create account' }).click();
    await page.getByText('This browser cannot store anything').waitFor();
    await ann.open(`u${bob.id}`);
    await ann.write('hello');
    await bob.page.getByRole('link', { name: /ann d5/ }).click();
    await bob.sees('hello');
    await Promise.all([ann.leave(), bob.leave()]);
  });

  test('people talk over TLS', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'raybox-web-tls-'));
    const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
    try {
      await promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
        '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert]);
      await withServer(async (server) => {
        const url = server.url.replace('http:', 'https:');
        const [ann, bob] = await Promise.all(['ann', 'bob'].map((name) => Person.join(place.browser, url, name, { ignoreHTTPSErrors: true })));
        await Promise.all([ann.open(`u${bob.id}`), bob.open(`u${ann.id}`)]);
        await ann.write('nobody listens');
        await bob.sees('nobody listens');
        await bob.write('I do');
        await ann.sees('I do');
        assert.equal(await ann.page.evaluate(() => location.protocol), 'https:');
        await Promise.all([ann.leave(), bob.leave()]);
      }, '--tls-cert', cert, '--tls-key', key);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
}
