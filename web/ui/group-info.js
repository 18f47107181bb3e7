// The dialog about a group: its members, and the actions of its members and its creator.

import { groupOf } from '../raybox.js';
import { avatar, box, titleOf } from './client.js';
import { fill, h } from './dom.js';
import { button, field, form, submitButton } from './forms.js';
import { t } from './i18n.js';
import { attempt, confirmed, openDialog } from './notices.js';
import { openUser } from './user-info.js';

/** @typedef {import('../raybox.js').Member} Member */

/** @param {string} conv */
export function openGroup(conv) {
  openDialog(titleOf(conv), (close) => {
    const body = h('div', { class: 'sections' });
    const render = () => fill(body, sections(conv, close, refresh));
    const refresh = async () => {
      await attempt(() => box.members(conv));
      render();
    };
    render();
    if (!box.conversations.get(conv)?.closed) void refresh();
    return [body];
  });
}

/** @param {string} conv @param {() => void} close @param {() => Promise<void>} refresh */
function sections(conv, close, refresh) {
  const group = groupOf(conv);
  const members = box.conversations.get(conv)?.members ?? [];
  const isCreator = members.some(({ id, role }) => id === box.account.user && role === 'creator');
  const end = async (/** @type {() => Promise<void>} */ run, /** @type {string} */ question, /** @type {string} */ action) => {
    if (await confirmed(question, action) && await attempt(run)) close();
  };
  return [
    h('p', { class: 'quiet' }, t('number', { id: group })),
    isCreator && changeForm(conv),
    h('section', {}, h('h3', {}, t('members'), ' ', h('span', { class: 'quiet' }, members.length)),
      h('ul', { class: 'people' }, members.map((member) => memberRow(group, member, isCreator, close, refresh))),
      isCreator && addForm(group, refresh)),
    !box.conversations.get(conv)?.closed && h('div', { class: 'buttons' },
      button(t('leave'), () => void end(() => box.leaveGroup(group), t('leaveSure'), t('leave'))),
      isCreator && button(t('dissolve'), () => void end(() => box.dissolveGroup(group), t('dissolveSure'), t('dissolve')), 'is-danger')),
  ];
}

/**
 * @param {number} group
 * @param {Member} member
 * @param {boolean} isCreator
 * @param {() => void} close
 * @param {() => Promise<void>} refresh
 */
function memberRow(group, { id, name, role }, isCreator, close, refresh) {
  const isSelf = id === box.account.user;
  const text = name ?? t('deletedUser');
  const remove = async () => {
    if (await confirmed(t('removeSure', { name: text }), t('remove')) && await attempt(() => box.removeMember(group, id))) await refresh();
  };
  const look = () => {
    close();
    openUser(id);
  };
  return h('li', { class: 'person' }, avatar(`u${id}`, text),
    h('span', { class: 'person-lines' }, h('bdi', {}, text), h('small', { class: 'quiet' }, isSelf ? t('you') : t('number', { id }), role === 'creator' && ` · ${t('creator')}`)),
    h('span', { class: 'buttons' }, !isSelf && button(t('details'), look, 'is-small'), isCreator && !isSelf && button(t('remove'), () => void remove(), 'is-small')));
}

/** @param {string} conv */
function changeForm(conv) {
  const name = field(t('groupName'), { required: true, maxlength: 50, value: titleOf(conv) });
  const description = field(t('description'), { maxlength: 200 });
  const save = () => attempt(() => box.changeGroup(groupOf(conv), {
    name: name.input.value.trim(),
    description: description.input.value.trim() || undefined,
  }), t('saved'));
  return form(save, name.field, description.field, submitButton(t('save')));
}

/** @param {number} group @param {() => Promise<void>} refresh */
function addForm(group, refresh) {
  const user = field(t('addMember'), { inputmode: 'numeric', pattern: '[1-9][0-9]*', required: true });
  const add = async () => {
    if (await attempt(() => box.removeMember(group, Number(user.input.value), { add: true }))) await refresh();
  };
  return form(add, h('div', { class: 'field-row' }, user.field, submitButton(t('add'))));
}
