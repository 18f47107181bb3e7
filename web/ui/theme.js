// Light or dark colours: those of the system, unless the user has chosen.

import { saved } from './saved.js';

const SAVED = 'raybox-theme';

/** @typedef {'system' | 'light' | 'dark'} Theme */

/** @returns {Theme} */
export const currentTheme = () => /** @type {Theme} */ (saved.get(SAVED) ?? 'system');

/** @param {Theme} theme */
export function setTheme(theme) {
  saved.set(SAVED, theme === 'system' ? null : theme);
  applyTheme();
}

export function applyTheme() {
  document.documentElement.dataset.theme = currentTheme();
}
