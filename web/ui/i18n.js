// Texts in the language of the user.

import { saved } from './saved.js';
import { en } from './texts-en.js';
import { zh } from './texts-zh.js';

/** @typedef {keyof typeof en} Key */

/** @type {Record<string, Record<string, string>>} */
const LANGUAGES = { en, zh };

const SAVED = 'raybox-language';

let language = pick();

function pick() {
  const chosen = saved.get(SAVED);
  if (chosen && LANGUAGES[chosen]) return chosen;
  return navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => LANGUAGES[tag]) ?? 'en';
}

export const currentLanguage = () => language;

/** The tag for `lang` attributes. */
export const languageTag = () => (language === 'zh' ? 'zh-CN' : 'en');

/** The tag for dates, which differ between countries with the same language. */
const dateTag = () => navigator.languages.find((tag) => tag.slice(0, 2) === language) ?? languageTag();

/** @param {string} next */
export function setLanguage(next) {
  language = next;
  saved.set(SAVED, next);
}

/**
 * A text, with `{name}` replaced by the value of that name.
 * @param {Key} key @param {Record<string, string | number>} [values]
 */
export function t(key, values = {}) {
  const text = LANGUAGES[language][key] ?? en[key];
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ''));
}

/**
 * The text of an error for the user.
 * @param {unknown} error
 * @param {string} [where] the kind of the request, for errors with a text of their own for it, such
 *   as `error403_user`
 */
export function errorText(error, where) {
  const { errno, message, retryAfter } = /** @type {any} */ (error);
  if (errno === undefined) return String(error);
  const key = [`error${errno}_${where}`, `error${errno}`].find((one) => one in en);
  const text = key ? t(/** @type {Key} */ (key)) : message;
  return retryAfter > 1 ? `${text} ${t('tryAgainIn', { seconds: Math.ceil(retryAfter) })}` : text;
}

/** @param {number} time */
const dayOf = (time) => new Date(time).toDateString();

/** @param {number} time */
export const clock = (time) => new Intl.DateTimeFormat(dateTag(), { hour: 'numeric', minute: '2-digit' }).format(time);

/** The day of a message, as a heading. @param {number} time */
export function dayName(time) {
  const now = Date.now();
  if (dayOf(time) === dayOf(now)) return t('today');
  if (dayOf(time) === dayOf(now - 86_400_000)) return t('yesterday');
  const year = new Date(time).getFullYear() === new Date(now).getFullYear() ? undefined : 'numeric';
  return new Intl.DateTimeFormat(dateTag(), { weekday: 'long', day: 'numeric', month: 'long', year }).format(time);
}

/** A time in a few characters. @param {number} time */
export function shortTime(time) {
  if (!time) return '';
  if (dayOf(time) === dayOf(Date.now())) return clock(time);
  if (Date.now() - time < 6 * 86_400_000) return new Intl.DateTimeFormat(dateTag(), { weekday: 'short' }).format(time);
  return new Intl.DateTimeFormat(dateTag(), { day: 'numeric', month: 'short' }).format(time);
}

/** @param {number} time */
export const fullTime = (time) => new Intl.DateTimeFormat(dateTag(), { dateStyle: 'medium', timeStyle: 'short' }).format(time);

/** @param {number} a @param {number} b */
export const isSameDay = (a, b) => dayOf(a) === dayOf(b);
