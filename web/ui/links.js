// Texts of other users as nodes: links are recognised, everything else stays text.

import { h } from './dom.js';

/**
 * An address ends before a blank, and before characters that usually belong to the sentence.
 */
const ADDRESS = /\bhttps?:\/\/[^\s<>"'`\u3000-\u303f\uff00-\uffef]+/gi;

const EMOJI = /^(?:\p{Extended_Pictographic}|\p{Emoji_Component}|\s)+$/u;

/** @param {string} text @returns {(Node | string)[]} */
export function withLinks(text) {
  /** @type {(Node | string)[]} */
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const address = trimmed(match[0]);
    const url = parsed(address);
    if (!url) continue;
    nodes.push(text.slice(end, match.index), h('a', { href: url, target: '_blank', rel: 'noopener noreferrer nofollow' }, address));
    end = match.index + address.length;
  }
  nodes.push(text.slice(end));
  return nodes;
}

/** The address without characters at its end that belong to the sentence. @param {string} address */
function trimmed(address) {
  let text = address.replace(/[.,;:!?…*_~]+$/, '');
  // A closing bracket belongs to the address only if the opening one does.
  for (const [open, close] of ['()', '[]', '{}']) {
    while (text.endsWith(close) && text.split(close).length > text.split(open).length) text = text.slice(0, -1);
  }
  return text;
}

/** @param {string} address */
function parsed(address) {
  try {
    const url = new URL(address);
    // A name or a password in an address can make it look like another address.
    return (url.protocol === 'https:' || url.protocol === 'http:') && !url.username && !url.password ? url.href : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a text consists of only a few emoji. @param {string} text */
export const isEmojiOnly = (text) => text.length <= 24 && EMOJI.test(text) && /\p{Extended_Pictographic}/u.test(text);
