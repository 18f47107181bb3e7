// The settings: account, devices, notifications, language and colours.

import { box, waitingCount } from './client.js';
import { fill, h } from './dom.js';
import { button, field, form, submitButton } from './forms.js';
import { currentLanguage, errorText, setLanguage, shortTime, t } from './i18n.js';
import { attempt, confirmed, openDialog, toast } from './notices.js';
import { notificationState } from './notifications.js';
import { currentTheme, setTheme } from './theme.js';

export function openSettings() {
  openDialog(t('settings'), (close) => [h('div', { class: 'sections' }, profile(), appearance(close), notifications(), devices(), password(), account(close))]);
}

/** @param {string} title @param {...(Node | false)} children */
const section = (title, ...children) => h('section', {}, h('h3', {}, title), children);

function profile() {
  const name = field(t('name'), { required: true, maxlength: 50, value: box.account.name });
  const receipts = h('input', { type: 'checkbox', disabled: true });
  box.profile().then((own) => {
    receipts.checked = own.receipts;
    receipts.disabled = false;
  }, () => undefined);
  receipts.addEventListener('change', () => void attempt(() => box.profile({ receipts: receipts.checked }), t('saved')));
  const save = () => attempt(() => box.profile({ name: name.input.value.trim() }), t('saved'));
  return section(t('profile'),
    h('p', {}, t('yourNumber'), ': ', h('strong', { class: 'number' }, box.account.user), h('br'), h('small', { class: 'quiet' }, t('numberHint'))),
    form(save, h('div', { class: 'field-row' }, name.field, submitButton(t('changeName')))),
    h('label', { class: 'check' }, receipts, t('receipts')));
}

/** @param {() => void} close */
function appearance(close) {
  const language = choice(t('language'), [['en', 'English'], ['zh', '中文']], currentLanguage(), (value) => {
    setLanguage(value);
    close();
    document.dispatchEvent(new Event('language'));
  });
  const theme = choice(t('theme'), [['system', t('system')], ['light', t('light')], ['dark', t('dark')]], currentTheme(), (value) => setTheme(/** @type {any} */ (value)));
  return section(t('appearance'), h('div', { class: 'field-row' }, language, theme));
}

/**
 * @param {string} label
 * @param {[string, string][]} options
 * @param {string} chosen
 * @param {(value: string) => void} choose
 */
function choice(label, options, chosen, choose) {
  const select = h('select', { class: 'input' }, options.map(([value, text]) => h('option', { value, selected: value === chosen }, text)));
  select.addEventListener('change', () => choose(select.value));
  return h('label', { class: 'field' }, label, select);
}

function notifications() {
  const place = h('div');
  const render = () => {
    const state = notificationState();
    if (state === 'granted') fill(place, h('p', { class: 'quiet' }, t('notificationsOn')));
    else if (state === 'denied') fill(place, h('p', { class: 'quiet' }, t('notificationsBlocked')));
    else fill(place, button(t('enableNotifications'), () => void Notification.requestPermission().then(render)));
  };
  render();
  return section(t('notifications'), place);
}

function devices() {
  const list = h('ul', { class: 'people' });
  const show = async (/** @type {string | undefined} */ revoke = undefined) => {
    try {
      const all = await box.devices(revoke);
      fill(list, all.sort((a, b) => b.seen - a.seen).map((one) => deviceRow(one, show)));
    } catch (error) {
      fill(list, h('li', { class: 'quiet' }, errorText(error)));
    }
  };
  void show();
  return section(t('devices'), list);
}

/**
 * @param {{device: string, online: boolean, seen: number}} one
 * @param {(revoke: string) => Promise<void>} show
 */
function deviceRow({ device, online, seen }, show) {
  const isThis = device === box.account.device;
  const revoke = async () => {
    if (await confirmed(t('logOutDeviceSure', { name: device }), t('logOutDevice'))) await show(device);
  };
  return h('li', { class: 'person' },
    h('span', { class: 'person-lines' }, h('bdi', {}, device),
      h('small', { class: 'quiet' }, isThis ? t('thisDevice') : online ? t('isOnline') : t('lastSeen', { time: shortTime(seen) }))),
    !isThis && button(t('logOutDevice'), () => void revoke(), 'is-small'));
}

function password() {
  const user = h('input', { hidden: true, autocomplete: 'username', value: box.account.name });
  const old = field(t('oldPassword'), { type: 'password', required: true, maxlength: 56, autocomplete: 'current-password' });
  const next = field(t('newPassword'), { type: 'password', required: true, maxlength: 56, autocomplete: 'new-password' });
  const again = field(t('passwordAgain'), { type: 'password', required: true, maxlength: 56, autocomplete: 'new-password' });
  const change = async () => {
    if (next.input.value !== again.input.value) toast(t('passwordsDiffer'));
    else if (await attempt(() => box.changePassword(old.input.value, next.input.value), t('passwordChanged'))) {
      for (const { input } of [old, next, again]) input.value = '';
    }
  };
  return section(t('changePassword'), form(change, user, old.field, next.field, again.field, submitButton(t('changePassword'))));
}

/** @param {() => void} close */
function account(close) {
  const logout = async () => {
    const count = waitingCount();
    if (!(await confirmed(count > 0 ? t('logOutSure', { count }) : t('logOutSureNone'), t('logOut')))) return;
    close();
    location.hash = '';
    await attempt(() => box.logout());
  };
  const proof = field(t('password'), { type: 'password', required: true, maxlength: 56, autocomplete: 'current-password' });
  const remove = async () => {
    if (!(await confirmed(t('deleteSure'), t('deleteAccount')))) return;
    if (await attempt(() => box.deleteAccount(proof.input.value))) location.hash = '';
  };
  return section(t('account'), button(t('logOut'), () => void logout()),
    h('details', {}, h('summary', {}, t('deleteAccount')), form(remove, proof.field, submitButton(t('deleteAccount'), { class: 'button is-danger' }))));
}
