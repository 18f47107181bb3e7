// Two users with browsers talk on the server at WEB_URL.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { launch, Person } from '../support/people.js';

test('two users with browsers talk on a server that was installed from a package', async () => {
  const url = process.env.WEB_URL;
  assert(url, 'WEB_URL names the server');
  const browser = await launch();
  try {
    const [ann, bob] = await Promise.all(['ann', 'bob in a browser'].map((name) => Person.join(browser, url, name)));
    await Promise.all([ann.open(`u${bob.id}`), bob.open(`u${ann.id}`)]);
    await ann.write('hello from a package');
    await bob.sees('hello from a package');
    await bob.write('hello to a package');
    await ann.sees('hello to a package');
    await Promise.all([ann.leave(), bob.leave()]);
  } finally {
    await browser.close();
  }
});
