// Light or dark: as the system has it, unless the user has chosen.

const SAVED = 'raybox-theme';

/** @typedef {'system' | 'light' | 'dark'} Theme */

/** @returns {Theme} */
export const currentTheme = () => /** @type {Theme} */ (localStorage.getItem(SAVED) ?? 'system');

/** @param {Theme} theme */
export function setTheme(theme) {
  if (theme === 'system') localStorage.removeItem(SAVED);
  else localStorage.setItem(SAVED, theme);
  applyTheme();
}

export function applyTheme() {
  document.documentElement.dataset.theme = currentTheme();
}
