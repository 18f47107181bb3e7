// Starts the client: shows the login or the conversations, and keeps language and colours.

import { box, Listening } from './ui/client.js';
import { h } from './ui/dom.js';
import { languageTag } from './ui/i18n.js';
import { closeDialogs, placeNotices } from './ui/notices.js';
import { startNotifications } from './ui/notifications.js';
import { applyTheme } from './ui/theme.js';
import './ui/login-view.js';
import './ui/shell.js';

/** What is shown. @type {'rb-login' | 'rb-shell' | undefined} */
let shown;
/** @type {HTMLElement | undefined} */
let view;

/** @param {boolean} [again] shows it anew, in another language */
function show(again = false) {
  const { state } = box.status;
  if (state === 'starting') return;
  // A user who is logged in sees what is stored here, also without a connection.
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
  .on(document, 'language', () => show(true))
  .on(window, 'online', () => void box.wake())
  .on(window, 'offline', () => void box.wake())
  .on(document, 'visibilitychange', () => document.visibilityState === 'visible' && void box.wake());
startNotifications();
void box.start();
if ('serviceWorker' in navigator) {
  // Without it the client works, but not offline: a browser may not allow it in private windows.
  navigator.serviceWorker.register('sw.js').catch(() => undefined);
}
