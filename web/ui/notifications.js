// Notifications of the desktop, and the number of unread messages in the title.

import { isChat } from '../raybox.js';
import { box, clip, foundName, Listening, textOf, titleOf } from './client.js';
import { once } from './dom.js';
import { saved } from './saved.js';

/** The conversation that some tab is showing to its user right now. */
const SEEN = 'raybox-seen';

export const notificationState = () => ('Notification' in window ? Notification.permission : 'denied');

/** Whether the user is looking at this conversation, in this tab. @param {string} conv */
export const isLookingAt = (conv) => document.visibilityState === 'visible' && document.hasFocus() && location.hash.slice(1) === conv;

export function startNotifications() {
  const update = once(() => {
    const unread = [...box.conversations.values()].reduce((sum, conv) => sum + conv.unread, 0);
    document.title = unread > 0 ? `(${unread}) RayBox` : 'RayBox';
  });
  const see = () => {
    if (document.visibilityState === 'visible' && document.hasFocus()) saved.set(SEEN, location.hash.slice(1));
    else if (saved.get(SEEN) === location.hash.slice(1)) saved.set(SEEN, null);
  };
  new Listening()
    .on(box, 'conversations reset', update)
    .on(box, 'message', (msg) => void notify(msg))
    .on(window, 'focus blur hashchange pagehide', see)
    .on(document, 'visibilitychange', see);
  see();
}

/** @param {import('../raybox.js').Message} msg */
async function notify(msg) {
  if (msg.from === box.account.user || !isChat(msg.m, msg.seq) || !msg.m || box.status.state !== 'online') return;
  if (notificationState() !== 'granted' || isLookingAt(msg.conv) || saved.get(SEEN) === msg.conv) return;
  // One tab is enough.
  if (!box.leads) return;
  const conv = box.conversations.get(msg.conv);
  const name = await foundName(msg.from, conv);
  const who = conv?.kind === 'group' ? `${name} · ${titleOf(msg.conv)}` : name;
  // A conversation has one notification, which shows its newest message and is heard each time.
  const what = { body: clip(textOf(msg.m), 200), tag: msg.conv, icon: 'icon.svg', renotify: true, data: msg.conv };
  try {
    const note = new Notification(who, what);
    note.onclick = () => {
      window.focus();
      location.hash = msg.conv;
      note.close();
    };
  } catch {
    // Some phones allow notifications from service workers only.
    void navigator.serviceWorker?.ready.then((worker) => worker.showNotification(who, what)).catch(() => undefined);
  }
}
