// The status page: asks the server every five seconds, and shows the answer. Texts become nodes by textContent only.

/** @typedef {{ alert: string, severity: string, what: string, action: string }} Finding */
/** @typedef {{ name: string, open: number, idle: number, max: number }} Pool */
/**
 * @typedef {object} NodePicture
 * @property {string} name @property {string} version @property {boolean} ready @property {{ name: string, trouble: string | null }[]} conditions
 * @property {number} uptime_seconds @property {number} users @property {number} messages_per_second @property {number | null} probe_seconds
 * @property {number} spool_messages @property {number} lane_items @property {number} queue_jobs @property {number} unstored @property {number} cpu
 * @property {number} memory_bytes @property {Pool[]} pools
 */
/** @typedef {{ address: string | null, trouble: string | null, foreign: boolean, seconds_ago: number | null, node: NodePicture | null }} Row */
/** @typedef {{ name: string, title: string, unit: string, fault: boolean, values: (number | null)[] }} Series */
/** @typedef {{ findings: Finding[], nodes: Row[], trend: { every_seconds: number, samples: number, series: Series[] } }} Picture */

const EVERY = 5000;
/** No answer for so long is none. */
const PATIENCE = 4000;
const SVG = 'http://www.w3.org/2000/svg';

/** @type {number | undefined} */
let answeredAt;

/** @param {string} id */
const at = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** An element with a class and a text. @param {string} tag @param {string} [name] @param {string} [text] */
function element(tag, name = '', text = '') {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

/** @param {string} tag @param {Record<string, string>} attributes */
function drawn(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** A number with three digits, and k or M. @param {number} number @returns {string} */
function short(number) {
  if (number >= 1e6) return `${trimmed(number / 1e6)} M`;
  if (number >= 1e4) return `${trimmed(number / 1e3)} k`;
  return number >= 100 || Number.isInteger(number) ? Math.round(number).toLocaleString('en') : trimmed(number);
}

/** @param {number} number */
function trimmed(number) {
  if (number > 0 && number < 0.01) return '< 0.01';
  return String(Number(number.toPrecision(3)));
}

/** @param {number} bytes */
function size(bytes) {
  if (bytes >= 1e9) return `${trimmed(bytes / 1e9)} GB`;
  return bytes >= 1e6 ? `${trimmed(bytes / 1e6)} MB` : `${trimmed(bytes / 1e3)} kB`;
}

/** @param {number} seconds */
function duration(seconds) {
  if (seconds === 0) return '0 ms';
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${trimmed(seconds * 1e3)} ms`;
  if (seconds < 120) return `${trimmed(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`;
}

/** A number with its unit. @param {number} number @param {string} unit */
function withUnit(number, unit) {
  switch (unit) {
    case 'bytes': return size(number);
    case 's': return duration(number);
    case 'share': return `${Math.round(number * 100)} %`;
    default: return `${short(number)}${unit}`;
  }
}

/** Changes the children only if something has changed, so that a screen reader is not told the same again.
 * @param {HTMLElement} parent @param {HTMLElement[]} children */
function show(parent, children) {
  const same = parent.children.length === children.length && children.every((child, nth) => parent.children[nth].isEqualNode(child));
  if (!same) parent.replaceChildren(...children);
}

/** @param {Finding[]} findings */
function showFindings(findings) {
  const verdict = at('verdict');
  const urgent = findings.filter((finding) => finding.severity === 'page').length;
  const count = findings.length === 1 ? 'One thing is wrong.' : `${findings.length} things are wrong.`;
  const text = findings.length === 0 ? 'All is well.' : count;
  const name = `verdict ${findings.length === 0 ? 'is-good' : urgent > 0 ? 'is-page' : 'is-ticket'}`;
  if (verdict.textContent !== text) verdict.textContent = text;
  verdict.className = name;
  document.title = findings.length === 0 ? 'All is well – RayBox' : `${findings.length} wrong – RayBox`;
  show(at('list'), findings.map((finding) => {
    const item = element('li', `finding is-${finding.severity === 'page' ? 'page' : 'ticket'}`);
    const title = element('h3');
    title.append(element('span', 'tag', finding.severity === 'page' ? 'Now' : 'Within a day'), finding.what);
    item.append(title, element('p', '', finding.action));
    return item;
  }));
}

/** The word for a node, and its class. @param {Row} row @returns {[string, string]} */
function state({ trouble, foreign, node }) {
  if (foreign) return ['no status page', 'is-warn'];
  if (trouble !== null) return ['no answer', 'is-bad'];
  if (!node) return ['asking', ''];
  const broken = node.conditions.filter((condition) => condition.trouble !== null).map((condition) => condition.name);
  if (broken.length === 1 && broken[0] === 'running') return ['takes no clients', 'is-warn'];
  return node.ready ? ['ready', ''] : ['not ready', 'is-bad'];
}

/** @param {Row} row */
function nodeCard(row) {
  const { address, trouble, seconds_ago: ago, node } = row;
  const card = element('li', 'node');
  const title = element('h3', '', node?.name || address || 'this node');
  const [word, name] = state(row);
  title.append(element('span', `state ${name}`.trim(), word));
  const seen = trouble !== null && ago !== null ? `last answer ${duration(Math.round(ago))} ago` : '';
  const up = node && trouble === null ? `up ${duration(node.uptime_seconds)}` : '';
  const where = [address ?? 'this node', node && trouble === null ? `version ${node.version}` : '', up, seen].filter(Boolean).join(' · ');
  card.append(title, element('p', 'where', where));
  // The last answer of a node that has gone is out of date.
  if (!node || trouble !== null) return card;
  const list = element('dl');
  /** @type {[string, string, boolean?][]} */
  const facts = [
    ['Users', short(node.users)],
    ['Messages', `${short(node.messages_per_second)}/s`],
    ['Bus probe', node.probe_seconds === null ? '–' : duration(node.probe_seconds), (node.probe_seconds ?? 0) > 2],
    ['Spool', short(node.spool_messages), node.spool_messages > 0],
    ['Lanes, queues', short(node.lane_items + node.queue_jobs)],
    ['Processors', `${Math.round(node.cpu * 100)} %`],
    ['Memory', size(node.memory_bytes)],
    ...(node.unstored > 0 ? [/** @type {[string, string, boolean]} */ (['Only in memory', short(node.unstored), true])] : []),
    ...node.pools.map((pool) => /** @type {[string, string, boolean]} */ (
      [`Pool ${pool.name}`, `${pool.open - pool.idle} of ${pool.max}`, pool.idle === 0 && pool.open === pool.max]
    )),
  ];
  for (const [term, value, isBad] of facts) {
    const fact = element('div');
    fact.append(element('dt', '', term), element('dd', isBad ? 'is-bad' : '', value));
    list.append(fact);
  }
  card.append(list);
  return card;
}

/** The points of each stretch without a gap. @param {(number | null)[]} values @param {number} room @param {number} most @returns {[number, number][][]} */
function stretches(values, room, most) {
  /** @type {[number, number][][]} */
  const found = [];
  let open = false;
  values.forEach((value, nth) => {
    if (value === null) {
      open = false;
      return;
    }
    if (!open) found.push([]);
    open = true;
    const x = ((room - values.length + nth) / (room - 1)) * 100;
    found[found.length - 1].push([x, 40 - (most > 0 ? (value / most) * 38 : 0)]);
  });
  return found;
}

/** @param {Series} series @param {number} room @param {number} every */
function plot({ title, unit, fault, values }, room, every) {
  const known = values.filter((value) => value !== null);
  const most = Math.max(0, ...known);
  const last = values[values.length - 1] ?? null;
  const now = last === null ? '–' : withUnit(last, unit);
  const card = element('li', fault && most > 0 ? 'plot is-fault' : 'plot');
  const numbers = element('p');
  const highest = withUnit(most, unit);
  // A maximum that is rounded to nothing says nothing.
  numbers.append(element('span', 'now', now), element('span', 'most', highest === withUnit(0, unit) ? '' : `max ${highest}`));
  const label = `${title}: now ${now}, at most ${highest} in the last ${duration(values.length * every)}`;
  const picture = drawn('svg', { viewBox: '0 0 100 40', preserveAspectRatio: 'none', role: 'img', 'aria-label': label });
  picture.append(drawn('line', { class: 'base', x1: '0', x2: '100', y1: '40', y2: '40' }));
  // Where nothing was, the ground is enough.
  for (const points of most > 0 ? stretches(values, room, most) : []) {
    const line = points.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`);
    const [first, end] = [points[0][0].toFixed(2), points[points.length - 1][0].toFixed(2)];
    picture.append(drawn('polygon', { class: 'area', points: `${first},40 ${line.join(' ')} ${end},40` }));
    picture.append(drawn('polyline', { class: 'line', points: line.join(' ') }));
  }
  const axis = element('p', 'axis');
  axis.setAttribute('aria-hidden', 'true');
  axis.append(element('span', '', `${duration(room * every)} ago`), element('span', '', 'now'));
  card.append(element('h3', '', title), numbers, picture, axis);
  return card;
}

/** @param {Picture} picture */
function showAll({ findings, nodes, trend }) {
  showFindings(findings);
  show(at('nodes'), nodes.map(nodeCard));
  at('plots-of').textContent = nodes.length > 1 ? `of ${nodes[0].node?.name || 'this node'}` : '';
  show(at('plots'), trend.series.map((series) => plot(series, trend.samples, trend.every_seconds)));
  const users = nodes.reduce((sum, row) => sum + (row.trouble === null ? row.node?.users ?? 0 : 0), 0);
  const count = nodes.length === 1 ? 'one node' : `${nodes.length} nodes`;
  at('about').textContent = `${count}, ${short(users)} ${users === 1 ? 'user' : 'users'} online`;
}

/** Says that the numbers are old, in place of the last verdict. */
function showAway() {
  const when = answeredAt === undefined ? 'yet' : `since ${new Date(answeredAt).toLocaleTimeString([], { hour12: false })}`;
  const texts = { away: `No answer ${when}. Trying again…`, verdict: `Not known: no answer ${when}.` };
  for (const [id, text] of Object.entries(texts)) if (at(id).textContent !== text) at(id).textContent = text;
  at('verdict').className = 'verdict';
  at('away').hidden = false;
  document.body.className = 'is-old';
  document.title = 'No answer – RayBox';
}

/** The answer, if there is one. @returns {Promise<Picture | undefined>} */
async function answer() {
  try {
    const response = await fetch('status.json', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
    return response.ok ? await response.json() : undefined;
  } catch {
    return undefined;
  }
}

async function ask() {
  setTimeout(ask, EVERY);
  const picture = await answer();
  if (picture === undefined) {
    showAway();
    return;
  }
  answeredAt = Date.now();
  at('away').hidden = true;
  document.body.className = '';
  showAll(picture);
}

ask();
