/** The longest wait for an expected event, in milliseconds. Only a failing test waits this long. */
export const PATIENCE = 120_000;

/** Waits until `condition` holds. @param {string} what @param {() => unknown} condition @param {number} [patience] */
export async function until(what, condition, patience = PATIENCE) {
  const end = Date.now() + patience;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/**
 * Waits long enough for everything in flight within this process to arrive. After a machine was
 * suspended, the timer fires at once, so many turns of the event loop follow it.
 */
export async function settle() {
  await new Promise((resolve) => setTimeout(resolve, 20));
  for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
}
