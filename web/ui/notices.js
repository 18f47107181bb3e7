// Short notices, questions before actions that cannot be undone, and announcements for screen
// readers.

import { fill, h, iconButton } from './dom.js';
import { errorText, t } from './i18n.js';

const spoken = h('div', { class: 'hidden-text', 'aria-live': 'polite' });
const toasts = toastPlace();

/**
 * The place for notices. Each dialog has one of its own, because a notice outside an open dialog
 * can be neither seen nor heard.
 */
function toastPlace() {
  return h('div', { class: 'toasts', role: 'status' });
}

/** Puts the places for notices into the page. */
export function placeNotices() {
  document.body.append(spoken, toasts);
}

/** Announces a text to screen readers. @param {string} text */
export function announce(text) {
  spoken.append(h('p', {}, text));
  while (spoken.childElementCount > 5) spoken.firstChild?.remove();
}

/** @param {string} text */
export function toast(text) {
  const note = h('p', { class: 'toast' }, text);
  const dialog = [...document.querySelectorAll('dialog[open]')].pop();
  (dialog?.querySelector('.toasts') ?? toasts).append(note);
  setTimeout(() => note.remove(), 5000);
}

/**
 * Runs an action of the user, and shows a notice if it fails.
 * @param {() => Promise<unknown>} run
 * @param {string} [done]
 */
export async function attempt(run, done) {
  try {
    await run();
    if (done) toast(done);
    return true;
  } catch (error) {
    toast(errorText(error));
    return false;
  }
}

/**
 * Opens a dialog, whose content may call `close`.
 * @param {string} title @param {(close: () => void) => (Node | false | undefined | null)[]} content
 */
export function openDialog(title, content) {
  const notes = toastPlace();
  const dialog = h('dialog', {
    class: 'dialog', 'aria-label': title,
    onclose: () => {
      dialog.remove();
      // Move the dialog's notices to the page, so that they can still be read.
      toasts.append(...notes.children);
    },
  });
  const close = () => dialog.close();
  // A click outside the dialog closes it.
  dialog.addEventListener('click', (/** @type {MouseEvent} */ event) => {
    if (event.target === dialog) close();
  });
  fill(dialog, h('div', { class: 'dialog-box' },
    h('header', { class: 'dialog-head' }, h('h2', {}, title), iconButton('close', t('close'), close)),
    h('div', { class: 'dialog-body' }, content(close))), notes);
  document.body.append(dialog);
  dialog.showModal();
  return close;
}

/** Closes all dialogs. */
export function closeDialogs() {
  for (const dialog of document.querySelectorAll('dialog')) dialog.close();
}

/**
 * @param {string} text
 * @param {string} action the label of the button that confirms
 * @returns {Promise<boolean>}
 */
export function confirmed(text, action) {
  return new Promise((resolve) => {
    const dialog = h('dialog', {
      class: 'dialog is-question', role: 'alertdialog', 'aria-label': text,
      onclose: () => {
        dialog.remove();
        resolve(dialog.returnValue === 'yes');
      },
    });
    fill(dialog, h('div', { class: 'dialog-box' }, h('div', { class: 'dialog-body' }, h('p', {}, text),
      h('div', { class: 'buttons' },
        h('button', { type: 'button', class: 'button', onclick: () => dialog.close() }, t('cancel')),
        h('button', { type: 'button', class: 'button is-danger', onclick: () => dialog.close('yes') }, action)))));
    document.body.append(dialog);
    dialog.showModal();
  });
}
