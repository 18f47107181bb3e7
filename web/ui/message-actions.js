// The actions for a message: a small toolbar at the message under the pointer or with the focus.

import { isChat } from '../raybox.js';
import { box, textOf } from './client.js';
import { copyText, h, iconButton } from './dom.js';
import { t } from './i18n.js';
import { attempt, confirmed } from './notices.js';

/** @typedef {import('../raybox.js').Message} Message */

export class MessageActions {
  #edit;
  #bar = h('div', { class: 'actions', role: 'toolbar', 'aria-label': t('actions') });

  /** @param {(msg: Message) => void} edit */
  constructor(edit) {
    this.#edit = edit;
  }

  /** @param {HTMLElement} list @param {(seq: number) => Message | undefined} find */
  attach(list, find) {
    const show = (/** @type {Event} */ event) => {
      const item = /** @type {HTMLElement} */ (event.target).closest?.('li.message');
      if (!(item instanceof HTMLElement) || item.contains(this.#bar) || !item.dataset.seq) return;
      const msg = find(Number(item.dataset.seq));
      if (!msg || msg.m === null) return;
      this.#bar.replaceChildren(...this.#buttons(msg));
      item.querySelector('.bubble')?.append(this.#bar);
    };
    for (const name of ['pointerover', 'focusin', 'click']) list.addEventListener(name, show);
    list.addEventListener('pointerleave', () => !this.#bar.contains(document.activeElement) && this.#bar.remove());
  }

  /** @param {Message} msg */
  #buttons(msg) {
    const text = msg.m ? textOf(msg.m) : '';
    const copy = iconButton('copy', t('copy'), () => void attempt(() => copyText(text), t('copied')));
    if (msg.from !== box.account.user || !isChat(msg.m, msg.seq)) return [copy];
    return [
      iconButton('edit', t('edit'), () => this.#edit(msg)),
      iconButton('recall', t('recall'), () => void this.#recall(msg)),
      copy,
    ];
  }

  /** @param {Message} msg */
  async #recall(msg) {
    if (await confirmed(t('recallSure'), t('recall'))) await attempt(() => box.recall(msg.conv, msg.seq));
  }
}

