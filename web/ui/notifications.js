// Desktop notifications, and the number of unread messages in the title.

import { isChat } from '../raybox.js';
import { box, clip, foundName, Listening, textOf, titleOf } from './client.js';
import { once } from './dom.js';
import { saved } from './saved.js';

/** The key of the conversation that the user is looking at now, in whichever tab. */
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
  // Only the leading tab shows notifications.
  if (!box.leads) return;
  const conv = box.conversations.get(msg.conv);
  const name = await foundName(msg.from, conv);
  const who = conv?.kind === 'group' ? `${name} · ${titleOf(msg.conv)}` : name;
  // Each conversation has one notification. It shows the newest message, and alerts each time.
  const what = { body: clip(textOf(msg.m), 200), tag: msg.conv, icon: 'icon.svg', renotify: true, data: msg.conv };
  try {
    const note = new Notification(who, what);
    note.onclick = () => {
      window.focus();
      location.hash = msg.conv;
      note.close();
    };
  } catch {
    // Some phones allow notifications only from service workers.
    void navigator.serviceWorker?.ready.then((worker) => worker.showNotification(who, what)).catch(() => undefined);
  }
}
