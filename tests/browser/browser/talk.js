// Users in browsers and a user of level 1 talk to each other.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { place, two } from '../support/place.js';
import { Nc } from '../support/server.js';
import { until } from '../support/wait.js';

/** Registers the tests. */
export function talk() {
  test('two browsers and a user of level 1 talk in all directions', async () => {
    const [ann, bob] = await two('1');
    const nc = new Nc(place.server.port);
    const cat = await nc.join('cat 1');
    // Ann finds Bob by his name.
    await ann.page.getByRole('button', { name: 'Find people and groups' }).click();
    await ann.page.getByLabel(/number of a person/).fill('bob 1');
    await ann.page.getByRole('button', { name: 'Search', exact: true }).click();
    await ann.page.getByRole('button', { name: 'Message', exact: true }).click();
    await ann.write('hello bob');
    await bob.page.getByRole('link', { name: /ann 1/ }).click();
    await bob.sees('hello bob');
    const row = await ann.page.getByRole('link', { name: /bob 1/ }).elementHandle();
    await bob.write('hello ann');
    await ann.sees('hello ann');
    await until('the row is the same element, so that a click on it counts', async () => (await row?.innerText())?.includes('hello ann') && row?.isVisible());
    await ann.page.waitForSelector('.mark.is-read');
    await until('Bob is typing', async () => {
      await bob.page.locator('.composer-input').pressSequentially('x');
      return ann.page.locator('.head-title .typing').isVisible();
    });
    // The same with a user of level 1.
    nc.say({ msgType: 4, FROMID: cat, TOID: ann.id, msg: 'hello from nc' });
    await ann.page.getByRole('link', { name: /cat 1.*1 unread/ }).click();
    await ann.sees('hello from nc');
    await ann.write('hello cat');
    assert.equal((await nc.hear((frame) => frame.msgType === 4)).msg, 'hello cat');
    nc.say({ msgType: 4, FROMID: cat, TOID: bob.id, msg: 'and hello bob' });
    await bob.page.getByRole('link', { name: /cat 1.*1 unread/ }).click();
    await bob.sees('and hello bob');
    await bob.write('hello from bob');
    const { FROMID, msg } = await nc.hear((frame) => frame.msgType === 4);
    assert.deepEqual([FROMID, msg], [bob.id, 'hello from bob']);
    nc.close();
    await Promise.all([ann.leave(), bob.leave()]);
  });

  test('texts stay text, links are harmless, and long and foreign ones are shown', async () => {
    const [ann, bob] = await two('2');
    await Promise.all([ann.open(`u${bob.id}`), bob.open(`u${ann.id}`)]);
    const markup = '<img src=x onerror="document.title=1"><script>document.title=2</script><b>bold</b>';
    const texts = [markup, 'look: https://example.org/a_(b)?c=d. And javascript:alert(1) http://user:pw@example.org/', '👩‍👩‍👧‍👦🎉', 'مرحبا بالعالم', '你好，世界'];
    for (const text of texts) await ann.write(text);
    await ann.write('long '.repeat(12_000));
    await until('bob has all', async () => (await bob.texts()).length === 6);
    assert.deepEqual((await bob.texts()).slice(0, 5), texts);
    const directions = await bob.page.locator('.message-text').evaluateAll((all) => all.map((text) => getComputedStyle(text).direction));
    assert.deepEqual(directions, ['ltr', 'ltr', 'ltr', 'rtl', 'ltr', 'ltr'], 'only the Arabic text runs from right to left');
    assert.equal(await bob.page.locator('.messages img, .messages script, .messages b').count(), 0);
    assert.match(await bob.page.title(), /RayBox/);
    const links = await bob.page.locator('.message-text a').evaluateAll((all) => all.map((link) => [link.getAttribute('href'), link.getAttribute('rel')]));
    assert.deepEqual(links, [['https://example.org/a_(b)?c=d', 'noopener noreferrer nofollow']]);
    await bob.page.getByRole('button', { name: /Show all/ }).click();
    await until('the long text is whole', async () => (await bob.texts())[5].length === 'long '.repeat(12_000).trim().length);
    await bob.page.locator('.composer-input').fill('x'.repeat(70_000));
    await bob.page.locator('.composer-input').press('Enter');
    await bob.page.getByText('The message is too long.').waitFor();
    assert.equal((await bob.page.locator('.composer-input').inputValue()).length, 70_000, 'what was written is still there');
    await Promise.all([ann.leave(), bob.leave()]);
  });

  test('messages are edited and taken back', async () => {
    const [ann, bob] = await two('3');
    await Promise.all([ann.open(`u${bob.id}`), bob.open(`u${ann.id}`)]);
    await ann.write('teh plan');
    await ann.write('oops');
    await bob.sees('oops');
    await ann.page.locator('.message', { hasText: 'teh plan' }).hover();
    await ann.page.getByRole('button', { name: 'Edit', exact: true }).click();
    await ann.write('the plan');
    await bob.sees('the plan');
    await ann.page.locator('.message', { hasText: 'oops' }).hover();
    await ann.page.getByRole('button', { name: 'Take back', exact: true }).click();
    await ann.page.getByRole('alertdialog').getByRole('button', { name: 'Take back' }).click();
    await bob.sees('This message was taken back.');
    assert.deepEqual(await bob.texts(), ['the plan', 'This message was taken back.']);
    await Promise.all([ann.leave(), bob.leave()]);
  });

  test('friends and groups', async () => {
    const [ann, bob] = await two('4');
    await bob.open(`u${ann.id}`);
    await bob.page.locator('.head-title').click();
    await bob.page.getByRole('button', { name: 'Add friend' }).click();
    await ann.page.getByRole('link', { name: /bob 4/ }).click();
    await ann.page.getByRole('button', { name: 'Accept' }).click();
    await bob.page.getByText('ann 4 added you as a friend.').first().waitFor();
    await ann.page.getByRole('button', { name: 'Find people and groups' }).click();
    await ann.page.getByRole('tab', { name: 'New group' }).click();
    await ann.page.getByLabel('Name of the group').fill('hikers 4');
    await ann.page.getByRole('button', { name: 'Create' }).click();
    await ann.page.getByText('ann 4 created the group').first().waitFor();
    await bob.page.getByRole('button', { name: 'Find people and groups' }).click();
    await bob.page.getByLabel(/number of a person/).fill('hikers 4');
    await bob.page.getByRole('button', { name: 'Search', exact: true }).click();
    await bob.page.getByRole('button', { name: 'Join' }).click();
    await bob.page.waitForSelector('rb-thread[conv^="g"]');
    await bob.write('hello all');
    await ann.sees('hello all');
    await ann.page.locator('.head-title').click();
    await ann.page.getByRole('button', { name: 'Remove', exact: true }).click();
    await ann.page.getByRole('alertdialog').getByRole('button', { name: 'Remove' }).click();
    await bob.page.getByText('You are no longer a member.').waitFor();
    await Promise.all([ann.leave(), bob.leave()]);
  });

  test('settings: name, password, devices, colours, language, and the end', async () => {
    const [ann, bob] = await two('5');
    await chooseColours(ann);
    await ann.page.getByRole('button', { name: 'Settings' }).click();
    await ann.page.getByLabel('Name', { exact: true }).fill('anna 5');
    await ann.page.getByRole('button', { name: 'Change name' }).click();
    await ann.page.locator('.self', { hasText: 'anna 5' }).waitFor();
    await ann.page.getByLabel('Present password').fill('secret-ann 5');
    await ann.page.getByLabel('New password').fill('secret');
    await ann.page.getByLabel('Password again').fill('secret');
    await ann.page.getByRole('button', { name: 'Change password' }).click();
    await ann.page.getByText('Password changed.').waitFor();
    assert.match(await ann.page.locator('.dialog').innerText(), /web-chrome-linux-[0-9a-f]{12}\s+this device/);
    await ann.page.getByLabel('Language').selectOption('zh');
    await ann.page.getByRole('button', { name: '设置' }).click();
    assert.equal(await ann.page.evaluate(() => document.documentElement.lang), 'zh-CN');
    await ann.page.getByRole('button', { name: '退出登录' }).click();
    await ann.page.getByRole('alertdialog').getByRole('button', { name: '退出登录' }).click();
    await ann.page.getByLabel('用户名').fill('anna 5');
    await ann.page.getByLabel('密码').fill('wrong');
    await ann.page.getByRole('button', { name: '登录' }).click();
    await ann.page.getByText('用户名或密码错误。').waitFor();
    await ann.page.getByLabel('密码').fill('secret');
    await ann.page.getByRole('button', { name: '登录' }).click();
    await ann.page.waitForSelector('rb-shell');
    await Promise.all([ann.leave(), bob.leave()]);
  });
}

/** Chooses each kind of colours while the system has the other one. @param {import('../support/people.js').Person} person */
async function chooseColours({ page }) {
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.emulateMedia({ colorScheme: 'light' });
  const light = await background();
  await page.emulateMedia({ colorScheme: 'dark' });
  const dark = await background();
  assert.notEqual(light, dark, 'without a choice, the colours are those of the system');
  for (const { choice, system, shown } of /** @type {const} */ ([
    { choice: 'light', system: 'dark', shown: light }, { choice: 'dark', system: 'light', shown: dark }, { choice: 'system', system: 'light', shown: light },
  ])) {
    await page.emulateMedia({ colorScheme: system });
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByLabel('Colours').selectOption(choice);
    assert.equal(await background(), shown, choice);
    await page.reload();
    await page.waitForSelector('rb-shell');
    assert.equal(await background(), shown, `${choice}, after the page was loaded again`);
  }
}
