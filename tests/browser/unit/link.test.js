// Deadlines of a connection to a server that accepts everything and answers nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Link } from '../../../web/raybox/link.js';

/** A link whose clock and whose server the test plays by hand. */
class Stage {
  /** @type {import('../../../web/raybox/wire.js').Frame[]} */
  sent = [];
  isWaiting = false;
  ends = 0;
  #now = 0;
  #timers;
  /** @type {import('../../../web/raybox/transport.js').Listener | undefined} */
  #listener;

  /** @param {import('node:test').TestContext} t */
  constructor(t) {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    t.mock.method(performance, 'now', () => this.#now);
    this.#timers = t.mock.timers;
    this.link = new Link({
      url: 'fake:', random: () => 0,
      open: (_, listener) => {
        this.#listener = listener;
        return { send: (text) => this.sent.push(JSON.parse(text)), close: () => listener.closed() };
      },
    }, {
      opening: () => undefined, opened: () => this.link.sendFirst({ msgType: 1 }), frame: () => undefined,
      isWaiting: () => this.isWaiting, down: () => { this.ends += 1; },
    });
    this.link.start();
  }

  connect() {
    this.#listener?.open();
  }

  online() {
    this.connect();
    this.hear(40);
    this.link.proved(45);
    // The silence before the next ping is that of a connection that works.
    this.hear(45);
    this.sent = [];
  }

  /** @param {number} msgType */
  hear(msgType) {
    this.#listener?.frame({ msgType });
  }

  /** @param {number} seconds */
  pass(seconds) {
    for (let second = 0; second < seconds; second++) {
      this.#now += 1000;
      this.#timers.tick(1000);
    }
  }

  /** The types of the frames since the last call. */
  types() {
    return this.sent.splice(0).map((frame) => frame.msgType);
  }
}

test('a login that is not answered ends the connection', (t) => {
  const stage = new Stage(t);
  stage.connect();
  assert.deepEqual(stage.types(), [1]);
  stage.link.probe(false);
  stage.pass(14);
  assert.deepEqual([stage.types(), stage.ends], [[], 0], 'a look does not shorten the time');
  stage.pass(1);
  assert.equal(stage.ends, 1);
});

test('an idle connection is asked late, and one with an unanswered message soon', (t) => {
  const stage = new Stage(t);
  stage.online();
  stage.pass(60);
  assert.deepEqual(stage.types(), [], 'the server sends a ping before');
  stage.isWaiting = true;
  stage.link.sendText('{"msgType":4}');
  stage.pass(5);
  stage.link.sendText('{"msgType":4}');
  stage.pass(5);
  assert.deepEqual(stage.types(), [4, 4, 53], 'more messages do not put it off');
  stage.pass(20);
  assert.equal(stage.ends, 1);
});

test('frames without an answer, and answered messages, lead to no ping', (t) => {
  const stage = new Stage(t);
  stage.online();
  for (const msgType of [47, 51, 54]) stage.link.send({ msgType });
  stage.pass(40);
  stage.isWaiting = true;
  stage.link.send({ msgType: 48, rid: 1 });
  stage.hear(48);
  stage.isWaiting = false;
  stage.pass(67);
  assert.deepEqual(stage.types(), [47, 51, 54, 48]);
  stage.pass(1);
  assert.deepEqual(stage.types(), [53]);
  stage.hear(54);
  stage.pass(60);
  assert.equal(stage.ends, 0);
});

test('a slow server gets longer each time, until a connection has lasted', (t) => {
  const stage = new Stage(t);
  for (const [nth, patience] of [15, 30, 60, 60].entries()) {
    stage.link.probe(false);
    const ends = stage.ends;
    stage.connect();
    stage.pass(patience - 1);
    assert.equal(stage.ends, ends, `login ${nth}`);
    stage.pass(1);
    assert.equal(stage.ends, ends + 1, `login ${nth}`);
  }
  const { ends } = stage;
  stage.link.probe(false);
  stage.online();
  stage.pass(61);
  stage.hear(42);
  stage.link.probe(false);
  stage.pass(20);
  assert.equal(stage.ends, ends + 1, 'the timeouts are short again');
});
