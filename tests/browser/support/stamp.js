// Writes the hash of every file of the client into the service worker, which only serves the files
// of one version:
//
//     npm run stamp

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Files that the worker does not serve: those for npm or Node only, and the worker itself. */
const NOT_STORED = ['package.json', 'raybox/tcp.js', 'sw.js'];

/** The files of a folder and of its subfolders. @param {string} folder @returns {string[]} */
export function filesIn(folder, root = folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesIn(path, root) : [relative(root, path)];
  });
}

/** The text that the service worker of the client in a folder must have. @param {string} web */
export function stamped(web) {
  const names = filesIn(web).filter((name) => !NOT_STORED.includes(name)).sort();
  const lines = names.map((name) => {
    const hash = createHash('sha256').update(readFileSync(join(web, name))).digest('hex').slice(0, 16);
    return `  '${name === 'index.html' ? './' : name}': '${hash}',\n`;
  });
  const worker = readFileSync(join(web, 'sw.js'), 'utf8');
  return worker.replace(/const FILES = \{\n[^}]*\};/, `const FILES = {\n${lines.join('')}};`);
}

/** @param {string} web */
export const stamp = (web) => writeFileSync(join(web, 'sw.js'), stamped(web));

if (process.argv[1] === fileURLToPath(import.meta.url)) stamp(fileURLToPath(new URL('../../../web', import.meta.url)));
