// One line about the state of the connection, shown only while there is a problem.

import { box, Listening } from './client.js';
import { fill, h, icon } from './dom.js';
import { t } from './i18n.js';
import { button } from './forms.js';

class ConnectionBar extends HTMLElement {
  #listening = new Listening();
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #ticking;

  connectedCallback() {
    this.setAttribute('role', 'status');
    this.#listening.on(box, 'status trouble', () => this.#render());
    this.#render();
  }

  disconnectedCallback() {
    this.#listening.end();
    clearInterval(this.#ticking);
  }

  #render() {
    clearInterval(this.#ticking);
    const { state, reason, until, errmsg } = box.status;
    if (box.trouble) this.#show('warning', t('trouble', { message: box.trouble }));
    else if (state === 'offline' && reason === 'refused') this.#show('warning', errmsg ?? t('offline'), button(t('tryNow'), () => void box.reconnect(), 'is-small'));
    else if (state === 'connecting') this.#show('offline', t('connecting'));
    else if (state === 'syncing') this.#show('retry', t('syncing'));
    else if (reason === 'replaced') this.#show('warning', t('replaced'), button(t('useHere'), () => void box.reconnect(), 'is-small'));
    else if (state === 'offline') {
      this.#showWait(until);
      this.#ticking = setInterval(() => this.#showWait(until), 1000);
    } else fill(this);
  }

  /** @param {number | undefined} until */
  #showWait(until) {
    const seconds = until === undefined ? 0 : Math.ceil((until - Date.now()) / 1000);
    // The countdown is hidden from screen readers, which would read it every second.
    const count = seconds > 1 && h('span', { 'aria-hidden': 'true' }, ` ${seconds} s`);
    this.#show('offline', t('offline'), count, button(t('tryNow'), () => void box.wake(), 'is-small'));
  }

  /** @param {string} shape @param {string} text @param {...(Node | false)} more */
  #show(shape, text, ...more) {
    const known = this.querySelector('.bar-text');
    if (known?.textContent === text && more.length > 1) {
      this.querySelector('[aria-hidden="true"]:not(svg)')?.replaceWith(...more.slice(0, 1).filter((node) => node instanceof Node));
      return;
    }
    fill(this, h('div', { class: 'bar' }, icon(shape), h('span', { class: 'bar-text' }, text), more));
  }
}

customElements.define('rb-connection', ConnectionBar);
