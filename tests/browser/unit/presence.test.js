// Which users are watched.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { entry, Fake, push } from '../support/fake.js';

test('the watched users are requested again when more of them may be seen, and only then', async () => {
  const fake = new Fake();
  const connection = await fake.login([entry('u2', 0), entry('g3', 0)]);
  const requests = () => connection.sent.filter((frame) => frame.msgType === 52).map((frame) => frame.watch);
  await fake.box.watch([2, 4]);
  await connection.next(52);
  connection.sent.length = 0;
  const joined = (/** @type {number} */ user) => ({ msgType: 57, event: 'joined', GROUPID: 3, USERID: user, msg: undefined });
  connection.say(push('u2', 1, { msgType: 6, ask: true }), push('u2', 2), push('g3', 1, joined(5)), push('g3', 2, { ...joined(4), event: 'left' }));
  assert.deepEqual(requests(), [], 'a request, a text, a member who is not watched, and one who leaves change nothing');
  connection.say(push('u2', 3, { msgType: 6 }));
  assert.deepEqual(requests(), [[2, 4]], 'a friend');
  connection.say(push('g3', 3, joined(4)));
  assert.equal(requests().length, 2, 'a member of a common group');
  connection.say(push('g3', 4, joined(1)));
  assert.equal(requests().length, 3, 'the user is a new member');
  fake.box.stop();
});
