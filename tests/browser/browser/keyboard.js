// A user without a mouse, and one who listens to a screen reader.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { two } from '../support/place.js';
import { until } from '../support/wait.js';

/** @typedef {import('../support/people.js').Person} Person */
/** @typedef {import('playwright-core').Page} Page */

/** Names of what has the focus: its label, or its text. @param {Page} page @returns {Promise<string>} */
const focused = (page) => page.evaluate(() => {
  const { activeElement } = document;
  return activeElement === document.body ? '' : activeElement?.getAttribute('aria-label') ?? activeElement?.textContent ?? '';
});

/** Presses a key until something with this name has the focus. @param {Page} page @param {RegExp} name @param {string} key */
async function walk(page, name, key = 'Tab') {
  /** @type {string[]} */
  const seen = [];
  while (seen.length < 30) {
    await page.keyboard.press(key);
    seen.push(await focused(page));
    if (name.test(seen[seen.length - 1])) return seen;
  }
  throw new Error(`${key} does not lead to ${name}: ${seen.join(' | ')}`);
}

/** The text that screen readers were told to speak. @param {Person} person */
const spoken = ({ page }) => page.locator('body > [aria-live="polite"]').allInnerTexts();

/** Registers the tests. */
export function keyboard() {
  test('a message is found, written, edited and read aloud by keyboard alone', async () => {
    const [ann, bob] = await two('k1');
    await bob.open(`u${ann.id}`);
    for (const text of ['one', 'two', 'three']) await bob.write(text);
    const { page } = ann;
    await page.getByRole('link', { name: /bob k1.*three.*3 unread/ }).waitFor();
    // From the top of the page: the three buttons, the filter, the list.
    assert.deepEqual((await walk(page, /bob k1/)).slice(0, 4), ['Find people and groups', 'People and groups', 'Settings', 'Search conversations']);
    await page.keyboard.press('Enter');
    await ann.sees('three');
    await until('the field for writing has the focus', async () => (await focused(page)) === 'Write a message');
    await page.keyboard.type('by keyboard');
    await page.keyboard.press('Enter');
    await bob.sees('by keyboard');
    await page.waitForSelector('.mark.is-read');
    assert.equal(await page.locator('.composer-input').inputValue(), '');

    // Backwards into the messages, from one to the next with the arrows, and to the actions of one.
    await walk(page, /^Messages$/, 'Shift+Tab');
    const texts = [];
    for (const key of ['ArrowUp', 'ArrowUp', 'ArrowUp', 'ArrowDown', 'ArrowDown']) {
      await page.keyboard.press(key);
      texts.push(await page.evaluate(() => document.activeElement?.querySelector('.message-text')?.textContent));
    }
    assert.deepEqual(texts, ['by keyboard', 'three', 'two', 'three', 'by keyboard']);
    await walk(page, /^Edit$/);
    await page.keyboard.press('Enter');
    await until('the field has the text', async () => (await focused(page)) === 'Write a message' && (await page.locator('.composer-input').inputValue()) === 'by keyboard');
    await page.keyboard.press('Escape');
    assert.equal(await page.locator('.composer-input').inputValue(), '', 'Escape ends the edit');
    await page.keyboard.press('ArrowUp');
    await page.keyboard.press('End');
    await page.keyboard.type('!');
    await page.keyboard.press('Enter');
    await bob.sees('by keyboard!');

    // Dialogs: the focus goes in, along the tabs, and back to the button.
    await walk(page, /^People and groups$/, 'Shift+Tab');
    await page.keyboard.press('Enter');
    await page.waitForSelector('dialog[open]');
    await walk(page, /^Friends$/);
    await page.keyboard.press('ArrowRight');
    assert.equal(await focused(page), 'Requests');
    await page.getByText('No requests.').waitFor();
    await page.keyboard.press('ArrowLeft');
    assert.equal(await focused(page), 'Friends');
    await page.keyboard.press('Escape');
    await page.waitForSelector('dialog', { state: 'detached' });
    assert.equal(await focused(page), 'People and groups', 'the focus is back where it was');

    await bob.write('can you hear me?');
    await until('it is spoken', async () => (await spoken(ann)).join().includes('bob k1: can you hear me?'));
    assert.ok(!(await spoken(ann)).join().includes('by keyboard'), 'own messages are not');
    await Promise.all([ann.leave(), bob.leave()]);
  });
}
