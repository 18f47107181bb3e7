// New versions of this client. The service worker has all files of one version, and never mixes
// them with files of another one.

import { box, Listening } from './client.js';
import { h } from './dom.js';
import { button } from './forms.js';
import { t } from './i18n.js';

/** A client that was offline looks for a new version within this time, in milliseconds. */
const LOOK_WITHIN = 60_000;

/** Registers the service worker, and offers each new version. */
export function followVersions() {
  // Some browsers allow no service worker in private windows. The client then works online only.
  if (!('serviceWorker' in navigator)) return;
  const { serviceWorker } = navigator;
  let isControlled = serviceWorker.controller !== null;
  serviceWorker.addEventListener('controllerchange', () => {
    // The tabs of a browser work together, so all of them are reloaded at once.
    if (isControlled) location.reload();
    isControlled = true;
  });
  serviceWorker.register('sw.js').then((registration) => {
    // This page has just been loaded, so loading it again loses nothing.
    if (registration.waiting && isControlled) take(registration.waiting);
    registration.addEventListener('updatefound', () => follow(registration.installing));
    // A version whose installation began before this line is offered, too.
    follow(registration.installing);
    let wasOnline = false;
    new Listening().on(box, 'status', ({ state }) => {
      if (state !== 'online') return;
      // A server that comes back may be newer. It is busy just now, so clients ask a bit later.
      if (wasOnline) setTimeout(() => registration.update().catch(() => undefined), Math.random() * LOOK_WITHIN);
      wasOnline = true;
    });
  }, () => undefined);
}

/** @param {ServiceWorker | null} worker */
function follow(worker) {
  worker?.addEventListener('statechange', () => {
    if (worker.state === 'installed' && navigator.serviceWorker.controller) offer(worker);
  });
}

/** @param {ServiceWorker} worker */
const take = (worker) => worker.postMessage('take over');

/** @param {ServiceWorker} worker */
function offer(worker) {
  document.querySelector('.new-version')?.remove();
  document.body.append(h('div', { class: 'new-version', role: 'status' }, t('newVersion'), button(t('reload'), () => take(worker), 'is-small')));
}
