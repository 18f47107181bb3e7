// Drafts: unsent texts, by conversation. They survive a reload of the page, and are deleted when
// their user logs out.

import { box } from './client.js';
import { savedHere } from './saved.js';

const SAVED = 'raybox-drafts';

/** @type {{user?: number, texts: Record<string, string>}} */
let drafts = { texts: {} };
try {
  drafts = JSON.parse(savedHere.get(SAVED) ?? '') ?? drafts;
} catch {
  // There are no drafts, or they have another form.
}

/** The texts of the present user. */
function own() {
  if (drafts.user !== box.account.user) drafts = { user: box.account.user, texts: {} };
  return drafts.texts;
}

/** @param {string} conv */
export const draftOf = (conv) => own()[conv] ?? '';

/** @param {string} conv @param {string} text */
export function setDraft(conv, text) {
  const texts = own();
  if (text) texts[conv] = text;
  else delete texts[conv];
  savedHere.set(SAVED, JSON.stringify(drafts));
}

/** Deletes all drafts, because their user has logged out. */
export function dropDrafts() {
  drafts = { texts: {} };
  savedHere.set(SAVED, null);
}
