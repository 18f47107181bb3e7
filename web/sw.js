// The service worker: the client opens at once, and without a connection. It has all files of one version and serves
// nothing else, so a page never mixes versions, even while a cluster is upgraded node by node. A new version is taken when
// all of its files are here; the page decides when (`ui/version.js`).
//
// FILES has the beginning of each file's SHA-256. After a change: `npm run stamp` in tests/browser; a test compares them.

const FILES = {
  'app.js': '083ea735bf228240',
  'icon.svg': '205fa71222c04ca9',
  './': '887c143cd6b7637c',
  'manifest.webmanifest': 'a40b5198e8bb8f26',
  'raybox.js': 'a22fba854b27deb9',
  'raybox/conversations.js': 'dddfb8c39bde99dd',
  'raybox/core.js': '11e039fd636f5328',
  'raybox/engine.js': '1127ddda121cf59e',
  'raybox/history.js': '755eece91b45bbd7',
  'raybox/idb-store.js': '69a4749ae29e2c5f',
  'raybox/journal.js': '83f4a2516772f53b',
  'raybox/link.js': '8dbf42fc8634973f',
  'raybox/marks.js': '80b5546d925a9b35',
  'raybox/memory-store.js': 'c1d0c73b787cdcaa',
  'raybox/names.js': '6cae939a49dbf106',
  'raybox/outbox.js': '37adc93ca23cbc29',
  'raybox/ranges.js': '2f3de69822deaf56',
  'raybox/requests.js': '1e9519be11088300',
  'raybox/tabs.js': '4b02224175f750b7',
  'raybox/transport.js': '3be68ed1b4467728',
  'raybox/wire.js': '705dd51a6f9a681d',
  'styles/base.css': '781ece78d522a8fe',
  'styles/chat.css': '00d9768ffc88daf9',
  'styles/dialogs.css': '7aa10a59bdc0ccf5',
  'styles/layout.css': 'f0538958070dda55',
  'ui/client.js': '9bb5297fe9c2f3b4',
  'ui/composer.js': '103ac0b2df844592',
  'ui/connection-bar.js': 'b37997c3de48f737',
  'ui/conversation-list.js': 'aee9fcaff3abc99e',
  'ui/dom.js': 'ef3d1eb9bd2e8b63',
  'ui/drafts.js': 'd252040ba9bda88b',
  'ui/forms.js': '3d39b760d7429e35',
  'ui/group-info.js': '25c93de1b8e672fa',
  'ui/i18n.js': '6f647f02ac815fca',
  'ui/links.js': '1d96b967a5937ee6',
  'ui/login-view.js': '6847bacf379f5a36',
  'ui/message-actions.js': '460b9ff4e224966c',
  'ui/message-list.js': '4c9795319c49284e',
  'ui/message-view.js': 'e91bf4cb8e438f58',
  'ui/notices.js': '9a224184288f8732',
  'ui/notifications.js': '48b6f409c905cbfe',
  'ui/people.js': 'ebe42a2afc9ec795',
  'ui/saved.js': 'a3aa73820aaf2df9',
  'ui/settings.js': 'efb54cbf1f975a6f',
  'ui/shell.js': 'a298cdc2fcd7ae70',
  'ui/texts-en.js': '68d5bdb1d1099cc1',
  'ui/texts-zh.js': 'dde5e724e59f3167',
  'ui/theme.js': '6556fc7712c0882a',
  'ui/thread.js': 'a0ed1929922af787',
  'ui/user-info.js': '2c4ae0d8636bac48',
  'ui/version.js': '68c732c8d547c0bf',
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

/** Fetches all files. One that is not of this version, because another node has answered, ends it: it is tried again later. */
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

/** The files of other versions are of no use any more. */
async function activate() {
  const own = await cacheName();
  for (const name of await caches.keys()) if (name.startsWith('raybox-') && name !== own) await caches.delete(name);
  await worker.clients.claim();
}

/** The name of a file of the client, `undefined` for anything else. @param {Request} request */
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
