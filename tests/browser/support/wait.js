/** How long a test waits for what must come. Only a failing test ever waits this long. */
export const PATIENCE = 120_000;

/** Waits until `condition` holds. @param {string} what @param {() => unknown} condition @param {number} [patience] */
export async function until(what, condition, patience = PATIENCE) {
  const end = Date.now() + patience;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A time in which everything that is already on its way in this process arrives. */
export const settle = () => new Promise((resolve) => setTimeout(resolve, 20));
