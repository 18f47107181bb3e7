// Three users in browsers and one of level 1, through nginx, on three nodes, one of which is killed. The Rust test
// that runs this starts the nodes, and kills one when the file WEB_SIGNAL appears.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { launch, Person } from '../support/people.js';
import { Nc } from '../support/server.js';
import { until } from '../support/wait.js';

const ADDRESS = process.env.WEB_URL ?? '';
const SIGNAL = process.env.WEB_SIGNAL ?? '';

test('all see the same, everything once, whichever node dies', async () => {
  const browser = await launch();
  try {
    // nginx gives each connection to the node with the fewest, so the users are on several nodes.
    const people = await Promise.all(['ann', 'bob', 'cat'].map((name) => Person.join(browser, ADDRESS, name)));
    const group = await makeGroup(people);
    await Promise.all(people.map((person) => person.open(group)));
    const dan = await join(group);
    dan.nc.say({ ...dan.message, msg: 'dan before' });
    for (const person of people) await person.sees('dan before');
    const each = 20;
    const writing = Promise.all(people.map(async (person) => {
      for (let at = 0; at < each; at++) await person.write(`${person.name} ${at}`);
    }));
    await until('some are there', async () => (await people[0].texts()).length > 10);
    await writeFile(SIGNAL, '');
    await writing;
    for (const person of people) {
      await until(`${person.name} has sent all`, async () => (await person.page.locator('.is-pending').count()) === 0, 60_000);
      await until(`${person.name} has all`, async () => (await person.texts()).length === people.length * each + 1, 60_000);
      assert.deepEqual(person.faults, []);
    }
    const [first, ...others] = await Promise.all(people.map((person) => person.texts()));
    for (const texts of others) assert.deepEqual(texts, first);
    for (const { name } of people) {
      assert.deepEqual(first.filter((text) => text.startsWith(name)), Array.from({ length: each }, (_, at) => `${name} ${at}`));
    }
    // Whether or not dan's node was the killed one: a new connection goes to one that lives.
    dan.nc.close();
    const nc = await logIn(dan.id);
    nc.say({ ...dan.message, msg: 'dan after' });
    for (const person of people) await person.sees('dan after');
    await people[0].write('welcome back');
    const { FROMID, GROUPID } = await nc.hear((frame) => frame.msg === 'welcome back');
    assert.deepEqual([FROMID, `g${GROUPID}`], [people[0].id, group]);
    nc.close();
  } finally {
    await browser.close();
  }
});

/** The first user creates a group, and the others join it. @param {Person[]} people @returns {Promise<string>} the conversation */
async function makeGroup([first, ...others]) {
  await first.page.getByRole('button', { name: 'Find people and groups' }).click();
  await first.page.getByRole('tab', { name: 'New group' }).click();
  await first.page.getByLabel('Name of the group').fill('hikers');
  await first.page.getByRole('button', { name: 'Create' }).click();
  await first.page.waitForSelector('rb-thread[conv^="g"]');
  for (const { page } of others) {
    await page.getByRole('button', { name: 'Find people and groups' }).click();
    await page.getByLabel(/number of a person/).fill('hikers');
    await page.getByRole('button', { name: 'Search', exact: true }).click();
    await page.getByRole('button', { name: 'Join' }).click();
    await page.waitForSelector('rb-thread[conv^="g"]');
  }
  return first.page.evaluate(() => location.hash.slice(1));
}

/** A user of level 1, as with `nc`, who joins the group. @param {string} group */
async function join(group) {
  const nc = new Nc(Number(new URL(ADDRESS).port));
  const id = await nc.join('dan');
  const GROUPID = Number(group.slice(1));
  nc.say({ msgType: 10, FROMID: id, GROUPID });
  await nc.hear((frame) => frame.msgType === 10 && frame.errno === 200);
  return { nc, id, message: { msgType: 9, FROMID: id, GROUPID } };
}

/** @param {number} id */
async function logIn(id) {
  const nc = new Nc(Number(new URL(ADDRESS).port));
  nc.say({ msgType: 1, USERID: id, password: 'secret-dan' });
  await nc.hear((frame) => frame.errno === 200);
  return nc;
}
