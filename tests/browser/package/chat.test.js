// Two users with browsers talk on the server at WEB_URL, with accounts that its operator has made. The
// operator looks at the status page at STATUS_URL meanwhile.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { launch, Person } from '../support/people.js';
import { until } from '../support/wait.js';

test('two users with browsers talk on a server that was installed from a package, and its operator sees them', async () => {
  const { WEB_URL: url, STATUS_URL: status } = process.env;
  assert(url && status, 'WEB_URL and STATUS_URL name the server');
  const browser = await launch();
  try {
    const operator = await browser.newPage();
    await operator.goto(status);
    await until('the page says that all is well', async () => (await operator.locator('#verdict').textContent()) === 'All is well.');
    const [carol, dave] = await Promise.all(['carol', 'dave'].map((name) => Person.come(browser, url, name)));
    await Promise.all([carol.logIn(), dave.logIn()]);
    await until('both are counted', async () => (await operator.locator('.node').textContent())?.includes('Users2'));
    await Promise.all([carol.open(`u${dave.id}`), dave.open(`u${carol.id}`)]);
    await carol.write('hello from a package');
    await dave.sees('hello from a package');
    await dave.write('hello to a package');
    await carol.sees('hello to a package');
    await Promise.all([carol.leave(), dave.leave()]);
  } finally {
    await browser.close();
  }
});
