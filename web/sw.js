// The service worker: with it the client opens at once, even without a connection. It has all files
// of one version and serves only these, so a page never mixes versions, even while a cluster is
// upgraded node by node. It takes a new version only after all its files have come; the page
// decides when (`ui/version.js`).
//
// FILES has the beginning of each file's SHA-256. After a change run `npm run stamp` in
// tests/browser; a test compares them.

const FILES = {
  'app.js': 'c810baa299e2f332',
  'icon.svg': '205fa71222c04ca9',
  './': '887c143cd6b7637c',
  'manifest.webmanifest': 'a40b5198e8bb8f26',
  'raybox.js': '35888fc41201ed28',
  'raybox/conversations.js': 'aedcc29a74ecaade',
  'raybox/core.js': 'f9e2226a262e5d36',
  'raybox/engine.js': '0a266a021600b770',
  'raybox/history.js': 'e20b8b28f287f93b',
  'raybox/idb-store.js': '848ea792a782e546',
  'raybox/journal.js': 'd4653db3488814b1',
  'raybox/link.js': '70af553e54562d09',
  'raybox/marks.js': 'ae848b17fb67e6cc',
  'raybox/memory-store.js': '67e61065367f39a1',
  'raybox/names.js': '881442c3382a2322',
  'raybox/outbox.js': 'a92f4d536be1eb96',
  'raybox/ranges.js': 'c365ed9af358c7db',
  'raybox/requests.js': '00baa71548d7b295',
  'raybox/tabs.js': '203294e2cd41071a',
  'raybox/transport.js': '0c1a325e189555d3',
  'raybox/wire.js': '29536677d527fca5',
  'styles/base.css': 'b9729b5efec7b3c9',
  'styles/chat.css': '9601a53ff1dd14ef',
  'styles/dialogs.css': '1e0610a804544b7f',
  'styles/layout.css': 'f907f3fdacbfe6a1',
  'ui/client.js': 'b0091ad9062cf9e9',
  'ui/composer.js': 'e805883718926b0a',
  'ui/connection-bar.js': 'fdf93aeed1a99363',
  'ui/conversation-list.js': 'd6e8e11cdf774ce2',
  'ui/dom.js': '05e28120cfaeda93',
  'ui/drafts.js': 'd4416fefb6ebeed9',
  'ui/forms.js': 'd0bfa82f1fbae922',
  'ui/group-info.js': 'deed438a104bfbbb',
  'ui/i18n.js': 'e8b4c35eaaaba271',
  'ui/links.js': 'ea038029bd6d48a1',
  'ui/login-view.js': '781d4b556762a48b',
  'ui/message-actions.js': '417a65b40b618ba2',
  'ui/message-list.js': '469e1019cb44af97',
  'ui/message-view.js': 'c82c3f123dd4c66c',
  'ui/notices.js': 'e0bd6aa3fd830a9d',
  'ui/notifications.js': '3cb8150e96f5d956',
  'ui/people.js': '18fb64dcf9a4b012',
  'ui/saved.js': 'ee6b896ab04201eb',
  'ui/settings.js': 'ac2bf7f3a6a8d8a3',
  'ui/shell.js': '3d4ce4ef22fb3176',
  'ui/texts-en.js': '68d5bdb1d1099cc1',
  'ui/texts-zh.js': 'a763a6d274b9219f',
  'ui/theme.js': '2a2285b9828af6a1',
  'ui/thread.js': '4b5415df49ea1ca1',
  'ui/user-info.js': 'd13b9a64b1a0ea1f',
  'ui/version.js': '910fe8f1460a6328',
};

const worker = /** @type {any} */ (globalThis);

/** @type {Promise<string> | undefined} */
let named;

/** The name of this version's cache. */
const cacheName = () => (named ??= hash(new TextEncoder().encode(JSON.stringify(FILES))).then((version) => `raybox-${version}`));

worker.addEventListener('install', (/** @type {any} */ event) => event.waitUntil(install()));
worker.addEventListener('activate', (/** @type {any} */ event) => event.waitUntil(activate()));
worker.addEventListener('message', (/** @type {any} */ event) => event.data === 'take over' && worker.skipWaiting());

worker.addEventListener('fetch', (/** @type {any} */ event) => {
  const name = nameOf(event.request);
  if (name !== undefined) event.respondWith(answer(name, event.request));
});

worker.addEventListener('notificationclick', (/** @type {any} */ event) => {
  event.notification.close();
  event.waitUntil(show(event.notification.data));
});

/**
 * Fetches all files. If a file has another version, because another node has answered, the
 * installation fails and is retried later.
 */
async function install() {
  const cache = await caches.open(await cacheName());
  await Promise.all(Object.entries(FILES).map(async ([name, wanted]) => {
    const request = new Request(name, { cache: 'no-cache' });
    const response = await fetch(request);
    const found = response.ok && await hash(await response.clone().arrayBuffer());
    if (found !== wanted) throw new Error(`${name} is of another version`);
    await cache.put(request, response);
  }));
}

/** Deletes the files of other versions. */
async function activate() {
  const own = await cacheName();
  for (const name of await caches.keys()) if (name.startsWith('raybox-') && name !== own) await caches.delete(name);
  await worker.clients.claim();
}

/** The name of the client's file for a request; `undefined` for any other request. @param {Request} request */
function nameOf(request) {
  const scope = worker.registration.scope;
  if (request.method !== 'GET' || !request.url.startsWith(scope)) return undefined;
  const name = request.url.slice(scope.length).replace(/[?#].*$/, '') || './';
  return name in FILES ? name : undefined;
}

/** @param {string} name @param {Request} request @returns {Promise<Response>} */
async function answer(name, request) {
  const cache = await caches.open(await cacheName());
  return (await cache.match(name)) ?? fetch(request);
}

/** Shows a conversation in a window of the client. @param {string} conv */
async function show(conv) {
  const [client] = await worker.clients.matchAll({ type: 'window' });
  if (!client) return worker.clients.openWindow(`./#${conv}`);
  await client.focus();
  return client.navigate(`./#${conv}`);
}

/** The beginning of the SHA-256 of these bytes. @param {BufferSource} bytes */
async function hash(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest.subarray(0, 8), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
