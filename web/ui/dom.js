// Builds elements. Texts become text nodes and never markup.

const SVG = 'http://www.w3.org/2000/svg';

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Makes an element. Properties that begin with `on` become listeners, `class` becomes the class,
 * and all others become attributes: `true` an empty one, `false` and `undefined` none.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Child | Child[])} children
 * @returns {any}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === false || value === null) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...clean(children));
  return element;
}

/** @param {(Child | Child[])[]} children */
const clean = (children) =>
  /** @type {(Node | string)[]} */ (children.flat().filter((child) => child !== null && child !== undefined && child !== false).map((child) =>
    child instanceof Node ? child : String(child)));

/**
 * Replaces the content of an element.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...clean(children));
}

/**
 * Puts elements into an element in this order. Elements that are already in place are not touched.
 * @param {Element} element
 * @param {Element[]} wanted
 */
export function arrange(element, wanted) {
  const keep = new Set(wanted);
  for (const node of [...element.children]) if (!keep.has(node)) node.remove();
  let next = element.firstElementChild;
  for (const node of wanted) {
    if (node === next) next = next.nextElementSibling;
    else element.insertBefore(node, next);
  }
}

/** Icons of 24 by 24, as strokes. @type {Record<string, string>} */
const SHAPES = {
  back: 'M15 5l-7 7 7 7',
  bell: 'M6 17V11a6 6 0 0 1 12 0v6l1.5 2h-15zM10 21h4',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  checks: 'M2 12.5l4.5 4.5L16 7.5M11.5 16l1 1L22 7.5',
  clock: 'M12 7v5l3 2M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z',
  close: 'M6 6l12 12M18 6L6 18',
  copy: 'M9 9h10v11H9zM5 15V4h10',
  down: 'M12 5v14M6 13l6 6 6-6',
  edit: 'M4 20h4L19 9l-4-4L4 16zM13 7l4 4',
  info: 'M12 11v6M12 7.5v.1M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z',
  offline: 'M3 3l18 18M5 12.5a10 10 0 0 1 4-2.4M15 10a10 10 0 0 1 4 2.5M8.5 16a5 5 0 0 1 7 0M12 19.5v.1',
  people: 'M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c0-3.6 2.9-6 6.5-6s6.5 2.4 6.5 6M16 4.5a3.3 3.3 0 0 1 0 6.3M18 14.4c2.1.8 3.5 2.8 3.5 5.6',
  plus: 'M12 5v14M5 12h14',
  recall: 'M4 9h10a5 5 0 0 1 0 10H8M8 5L4 9l4 4',
  retry: 'M20 12a8 8 0 1 1-2.5-5.8M20 4v5h-5',
  search: 'M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16.5 16.5L21 21',
  send: 'M4 12l16-8-6 16-3-7z',
  settings: 'M4 7h10M18 7h2M4 17h2M10 17h10M16 5v4M8 15v4',
  warning: 'M12 4L2.5 20h19zM12 10v5M12 17.5v.1',
};

/**
 * An icon that screen readers skip.
 * @param {string} name
 * @param {string} [more] further classes
 */
export function icon(name, more = '') {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', `icon ${more}`);
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', SHAPES[name]);
  svg.append(path);
  return svg;
}

/**
 * A button with only an icon; its label is for screen readers and the tooltip.
 * @param {string} name
 * @param {string} label
 * @param {(event: Event) => void} onclick
 * @param {Record<string, any>} [props]
 */
export function iconButton(name, label, onclick, props = {}) {
  return h('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, onclick, ...props }, icon(name));
}

/** Copies a text to the clipboard. @param {string} text */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // A page that was not loaded over TLS has no clipboard; it can only copy a selection.
  const area = h('textarea', { class: 'hidden-text', readonly: true });
  area.value = text;
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  (document.querySelector('dialog[open]') ?? document.body).append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
  focused?.focus({ preventScroll: true });
}

/**
 * A function that calls `run` before the page is drawn next, once however often it is called.
 * @param {() => void} run
 */
export function once(run) {
  let isAsked = false;
  const now = () => {
    isAsked = false;
    run();
  };
  return () => {
    if (isAsked) return;
    isAsked = true;
    // A hidden page is not drawn.
    if (document.visibilityState === 'visible') requestAnimationFrame(now);
    else setTimeout(now, 100);
  };
}
