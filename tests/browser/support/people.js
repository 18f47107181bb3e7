// Users with a browser who use the web client as a person does.

import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { PATIENCE, until } from './wait.js';

const CHROMIUM = process.env.RAYBOX_CHROMIUM ?? '/usr/bin/chromium';

/** Options that keep the browser itself from using the network. */
const ARGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

export const launch = () => chromium.launch({ executablePath: CHROMIUM, args: ARGS });

/** @typedef {import('playwright-core').Page} Page */

/** A user with a browser profile of their own. */
export class Person {
  id = 0;
  /** All faults of the pages: exceptions and violations of the content security policy. @type {string[]} */
  faults = [];
  /** @type {Page} */
  page = /** @type {any} */ (undefined);

  /** @param {string} name @param {import('playwright-core').BrowserContext} context @param {string} url */
  constructor(name, context, url) {
    this.name = name;
    this.context = context;
    this.url = url;
  }

  /**
   * Opens the web client and creates an account.
   * @param {import('playwright-core').Browser} browser @param {string} url @param {string} name
   * @param {import('playwright-core').BrowserContextOptions} [options]
   */
  static async join(browser, url, name, options = {}) {
    const person = await Person.come(browser, url, name, options);
    const { page } = person;
    await page.getByRole('button', { name: 'Create account' }).click();
    await page.getByLabel('Name').fill(name);
    await page.getByLabel('Password', { exact: true }).fill(`secret-${name}`);
    await page.getByLabel('Password again').fill(`secret-${name}`);
    await page.getByRole('button', { name: 'Create account' }).click();
    await person.isIn();
    return person;
  }

  /**
   * Opens the web client in a new browser profile.
   * @param {import('playwright-core').Browser} browser @param {string} url @param {string} name
   * @param {import('playwright-core').BrowserContextOptions} [options] @param {(context: import('playwright-core').BrowserContext) => Promise<unknown>} [prepare]
   */
  static async come(browser, url, name, options = {}, prepare = undefined) {
    const context = await browser.newContext({ locale: 'en-GB', viewport: { width: 1180, height: 760 }, reducedMotion: 'reduce', ...options });
    context.setDefaultTimeout(PATIENCE);
    await prepare?.(context);
    const person = new Person(name, context, url);
    person.page = await person.tab();
    return person;
  }

  /** Logs in. @param {string} [password] */
  async logIn(password = `secret-${this.name}`, page = this.page) {
    await page.getByLabel('Name').fill(this.name);
    await page.getByLabel('Password', { exact: true }).fill(password);
    await page.getByRole('button', { name: 'Log in' }).click();
    await this.isIn(page);
  }

  /** Closes the browser; the pages must have had no faults. */
  async leave() {
    assert.deepEqual(this.faults, [], `${this.name}: no exception, no violation of the policy`);
    await this.context.close();
  }

  /** Opens the dialog about people and groups. @param {string} tab */
  async people(tab, page = this.page) {
    await page.getByRole('button', { name: 'People and groups', exact: true }).click();
    await page.getByRole('tab', { name: tab }).click();
  }

  /** Confirms a question. @param {string} name of the button */
  async confirm(name, page = this.page) {
    await page.getByRole('alertdialog').getByRole('button', { name }).click();
  }

  /** Opens the client in a new tab. */
  async tab() {
    const page = await this.context.newPage();
    page.on('pageerror', (error) => this.faults.push(String(error.stack)));
    page.on('console', (message) => {
      if (/content security policy/i.test(message.text())) this.faults.push(message.text());
    });
    await page.goto(this.url);
    return page;
  }

  /** Waits until the user is logged in and connected. */
  async isIn(page = this.page) {
    await page.waitForSelector('rb-shell');
    await page.waitForSelector('rb-connection:empty', { state: 'attached' });
    const text = await page.locator('.self small').textContent();
    this.id = Number(/\d+/.exec(text ?? '')?.[0]);
  }

  /** Opens a conversation. @param {string} conv */
  async open(conv, page = this.page) {
    await page.evaluate((name) => (location.hash = name), conv);
    await page.waitForSelector(`rb-thread[conv="${conv}"] .composer`);
  }

  /** Writes into the open conversation. @param {string} text */
  async write(text, page = this.page) {
    await page.locator('.composer-input').fill(text);
    await page.locator('.composer-input').press('Enter');
  }

  /** The texts of the messages in the page, in order. @returns {Promise<string[]>} */
  texts(page = this.page) {
    return page.locator('.message .message-text').allTextContents();
  }

  /** @param {string} text */
  async sees(text, page = this.page) {
    await until(`${this.name} sees ${text}`, async () => (await this.texts(page)).includes(text));
  }
}
