// Small values that the browser stores for this page. A browser that cannot store anything, as in
// some private windows, forgets them with the page.

/** @type {Map<string, string>} */
const memory = new Map();

/**
 * Calls `run` with a storage, if there is one.
 * @template T
 * @param {'localStorage' | 'sessionStorage'} kind
 * @param {(storage: Storage) => T} run
 * @returns {T | undefined}
 */
function attempt(kind, run) {
  try {
    return run(window[kind]);
  } catch {
    return undefined;
  }
}

/** @param {'localStorage' | 'sessionStorage'} kind */
const place = (kind) => ({
  /** @param {string} name @returns {string | null} */
  get: (name) => attempt(kind, (storage) => storage.getItem(name)) ?? memory.get(name) ?? null,
  /** @param {string} name @param {string | null} value `null` forgets it */
  set: (name, value) => {
    if (value === null) {
      memory.delete(name);
      attempt(kind, (storage) => storage.removeItem(name));
    } else if (attempt(kind, (storage) => (storage.setItem(name, value), true))) memory.delete(name);
    else memory.set(name, value);
  },
});

/** Values for all tabs, without an end. */
export const saved = place('localStorage');

/** Values for this tab, until it is closed. */
export const savedHere = place('sessionStorage');
