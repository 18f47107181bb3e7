// Sets of numbers as ascending ranges without overlap, such as [[1, 40], [101, 205]].

/** @typedef {[number, number][]} Ranges */

/**
 * The ranges with from..=to added. Adjacent ranges become one.
 * @param {Ranges} ranges @param {number} from @param {number} to @returns {Ranges}
 */
export function addRange(ranges, from, to) {
  const last = ranges[ranges.length - 1];
  if (last && last[1] === from - 1) {
    last[1] = to;
    return ranges;
  }
  /** @type {Ranges} */
  const before = [];
  /** @type {Ranges} */
  const behind = [];
  for (const range of ranges) {
    if (range[1] < from - 1) before.push(range);
    else if (range[0] > to + 1) behind.push(range);
    else {
      from = Math.min(from, range[0]);
      to = Math.max(to, range[1]);
    }
  }
  return [...before, [from, to], ...behind];
}

/**
 * The ranges without everything up to `floor`.
 * @param {Ranges} ranges
 * @param {number} floor
 * @returns {Ranges}
 */
export function cutBelow(ranges, floor) {
  return ranges.flatMap(([from, to]) => (to <= floor ? [] : [/** @type {[number, number]} */ ([Math.max(from, floor + 1), to])]));
}

/** The range that contains `number`. @param {Ranges} ranges @param {number} number */
export const rangeAt = (ranges, number) => ranges.find(([from, to]) => from <= number && number <= to);
