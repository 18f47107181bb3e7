// Friends, search for people and groups, requests, blocked users, and new groups.

import { partnerOf } from '../raybox.js';
import { avatar, box, friend, titleOf } from './client.js';
import { fill, h } from './dom.js';
import { button, field, form, submitButton } from './forms.js';
import { t } from './i18n.js';
import { attempt, openDialog } from './notices.js';

/** @typedef {'find' | 'friends' | 'requests' | 'blocked' | 'newGroup'} Tab */

/** @param {Tab} first the part that is shown at first */
export function openPeople(first) {
  openDialog(t('people'), (close) => {
    const panel = h('div', { class: 'panel', role: 'tabpanel', id: 'people-panel' });
    /** @type {[Tab, import('./i18n.js').Key][]} */
    const tabs = [['find', 'findTab'], ['friends', 'friends'], ['requests', 'requests'], ['blocked', 'blocked'], ['newGroup', 'newGroup']];
    const list = h('div', { class: 'tabs', role: 'tablist' });
    const choose = (/** @type {Tab} */ tab, isUser = true) => {
      for (const one of list.children) {
        one.setAttribute('aria-selected', String(one.dataset.tab === tab));
        one.tabIndex = one.dataset.tab === tab ? 0 : -1;
      }
      if (isUser) list.querySelector('[aria-selected="true"]').focus();
      panel.setAttribute('aria-labelledby', `tab-${tab}`);
      show[tab](panel, close);
    };
    for (const [tab, key] of tabs) {
      list.append(h('button', { type: 'button', role: 'tab', id: `tab-${tab}`, 'data-tab': tab, 'aria-controls': 'people-panel', onclick: () => choose(tab) }, t(key)));
    }
    list.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const at = tabs.findIndex(([tab]) => list.querySelector('[aria-selected="true"]')?.dataset.tab === tab);
      if (step) choose(tabs[(at + step + tabs.length) % tabs.length][0]);
    });
    queueMicrotask(() => choose(first, false));
    return [list, panel];
  });
}

/** @type {Record<Tab, (panel: HTMLElement, close: () => void) => void>} */
const show = { find: showFind, friends: showFriends, requests: showRequests, blocked: showBlocked, newGroup: showNewGroup };

/** Opens a conversation. @param {string} conv @param {() => void} close */
function go(conv, close) {
  close();
  location.hash = conv;
}

/**
 * @param {string} conv
 * @param {string} name
 * @param {string} more
 * @param {...(Node | false)} buttons
 */
function row(conv, name, more, ...buttons) {
  return h('li', { class: 'person' }, avatar(conv, name),
    h('span', { class: 'person-lines' }, h('bdi', {}, name), h('small', { class: 'quiet', dir: 'auto' }, more)), h('span', { class: 'buttons' }, buttons));
}

/** @param {string} text */
const nothing = (text) => h('li', { class: 'empty quiet' }, text);

/** @param {HTMLElement} panel @param {() => void} close */
function showFind(panel, close) {
  const words = field(t('searchLabel'), { type: 'search', required: true, maxlength: 50 }, t('searchHint', { id: box.account.user ?? '' }));
  const list = h('ul', { class: 'people', 'aria-live': 'polite' });
  const find = () => attempt(async () => {
    const found = await box.search(words.input.value.trim());
    fill(list, found.length === 0 ? nothing(t('nothingFound')) : found.slice(0, 100).map((one) => (one.isGroup ? groupRow(one, close) : userRow(one, close))));
  });
  fill(panel, form(find, h('div', { class: 'field-row' }, words.field, submitButton(t('search')))), list);
  words.input.focus();
}

/** @param {{id: number, name: string}} user @param {() => void} close */
function userRow({ id, name }, close) {
  const isSelf = id === box.account.user;
  const ask = async () => {
    if (await attempt(() => box.requestFriend(id), t('requestSent'))) go(`u${id}`, close);
  };
  return row(`u${id}`, name, t('number', { id }),
    button(t('message'), () => go(`u${id}`, close), 'is-small'),
    !isSelf && !friend(id) && button(t('addFriend'), () => void ask(), 'is-small is-main'));
}

/** @param {{id: number, name: string, desc?: string}} group @param {() => void} close */
function groupRow({ id, name, desc }, close) {
  const conv = box.conversations.get(`g${id}`);
  const isMember = conv !== undefined && !conv.closed;
  const join = async () => {
    if (await attempt(() => box.joinGroup(id))) go(`g${id}`, close);
  };
  return row(`g${id}`, name, desc || t('number', { id }),
    isMember ? button(t('open'), () => go(`g${id}`, close), 'is-small') : button(t('join'), () => void join(), 'is-small is-main'));
}

/** @param {HTMLElement} panel @param {() => void} close */
function showFriends(panel, close) {
  const list = h('ul', { class: 'people' });
  const render = () => {
    const friends = box.account.friends ?? [];
    fill(list, friends.length === 0 ? nothing(t('noFriends')) : friends.map(({ id, name }) =>
      row(`u${id}`, name, t(box.online.get(id) ? 'isOnline' : 'isOffline'),
        button(t('message'), () => go(`u${id}`, close), 'is-small'),
        button(t('removeFriend'), () => void attempt(() => box.removeFriend(id)).then(render), 'is-small'))));
  };
  fill(panel, list);
  render();
  if (box.status.state === 'online') void attempt(() => box.contacts()).then(render);
}

/** @param {HTMLElement} panel @param {() => void} close */
function showRequests(panel, close) {
  const list = h('ul', { class: 'people' });
  /** @type {Set<number>} */
  let blocked = new Set();
  const accept = async (/** @type {string} */ conv) => {
    if (await attempt(() => box.addFriend(partnerOf(conv)), t('friendAdded'))) render();
  };
  const render = () => {
    const asked = strangers().filter((conv) => conv.asked && !blocked.has(partnerOf(conv.conv)));
    fill(list, asked.length === 0 ? nothing(t('noRequests')) : asked.map(({ conv }) =>
      row(conv, titleOf(conv), t('number', { id: partnerOf(conv) }),
        button(t('message'), () => go(conv, close), 'is-small'), button(t('accept'), () => void accept(conv), 'is-small is-main'))));
  };
  fill(panel, list);
  render();
  if (box.status.state !== 'online') return;
  box.blocked().then((all) => {
    blocked = new Set(all.map(({ id }) => id));
    render();
  }, () => undefined);
  void lookForRequests(() => list.isConnected && render());
}

/** The conversations with users who are not friends. */
const strangers = () => [...box.conversations.values()].filter(({ conv, closed }) => {
  const user = partnerOf(conv);
  return user > 0 && user !== box.account.user && !closed && !friend(user);
});

/** Conversations that were searched for requests. @type {Set<string>} */
const searched = new Set();

/**
 * Looks for requests in the history: a request is a message that this device may not have read.
 * @param {() => void} found
 */
async function lookForRequests(found) {
  const recent = strangers().sort((a, b) => b.time - a.time).slice(0, 50);
  for (const { conv, asked } of recent) {
    if (asked || searched.has(conv)) continue;
    searched.add(conv);
    await box.history(conv, { limit: 200 }).then(found, () => searched.delete(conv));
  }
}

/** @param {HTMLElement} panel */
function showBlocked(panel) {
  const list = h('ul', { class: 'people' });
  fill(panel, list);
  const render = () => attempt(async () => {
    const blocked = await box.blocked();
    fill(list, blocked.length === 0 ? nothing(t('nobodyBlocked')) : blocked.map(({ id, name }) =>
      row(`u${id}`, name ?? t('deletedUser'), t('number', { id }),
        button(t('unblock'), () => void attempt(() => box.block(id, false), t('isUnblocked')).then(render), 'is-small'))));
  });
  void render();
}

/** @param {HTMLElement} panel @param {() => void} close */
function showNewGroup(panel, close) {
  const name = field(t('groupName'), { required: true, maxlength: 50 });
  const description = field(t('description'), { maxlength: 200 });
  const create = () => attempt(async () => {
    const id = await box.createGroup(name.input.value.trim(), description.input.value.trim());
    go(`g${id}`, close);
  });
  fill(panel, form(create, name.field, description.field, submitButton(t('create'))));
}
