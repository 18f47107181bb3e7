// A real server in a folder of its own.

import { spawn } from 'node:child_process';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PATIENCE, until } from './wait.js';

const BINARY = process.env.RAYBOX_SERVER ?? fileURLToPath(new URL('../../../target/debug/server', import.meta.url));

export class Server {
  port = 0;
  /** The address of the web client. */
  url = '';
  /** @type {import('node:child_process').ChildProcess | undefined} */
  #child;
  /** @type {string[]} */
  #copies = [];

  /** @param {string} folder @param {string[]} options */
  constructor(folder, options) {
    this.folder = folder;
    this.options = options;
  }

  /** Starts a server on a free port. @param {...string} options */
  static async start(...options) {
    const server = new Server(await mkdtemp(join(tmpdir(), 'raybox-web-')), options);
    await server.launch();
    return server;
  }

  /** Starts the server. From the second time on, it has the same port and the same data. */
  async launch() {
    // The hashes are cheap, because these passwords need no protection.
    const options = ['--log-dir', join(this.folder, 'logs'), '--argon2', 'm=8,t=1,p=1', ...this.options];
    const child = spawn(BINARY, ['127.0.0.1', String(this.port), ...options], { cwd: this.folder, stdio: ['ignore', 'pipe', 'inherit'] });
    this.#child = child;
    let output = '';
    child.stdout.on('data', (data) => (output += data));
    await until('the server listens', () => {
      if (child.exitCode !== null) throw new Error(`the server has ended with ${child.exitCode}: ${output}`);
      return /listening on [^ ]*:\d+/.test(output);
    }, PATIENCE);
    this.port = Number(/listening on [^ ]*:(\d+)/.exec(output)?.[1]);
    this.url = `http://127.0.0.1:${this.port}/`;
  }

  /** Kills the server, as a crash would. */
  async kill() {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  /** Copies the data of the stopped server. @param {string} name */
  async save(name) {
    await cp(this.folder, `${this.folder}-${name}`, { recursive: true });
    this.#copies.push(`${this.folder}-${name}`);
  }

  /** Replaces the data of the stopped server by a copy. @param {string} name */
  async restore(name) {
    await rm(this.folder, { recursive: true });
    await cp(`${this.folder}-${name}`, this.folder, { recursive: true });
  }

  async stop() {
    for (const copy of this.#copies) await rm(copy, { recursive: true, force: true });
    await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** A user of level 1, as with `nc`: one object a line. */
export class Nc {
  /** @type {any[]} */
  heard = [];

  /** @param {number} port */
  constructor(port) {
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true });
    let rest = '';
    this.socket.setEncoding('utf8').on('data', (data) => {
      const lines = (rest + data).split('\n');
      rest = lines.pop() ?? '';
      this.heard.push(...lines.map((line) => JSON.parse(line)));
    });
  }

  /** @param {object} frame */
  say(frame) {
    this.socket.write(`${JSON.stringify(frame)}\n`);
  }

  /** Returns the next object that fits, and skips those before it. @param {(frame: any) => boolean} fits @returns {Promise<any>} */
  async hear(fits) {
    /** @type {any} */
    let found;
    await until('a frame for the user of level 1', () => {
      while (this.heard.length > 0 && !found) {
        const frame = this.heard.shift();
        if (fits(frame)) found = frame;
      }
      return found;
    });
    return found;
  }

  /** Registers and logs in; returns the id. @param {string} name */
  async join(name) {
    this.say({ msgType: 2, name, password: `secret-${name}` });
    const { USERID } = await this.hear((frame) => frame.USERID !== undefined);
    this.say({ msgType: 1, USERID, password: `secret-${name}` });
    await this.hear((frame) => frame.errno === 200);
    return USERID;
  }

  close() {
    this.socket.destroy();
  }
}
