// Requests and their replies.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Requests } from '../../../web/raybox/requests.js';
import { Type } from '../../../web/raybox/wire.js';

test('the frames of a long list of members are one reply', async () => {
  const requests = new Requests(() => true);
  const [long, other] = [requests.ask({ msgType: Type.members }), requests.ask({ msgType: Type.members })];
  const frame = { msgType: Type.members, errno: 200, rid: 1 };
  assert.ok(requests.take({ ...frame, members: [{ id: 1 }, { id: 2 }], more: true }));
  assert.ok(requests.take({ ...frame, members: [{ id: 3 }], more: true }));
  assert.ok(requests.take({ ...frame, members: [{ id: 4 }] }));
  assert.ok(requests.take({ ...frame, rid: 2, members: [{ id: 5 }] }));
  assert.deepEqual((await long).members, [{ id: 1 }, { id: 2 }, { id: 3 }, { id: 4 }]);
  assert.deepEqual((await other).members, [{ id: 5 }]);
  assert.equal(requests.take({ ...frame, members: [] }), false);
});
