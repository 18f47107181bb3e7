// The service worker: the client opens without a connection. Files come from the server whenever it answers, so all of
// them are of one version; when it does not answer in time, they come from the cache.

const CACHE = 'raybox-files';

/** Every file of the client. A test compares this list with the folder. */
const FILES = [
  './', 'app.js', 'icon.svg', 'manifest.webmanifest', 'raybox.js',
  'raybox/conversations.js', 'raybox/core.js', 'raybox/engine.js', 'raybox/history.js', 'raybox/idb-store.js', 'raybox/journal.js',
  'raybox/link.js', 'raybox/marks.js', 'raybox/memory-store.js', 'raybox/names.js', 'raybox/outbox.js',
  'raybox/ranges.js', 'raybox/requests.js', 'raybox/tabs.js', 'raybox/transport.js', 'raybox/wire.js',
  'styles/base.css', 'styles/chat.css', 'styles/dialogs.css', 'styles/layout.css',
  'ui/client.js', 'ui/composer.js', 'ui/connection-bar.js', 'ui/conversation-list.js', 'ui/dom.js', 'ui/forms.js',
  'ui/group-info.js', 'ui/i18n.js', 'ui/links.js', 'ui/login-view.js', 'ui/message-actions.js', 'ui/message-list.js',
  'ui/message-view.js', 'ui/notices.js', 'ui/notifications.js', 'ui/people.js', 'ui/settings.js', 'ui/shell.js',
  'ui/texts-en.js', 'ui/texts-zh.js', 'ui/theme.js', 'ui/thread.js', 'ui/user-info.js',
];

/** How long the server may take before a stored file is used, in milliseconds. */
const PATIENCE = 3000;

const worker = /** @type {any} */ (globalThis);

worker.addEventListener('install', (/** @type {any} */ event) => {
  event.waitUntil(
    caches.open(CACHE).then((cache) => cache.addAll(FILES.map((file) => new Request(file, { cache: 'no-cache' }))))
      .then(() => worker.skipWaiting()),
  );
});

worker.addEventListener('activate', (/** @type {any} */ event) => event.waitUntil(worker.clients.claim()));

worker.addEventListener('fetch', (/** @type {any} */ event) => {
  const { request } = event;
  if (request.method === 'GET' && new URL(request.url).origin === location.origin) event.respondWith(answer(request));
});

/** @param {Request} request @returns {Promise<Response>} */
async function answer(request) {
  const stored = await caches.match(request, { ignoreSearch: true });
  const fresh = fetch(request).then(async (response) => {
    if (response.ok) await (await caches.open(CACHE)).put(request, response.clone());
    return response;
  });
  if (!stored) return fresh;
  const late = new Promise((resolve) => setTimeout(resolve, PATIENCE)).then(() => stored);
  return Promise.race([fresh.catch(() => stored), late]);
}
