// Starts the client: shows the login or the conversations, and keeps language and colours.

import { box, Listening } from './ui/client.js';
import { h } from './ui/dom.js';
import { dropDrafts } from './ui/drafts.js';
import { languageTag } from './ui/i18n.js';
import { closeDialogs, placeNotices } from './ui/notices.js';
import { startNotifications } from './ui/notifications.js';
import { applyTheme } from './ui/theme.js';
import './ui/login-view.js';
import './ui/shell.js';
import { followVersions } from './ui/version.js';

/** The element that is shown. @type {'rb-login' | 'rb-shell' | undefined} */
let shown;
/** @type {HTMLElement | undefined} */
let view;

/** @param {boolean} [again] draws everything anew, for another language */
function show(again = false) {
  const { state } = box.status;
  if (state === 'starting') return;
  // A logged-in user sees the stored conversations even without a connection.
  const wanted = box.account.user !== undefined && state !== 'signedOut' ? 'rb-shell' : 'rb-login';
  if (wanted === shown && !again) return;
  if (wanted === 'rb-login') closeDialogs();
  shown = wanted;
  document.documentElement.lang = languageTag();
  const next = h(wanted);
  if (view) view.replaceWith(next);
  else document.body.prepend(next);
  view = next;
}

applyTheme();
placeNotices();
new Listening()
  .on(box, 'status account', () => show())
  .on(box, 'status', ({ state }) => state === 'signedOut' && box.account.user === undefined && dropDrafts())
  .on(document, 'language', () => show(true))
  .on(window, 'online offline', look)
  .on(document, 'visibilitychange', () => document.visibilityState === 'visible' && look());
startNotifications();
void box.start();
followVersions();

/**
 * Checks whether the connection is still alive. A wait that the server has asked for is not cut
 * short.
 */
function look() {
  void box.wake({ isPatient: true });
}

/** A timer that is this late shows that the machine has slept, in milliseconds. */
const ASLEEP = 100_000;

let lastTick = Date.now();
setInterval(() => {
  const isWaking = Date.now() - lastTick > ASLEEP;
  lastTick = Date.now();
  // After a sleep the browser does not know yet that its connections are gone.
  if (isWaking) look();
}, 10_000);
