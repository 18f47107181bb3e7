// Notifications of the desktop, and the number of unread messages in the title.

import { isChat } from '../raybox.js';
import { box, Listening, personName, textOf, titleOf } from './client.js';
import { once } from './dom.js';

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
    if (document.visibilityState === 'visible' && document.hasFocus()) localStorage.setItem(SEEN, location.hash.slice(1));
    else if (localStorage.getItem(SEEN) === location.hash.slice(1)) localStorage.removeItem(SEEN);
  };
  new Listening()
    .on(box, 'conversations reset', update)
    .on(box, 'message', notify)
    .on(window, 'focus blur hashchange pagehide', see)
    .on(document, 'visibilitychange', see);
  see();
}

/** @param {import('../raybox.js').Message} msg */
function notify(msg) {
  if (msg.from === box.account.user || !isChat(msg.m, msg.seq) || !msg.m || box.status.state !== 'online') return;
  if (notificationState() !== 'granted' || isLookingAt(msg.conv) || localStorage.getItem(SEEN) === msg.conv) return;
  const conv = box.conversations.get(msg.conv);
  const who = conv?.kind === 'group' ? `${personName(msg.from, conv)} · ${titleOf(msg.conv)}` : titleOf(msg.conv);
  try {
    // The tag makes one notification of it, however many tabs are open.
    const note = new Notification(who, { body: textOf(msg.m).slice(0, 200), tag: msg.conv, icon: 'icon.svg' });
    note.onclick = () => {
      window.focus();
      location.hash = msg.conv;
      note.close();
    };
  } catch {
    // Some phones allow notifications from service workers only.
  }
}
