// A new version of the client, and a server whose database was restored.

import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MemoryStore, RayBox } from '../../../web/raybox.js';
import { Person } from '../support/people.js';
import { pair, place, withServer } from '../support/place.js';
import { stamp } from '../support/stamp.js';
import { until } from '../support/wait.js';

const WEB = fileURLToPath(new URL('../../../web', import.meta.url));

/** @type {Record<string, string>} */
const TYPES = { '.js': 'text/javascript', '.css': 'text/css', '.html': 'text/html', '.svg': 'image/svg+xml', '.webmanifest': 'application/json' };

/** Serves the files of a folder like a server. @param {string} folder */
async function serve(folder) {
  const server = createServer(async (request, response) => {
    const path = request.url === '/' ? '/index.html' : String(request.url);
    try {
      const bytes = await readFile(join(folder, path));
      response.writeHead(200, { 'Content-Type': TYPES[extname(path)], 'Cache-Control': 'no-cache' }).end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return { url: `http://127.0.0.1:${port}/`, close: () => server.close() };
}

/** Registers the tests. */
export function versions() {
  test('a page has files of one version, also in the middle of an upgrade, and takes the new one as a whole', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'raybox-web-files-'));
    await cp(WEB, folder, { recursive: true });
    const files = await serve(folder);
    const change = async (/** @type {string} */ name, /** @type {string} */ from, /** @type {string} */ to) => {
      const text = await readFile(join(folder, name), 'utf8');
      await writeFile(join(folder, name), text.replace(from, to));
    };
    const ann = await Person.come(place.browser, files.url, 'ann');
    const { page } = ann;
    try {
      await page.getByText('Chat with the people of this server.').waitFor();
      await page.evaluate(() => navigator.serviceWorker.ready.then(() => undefined));
      await page.reload();
      assert.equal(await page.evaluate(() => navigator.serviceWorker.controller !== null), true);
      // Another node is newer: the page gets its service worker, but one file still comes from the
      // old node.
      const old = await readFile(join(folder, 'ui/texts-en.js'));
      await change('ui/texts-en.js', 'Chat with the people of this server.', 'Newer than before.');
      await change('ui/login-view.js', "h('h1', {}, 'RayBox')", "h('h1', {}, 'New RayBox')");
      stamp(folder);
      await writeFile(join(folder, 'ui/texts-en.js'), old);
      const failed = await page.evaluate(async () => {
        const registration = await navigator.serviceWorker.ready;
        await registration.update().catch(() => undefined);
        const worker = registration.installing ?? registration.waiting;
        if (!worker) return 'none';
        return new Promise((resolve) => {
          const look = () => ['installed', 'activated', 'redundant'].includes(worker.state) && resolve(worker.state);
          worker.addEventListener('statechange', look);
          look();
        });
      });
      assert.equal(failed, 'redundant');
      await page.reload();
      await page.getByText('Chat with the people of this server.').waitFor();
      await page.getByRole('heading', { name: 'RayBox', exact: true }).waitFor();
      // Now all nodes are new.
      await change('ui/texts-en.js', 'Chat with the people of this server.', 'Newer than before.');
      // The browser itself looks for a new version some time after a page is loaded. If it has
      // found this version before the page was ready, the page takes it at once. If it is looking
      // just now, the test's own request may join that look, which fails.
      const [offer, taken] = [page.getByRole('button', { name: 'Load it' }), page.getByText('Newer than before.')];
      const look = () => page.evaluate(() => navigator.serviceWorker.ready.then((registration) => registration.update()).then(() => undefined));
      let isThere = false;
      for (const by = Date.now() + 100_000; !isThere && Date.now() < by;) {
        await look().catch(() => undefined);
        isThere = await offer.or(taken).first().waitFor({ timeout: 2000 }).then(() => true, () => false);
      }
      assert.ok(isThere, 'the new version is offered or taken');
      if (!await taken.isVisible()) await offer.click();
      await taken.waitFor();
      await page.getByRole('heading', { name: 'New RayBox', exact: true }).waitFor();
      assert.equal((await page.evaluate(() => caches.keys())).length, 1);
      await ann.leave();
    } finally {
      files.close();
      await rm(folder, { recursive: true });
    }
  });

  test('after a restored database the page shows what the server has, not what was there before', () => withServer(async (server) => {
    const [ann, bob] = await pair('v2', server.url);
    await ann.write('one');
    await bob.sees('one');
    await server.kill();
    await server.save('then');
    await server.launch();
    await ann.write('lost');
    await bob.sees('lost');
    await bob.page.locator('.is-pending').waitFor({ state: 'detached' });
    await server.kill();
    await server.restore('then');
    // Before the two come back, another device writes a message that gets the same number.
    const { port } = server;
    server.port = 0;
    await server.launch();
    const other = new RayBox({ url: `tcp://127.0.0.1:${server.port}`, store: new MemoryStore() });
    await other.start();
    await other.login({ name: ann.name, password: `secret-${ann.name}` });
    await other.send(`u${bob.id}`, 'two');
    await until('it is committed', () => other.conversations.get(`u${bob.id}`)?.last?.m?.msg === 'two');
    other.stop();
    await server.kill();
    server.port = port;
    await server.launch();
    for (const person of [ann, bob]) {
      await until('the page shows what the server has', async () => (await person.texts()).join() === 'one,two');
    }
    await Promise.all([ann.leave(), bob.leave()]);
  }));
}
