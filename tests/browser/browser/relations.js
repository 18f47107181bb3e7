// Friends, requests, blocking, and groups whose members change.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Person } from '../support/people.js';
import { pair, place, two } from '../support/place.js';
import { until } from '../support/wait.js';

/** Creates a group; returns its conversation. @param {Person} person @param {string} name */
async function makeGroup(person, name) {
  await person.people('New group');
  await person.page.getByLabel('Name of the group').fill(name);
  await person.page.getByRole('button', { name: 'Create' }).click();
  await person.page.waitForSelector('rb-thread[conv^="g"]');
  return person.page.evaluate(() => location.hash.slice(1));
}

/** Registers the tests. */
export function relations() {
  test('a request to be friends is found behind other messages, also by a device that is new', async () => {
    const [ann, bob] = await two('r1');
    await bob.open(`u${ann.id}`);
    await bob.page.locator('.head-title').click();
    await bob.page.getByRole('button', { name: 'Add friend' }).click();
    for (const text of ['hello ann', 'I am the one from the station', 'see you']) await bob.write(text);
    await ann.page.getByRole('link', { name: /bob r1.*see you/ }).waitFor();
    const other = await Person.come(place.browser, place.server.url, ann.name);
    await other.logIn();
    for (const one of [ann, other]) {
      await one.people('Requests');
      await one.page.locator('.person', { hasText: 'bob r1' }).waitFor();
    }
    await other.page.getByRole('button', { name: 'Accept' }).click();
    await other.page.getByText('No requests.').waitFor();
    await other.page.getByRole('tab', { name: 'Friends' }).click();
    await other.page.locator('.person', { hasText: 'bob r1' }).waitFor();
    await Promise.all([ann.leave(), bob.leave(), other.leave()]);
  });

  test('who is blocked cannot write, and is told so; afterwards the message can be sent again', async () => {
    const [ann, bob] = await pair('r2');
    await bob.page.locator('.head-title').click();
    await bob.page.getByRole('button', { name: 'Block' }).click();
    await bob.confirm('Block');
    await bob.page.getByRole('button', { name: 'Unblock' }).waitFor();
    await bob.page.keyboard.press('Escape');
    await ann.write('are you there?');
    await ann.page.getByText('This person does not take messages from you.').waitFor();
    assert.deepEqual(await bob.texts(), []);
    await bob.people('Blocked');
    await bob.page.locator('.person', { hasText: 'ann r2' }).getByRole('button', { name: 'Unblock' }).click();
    await bob.page.getByText('Nobody is blocked.').waitFor();
    await bob.page.keyboard.press('Escape');
    await ann.page.getByRole('button', { name: 'Send again' }).click();
    await bob.sees('are you there?');
    await until('it is shown once', async () => (await ann.texts()).length === 1 && (await ann.page.locator('.is-failed').count()) === 0);
    await Promise.all([ann.leave(), bob.leave()]);
  });

  test('the dot shows that somebody is online, and goes when that person logs out', async () => {
    const [ann, bob] = await pair('r4');
    // By default only friends, and members of common groups, see it.
    await bob.page.locator('.head-title').click();
    await bob.page.getByRole('button', { name: 'Add friend' }).click();
    await ann.page.getByRole('button', { name: 'Accept' }).click();
    const row = ann.page.locator('.conversation', { hasText: 'bob r4' });
    const head = ann.page.locator('.head-title');
    const isShown = async (/** @type {boolean} */ isOnline) => {
      await ann.page.getByRole('link', { name: isOnline ? /^online bob r4/ : /^bob r4/ }).waitFor();
      const count = isOnline ? 1 : 0;
      await until('the heading says the same', async () => await head.locator('.online-dot').count() === count && await head.getByText('online', { exact: true }).count() === count);
      assert.equal(await row.locator('.online-dot').count(), count);
    };
    await isShown(true);
    await bob.page.getByRole('button', { name: 'Settings' }).click();
    await bob.page.locator('.dialog').getByRole('button', { name: 'Log out', exact: true }).click();
    await bob.confirm('Log out');
    await bob.page.waitForSelector('rb-login');
    await isShown(false);
    await bob.logIn();
    await isShown(true);
    await Promise.all([ann.leave(), bob.leave()]);
  });

  test('a member is added, leaves and is told of; a group is renamed and dissolved', async () => {
    const [ann, bob] = await two('r3');
    const group = await makeGroup(ann, 'walkers r3');
    await ann.page.locator('.head-title').click();
    await ann.page.getByLabel('Add somebody by number').fill(String(bob.id));
    await ann.page.getByRole('button', { name: 'Add', exact: true }).click();
    await ann.page.locator('.dialog .person', { hasText: 'bob r3' }).waitFor();
    await ann.page.keyboard.press('Escape');
    await bob.page.getByRole('link', { name: /walkers r3/ }).click();
    await bob.page.getByText('ann r3 added bob r3').first().waitFor();
    await bob.write('thank you');
    await ann.sees('thank you');
    await ann.page.locator('.head-title', { hasText: 'Members: 2' }).waitFor();
    await ann.page.locator('.head-title').click();
    await ann.page.getByLabel('Name of the group').fill('ramblers r3');
    await ann.page.getByRole('button', { name: 'Save', exact: true }).click();
    await ann.page.getByText('Saved.').waitFor();
    await ann.page.keyboard.press('Escape');
    for (const { page } of [ann, bob]) {
      await page.locator('.head-title', { hasText: 'ramblers r3' }).waitFor();
      await page.getByRole('link', { name: /ramblers r3/ }).waitFor();
      await page.locator('.event', { hasText: 'ann r3 renamed the group to “ramblers r3”' }).waitFor();
    }
    await bob.page.locator('.head-title').click();
    await bob.page.getByRole('button', { name: 'Leave group' }).click();
    await bob.confirm('Leave group');
    await bob.page.getByText('You are no longer a member.').waitFor();
    await ann.page.locator('.event', { hasText: 'bob r3 left' }).waitFor();
    await ann.page.locator('.head-title', { hasText: 'Members: 1' }).waitFor();
    await bob.page.getByRole('button', { name: 'Delete from this device' }).click();
    await bob.page.waitForSelector('.nothing-open');
    assert.equal(await bob.page.getByRole('link', { name: /ramblers r3/ }).count(), 0);
    await ann.open(group);
    await ann.page.locator('.head-title').click();
    await ann.page.getByRole('button', { name: 'Dissolve group' }).click();
    await ann.confirm('Dissolve group');
    await ann.page.getByText('This group is gone.').waitFor();
    await Promise.all([ann.leave(), bob.leave()]);
  });
}
