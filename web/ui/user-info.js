// The dialog about a user, with its actions.

import { avatar, box, friend, personName, presenceText } from './client.js';
import { fill, h } from './dom.js';
import { button } from './forms.js';
import { t } from './i18n.js';
import { attempt, confirmed, openDialog } from './notices.js';

/** @param {number} user */
export function openUser(user) {
  const name = personName(user);
  openDialog(name, (close) => {
    const body = h('div', { class: 'profile' });
    const render = (isBlocked = false) => fill(body,
      avatar(`u${user}`, name), h('p', { class: 'profile-name' }, h('bdi', {}, name)),
      h('p', { class: 'quiet' }, [t('number', { id: user }), presenceText(user)].filter(Boolean).join(' · ')),
      h('div', { class: 'buttons is-centered' },
        location.hash !== `#u${user}` && button(t('message'), () => {
          close();
          location.hash = `u${user}`;
        }, 'is-main'),
        friend(user)
          ? button(t('removeFriend'), () => void attempt(() => box.removeFriend(user)).then(() => render(isBlocked)))
          : button(t('addFriend'), () => void attempt(() => box.requestFriend(user), t('requestSent')).then(close)),
        isBlocked
          ? button(t('unblock'), () => void attempt(() => box.block(user, false), t('isUnblocked')).then(() => render(false)))
          : button(t('block'), () => void block().then((done) => render(done)), 'is-danger')));
    const block = async () => {
      if (!(await confirmed(t('blockSure', { name }), t('block')))) return false;
      return attempt(() => box.block(user, true), t('isBlocked'));
    };
    render();
    box.blocked().then((blocked) => render(blocked.some(({ id }) => id === user)), () => undefined);
    return [body];
  });
}
