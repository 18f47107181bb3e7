// Fields and forms.

import { h } from './dom.js';

let last = 0;

/**
 * A labelled input.
 * @param {string} label @param {Record<string, any>} [props] @param {string} [hint]
 * @returns {{field: HTMLElement, input: HTMLInputElement}}
 */
export function field(label, props = {}, hint = undefined) {
  last += 1;
  const id = `field-${last}`;
  const input = h('input', { id, class: 'input', 'aria-describedby': hint && `${id}-hint`, dir: 'auto', ...props });
  return {
    input,
    field: h('div', { class: 'field' }, h('label', { for: id }, label), input, hint && h('small', { id: `${id}-hint` }, hint)),
  };
}

/**
 * A form that is disabled while `submit` runs. The browser itself never sends it.
 * @param {() => Promise<unknown>} submit @param {...(Node | false | undefined)} children
 */
export function form(submit, ...children) {
  const all = h('fieldset', { class: 'bare' }, ...children);
  return h('form', {
    class: 'form',
    onsubmit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      all.disabled = true;
      try {
        await submit();
      } finally {
        all.disabled = false;
      }
    },
  }, all);
}

/** @param {string} label @param {Record<string, any>} [props] */
export const submitButton = (label, props = {}) => h('button', { class: 'button is-main', type: 'submit', ...props }, label);

/** @param {string} label @param {() => void} onclick @param {string} [more] further classes */
export const button = (label, onclick, more = '') => h('button', { class: `button ${more}`, type: 'button', onclick }, label);
