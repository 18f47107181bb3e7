// What the users of all tests share: one browser, and a server that no test stops.

import { launch, Person } from './people.js';
import { Server } from './server.js';

export const place = {
  /** @type {Server} */
  server: /** @type {any} */ (undefined),
  /** @type {import('playwright-core').Browser} */
  browser: /** @type {any} */ (undefined),
};

export async function open() {
  [place.server, place.browser] = await Promise.all([Server.start(), launch()]);
}

export async function close() {
  await Promise.all([place.browser?.close(), place.server?.stop()]);
}

/** Two users of one test alone. @param {string} suffix @param {string} [url] */
export function two(suffix, url = place.server.url) {
  return Promise.all([Person.join(place.browser, url, `ann ${suffix}`), Person.join(place.browser, url, `bob ${suffix}`)]);
}

/** Two users who are looking at their conversation. @param {string} suffix @param {string} [url] */
export async function pair(suffix, url = undefined) {
  const [ann, bob] = await two(suffix, url);
  await Promise.all([ann.open(`u${bob.id}`), bob.open(`u${ann.id}`)]);
  return [ann, bob];
}

/** Runs a test with a server of its own. @param {(server: Server) => Promise<void>} run @param {...string} options */
export async function withServer(run, ...options) {
  const server = await Server.start(...options);
  try {
    await run(server);
  } finally {
    await server.stop();
  }
}
