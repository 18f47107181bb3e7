// The field for writing a message. Enter sends; Shift-Enter begins a new line. On a touch screen,
// Enter begins a new line.

import { box, textOf } from './client.js';
import { fill, h, icon, iconButton } from './dom.js';
import { draftOf, setDraft } from './drafts.js';
import { errorText, t } from './i18n.js';
import { attempt, toast } from './notices.js';

/** @typedef {import('../raybox.js').Message} Message */

export class Composer {
  #conv;
  #lastOwn;
  /** @type {Message | undefined} */
  #edited;
  #input = h('textarea', { class: 'composer-input', rows: 1, dir: 'auto', enterkeyhint: 'send', placeholder: t('write'), 'aria-label': t('write') });
  #banner = h('div', { class: 'composer-banner', role: 'status' });
  #send = h('button', { type: 'submit', class: 'icon-button send', 'aria-label': t('send'), title: t('send') }, icon('send'));

  /**
   * @param {string} conv
   * @param {() => Message | undefined} lastOwn the last own message, for the key Up
   */
  constructor(conv, lastOwn) {
    this.#conv = conv;
    this.#lastOwn = lastOwn;
    this.element = h('form', { class: 'composer', onsubmit: (/** @type {Event} */ event) => this.#submit(event) }, this.#banner,
      h('div', { class: 'composer-row' }, this.#input, this.#send));
    this.#input.value = draftOf(conv);
    this.#input.addEventListener('input', () => this.#changed());
    this.#input.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => this.#key(event));
    queueMicrotask(() => this.#grow());
  }

  focus() {
    this.#input.focus({ preventScroll: true });
  }

  /** Begins to edit an own message. @param {Message} msg */
  edit(msg) {
    this.#edited = msg;
    this.#input.value = msg.m ? textOf(msg.m) : '';
    fill(this.#banner, icon('edit', 'small'), t('editing'), iconButton('close', t('cancel'), () => this.#endEdit()));
    this.#grow();
    this.focus();
  }

  #endEdit() {
    this.#edited = undefined;
    this.#input.value = draftOf(this.#conv);
    fill(this.#banner);
    this.#grow();
    this.focus();
  }

  #changed() {
    this.#grow();
    if (this.#edited) return;
    setDraft(this.#conv, this.#input.value);
    if (this.#input.value.trim()) void box.typing(this.#conv);
  }

  #grow() {
    this.#input.style.height = 'auto';
    this.#input.style.height = `${this.#input.scrollHeight}px`;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    // In an input method, Enter chooses a word.
    if (event.isComposing) return;
    const isTouch = matchMedia('(pointer: coarse)').matches;
    if (event.key === 'Enter' && !event.shiftKey && !isTouch) void this.#submit(event);
    else if (event.key === 'Escape' && this.#edited) this.#endEdit();
    else if (event.key === 'ArrowUp' && this.#input.value === '') {
      const last = this.#lastOwn();
      if (!last) return;
      event.preventDefault();
      this.edit(last);
    }
  }

  /** @param {Event} event */
  async #submit(event) {
    event.preventDefault();
    const text = this.#input.value.trim();
    if (!text) return;
    const edited = this.#edited;
    if (edited) {
      if (await attempt(() => box.send(this.#conv, text, { edit: edited.seq }))) this.#endEdit();
      return;
    }
    this.#input.value = '';
    setDraft(this.#conv, '');
    this.#grow();
    try {
      await box.send(this.#conv, text);
    } catch (error) {
      // The text goes back into the field, so nothing is lost.
      this.#input.value = text;
      setDraft(this.#conv, text);
      this.#grow();
      toast(errorText(error));
    }
  }
}
