// The layout of the client: the list at one side, a conversation at the other. A phone shows one of
// them at a time.

import { Type } from '../raybox.js';
import { box, watchAll, Listening } from './client.js';
import { fill, h, iconButton, once } from './dom.js';
import { t } from './i18n.js';
import { avatar } from './client.js';
import { openPeople } from './people.js';
import { openSettings } from './settings.js';
import './connection-bar.js';
import './conversation-list.js';
import './thread.js';

class Shell extends HTMLElement {
  #listening = new Listening();
  #main = h('main', { class: 'main' });
  #self = h('div', { class: 'self' });
  #watch = once(watchAll);

  connectedCallback() {
    fill(this,
      h('div', { class: 'side' },
        h('header', { class: 'side-head' }, this.#self,
          iconButton('plus', t('find'), () => openPeople('find'), { id: 'find' }),
          iconButton('people', t('people'), () => openPeople('friends')),
          iconButton('settings', t('settings'), () => openSettings())),
        h('rb-connection'),
        h('rb-conversations')),
      this.#main);
    this.#listening
      .on(window, 'hashchange', () => this.#open())
      .on(box, 'conversations reset account', this.#watch)
      .on(box, 'account', () => this.#renderSelf())
      .on(box, 'message', ({ m }) => m?.msgType === Type.addFriend && m.ask !== true && this.#readContacts())
      .on(box, 'status', ({ state }) => state === 'online' && this.#online());
    this.#renderSelf();
    this.#open();
    if (box.status.state === 'online') this.#online();
  }

  disconnectedCallback() {
    this.#listening.end();
  }

  #online() {
    this.#readContacts();
    this.#watch();
  }

  #readContacts() {
    if (box.status.state === 'online') box.contacts().catch(() => undefined);
  }

  #renderSelf() {
    const { name, user } = box.account;
    fill(this.#self, avatar(`u${user}`, name ?? '?'),
      h('div', { class: 'self-lines' }, h('h1', {}, h('bdi', {}, name)), h('small', { class: 'quiet' }, t('number', { id: user ?? '' }))));
  }

  /** Opens the conversation that is named in the address. */
  #open() {
    const name = location.hash.slice(1);
    const isOpen = /^[ug][1-9]\d*$/.test(name);
    this.classList.toggle('has-open', isOpen);
    if (isOpen) fill(this.#main, h('rb-thread', { conv: name }));
    else fill(this.#main, h('div', { class: 'nothing-open quiet' }, h('img', { src: 'icon.svg', alt: '', width: 72, height: 72 }), h('h2', {}, t('welcomeTitle')), h('p', {}, t('welcomeText', { id: box.account.user ?? '' }))));
  }
}

customElements.define('rb-shell', Shell);
