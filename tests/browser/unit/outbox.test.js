// Sending, waiting and logging in, against a fake server.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryStore, RayBoxError, uuid7 } from '../../../web/raybox.js';
import { ack, entry, Fake, push } from '../support/fake.js';
import { settle, until } from '../support/wait.js';

test('a message is pending until its 41, and then stands in its place', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  const cid = await fake.box.send('u2', 'hello');
  const sent = await one.next(4);
  assert.deepEqual([sent.cid, sent.TOID, sent.FROMID, sent.msg], [cid, 2, 1, 'hello']);
  assert.equal(fake.box.pending('u2').length, 1);
  one.say(ack(cid, 'u2', 1));
  await until('nothing is pending', () => fake.box.pending('u2').length === 0);
  assert.deepEqual((await fake.box.history('u2')).msgs.map((msg) => [msg.seq, msg.from, msg.m?.msg]), [[1, 1, 'hello']]);
  fake.box.stop();
});

test('what has no answer is sent again with the same bytes, in order, also by a new process', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  for (const text of ['a', 'b', 'c']) await fake.box.send('u2', text);
  const first = [await one.next(4), await one.next(4), await one.next(4)];
  one.say(ack(first[0].cid, 'u2', 1));
  await settle();
  fake.box.stop();
  const later = new Fake({ store: fake.store });
  await later.box.start();
  const two = await later.connection(0);
  const login = await two.welcome([entry('u2', 2)], [
    { msgType: 44, conv: 'u2', complete: true, from: 2, to: 2 }, push('u2', 2, first[1], { from: 1 }),
  ]);
  assert.ok(login.have.u2.startsWith('1:'));
  const again = await two.next(4);
  assert.deepEqual(again, first[2], 'b was shown in its place and is not sent again, c is');
  two.say(ack(again.cid, 'u2', 3));
  await until('nothing is pending', () => later.box.pending('u2').length === 0);
  assert.deepEqual((await later.held('u2')).map((msg) => msg.m?.msg), ['a', 'b', 'c']);
  later.box.stop();
});

test('a repeat that was committed is not shown twice, wherever it stands', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  const cid = await fake.box.send('u2', 'x');
  const sent = await one.next(4);
  one.say(ack(cid, 'u2', 2, { again: true }));
  await settle();
  assert.equal(fake.box.pending('u2')[0]?.state, 'acked', 'it is committed, but its place is not shown');
  one.say(push('u2', 1), push('u2', 2, sent, { from: 1 }));
  await until('nothing is pending', () => fake.box.pending('u2').length === 0);
  assert.equal((await fake.held('u2')).filter((msg) => msg.m?.cid === cid).length, 1);
  const other = await fake.box.send('u2', 'y');
  await one.next(4);
  one.say(ack(other, 'u2', 1, { again: true }));
  await until('what stands before the cursor is not pending', () => fake.box.pending('u2').length === 0);
  fake.box.stop();
});

test('after a failure for now the conversation goes on with the first that failed', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0), entry('u3', 0)]);
  const cids = [];
  for (const text of ['a', 'b', 'c']) cids.push(await fake.box.send('u2', text));
  for (let at = 0; at < 3; at++) await one.next(4);
  const busy = { msgType: 41, errno: 503, errmsg: 'busy', retryAfter: 0.05 };
  one.say({ ...busy, cid: cids[0] });
  await fake.box.send('u3', 'other');
  assert.equal((await one.next(4)).TOID, 3, 'another conversation is not held up');
  await new Promise((resolve) => setTimeout(resolve, 80));
  assert.equal(one.sent.filter((frame) => frame.msgType === 4).length, 0, 'b and c are not answered yet');
  one.say({ ...busy, cid: cids[1] }, { ...busy, cid: cids[2] });
  const again = [await one.next(4), await one.next(4), await one.next(4)];
  assert.deepEqual(again.map((frame) => frame.cid), cids);
  fake.box.stop();
});

test('a refusal for good is told, holds nothing up, and can be sent again as a new message', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  const cid = await fake.box.send('u2', 'x');
  await one.next(4);
  one.say({ msgType: 41, cid, errno: 403, errmsg: 'blocked' });
  await until('it failed', () => fake.box.pending('u2')[0]?.state === 'failed');
  await fake.box.send('u2', 'y');
  assert.equal((await one.next(4)).msg, 'y');
  await fake.box.retry(cid);
  const retried = await one.next(4);
  assert.equal(retried.msg, 'x');
  assert.notEqual(retried.cid, cid);
  assert.equal(await fake.box.discard(retried.cid), false, 'it may be committed');
  fake.box.stop();
});

test('a message that is too long is refused at once; an old one when a server takes less', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  await assert.rejects(fake.box.send('u2', 'é'.repeat(40_000)), (error) => error instanceof RayBoxError && error.errno === 413);
  one.end();
  await fake.box.send('u2', 'x'.repeat(5000));
  const two = await fake.connection(1);
  await two.welcome([entry('u2', 0)], [], { frame: 4096 });
  await until('it failed', () => fake.box.pending('u2')[0]?.errno === 413);
  fake.box.stop();
});

test('waits double from one second to sixty, or are what the server says; half of it may be added', async (t) => {
  // The clock is stopped, so that the waits are exact. A second of them takes a millisecond.
  const realNow = Date.now;
  const now = realNow();
  Date.now = () => now;
  t.after(() => (Date.now = realNow));
  /** @type {number[]} */
  const waits = [];
  const fake = new Fake({ random: () => 1, scale: 0.001 });
  fake.box.addEventListener('status', () => {
    const { state, until: at } = fake.box.status;
    if (state === 'offline' && at) waits.push(at - now);
  });
  const one = await fake.login();
  one.end({ reason: 'overload', errno: 503, retryAfter: 8 });
  for (let at = 1; at <= 8; at++) (await fake.connection(at)).end();
  await fake.connection(9);
  assert.deepEqual(waits.map(Math.round), [8, 2, 4, 8, 16, 32, 60, 60, 60].map((wait) => Math.round(wait * 1.5)));
  fake.box.stop();
});

test('after `replaced` and `revoked` it does not come back by itself', async () => {
  const fake = new Fake();
  const one = await fake.login();
  one.end({ reason: 'replaced', errno: 409 });
  await until('offline', () => fake.box.status.state === 'offline');
  assert.deepEqual([fake.box.status.reason, fake.box.status.until], ['replaced', undefined]);
  await settle();
  assert.equal(fake.connections.length, 1);
  await fake.box.reconnect();
  const two = await fake.connection(1);
  await two.welcome();
  await fake.online();
  two.end({ reason: 'revoked', errno: 403 });
  await until('signed out', () => fake.box.status.state === 'signedOut');
  fake.box.stop();
});

test('a wrong password is told; a wrong token ends the session', async () => {
  const fake = new Fake();
  await fake.box.start();
  const wrong = fake.box.login({ name: 'ann', password: 'no' });
  const one = await fake.connection(0);
  await one.next(1);
  one.say({ msgType: 40, errno: 302, errmsg: 'wrong' });
  await assert.rejects(wrong, (error) => error instanceof RayBoxError && error.errno === 302);
  const right = fake.box.login({ name: 'ann', password: 'yes' });
  const two = await fake.connection(1);
  await two.welcome();
  await right;
  two.end();
  const three = await fake.connection(2);
  await three.next(1);
  three.say({ msgType: 40, errno: 302, errmsg: 'expired' });
  await until('signed out', () => fake.box.status.state === 'signedOut');
  fake.box.stop();
});

test('registering logs in; an older server is told apart', async () => {
  const fake = new Fake();
  await fake.box.start();
  const done = fake.box.register({ name: 'ann', password: 'secret-a' });
  const one = await fake.connection(0);
  const { rid, ...frame } = await one.next(2);
  assert.deepEqual(frame, { msgType: 2, name: 'ann', password: 'secret-a' });
  one.say({ msgType: 200, errno: 200, USERID: 1, rid });
  const login = await one.next(1);
  assert.deepEqual([login.name, login.password, login.level], ['ann', 'secret-a', 2]);
  one.say({ msgType: 200, errno: 200 });
  await assert.rejects(done, (error) => error instanceof RayBoxError && error.errno === 501);
  fake.box.stop();
});

test('the data of one user are not shown to another one', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  one.say(push('u2', 1));
  await settle();
  const other = fake.box.login({ name: 'eve', password: 'secret-e' });
  const two = await fake.connection(1);
  const login = await two.next(1);
  assert.deepEqual(login.have, {});
  two.say({ msgType: 40, errno: 200, level: 2, name: 'eve', user: 5, token: 't', tokenExpires: 1, limits: { frame: 65536, inflight: 256, page: 200 } },
    { msgType: 43, more: false, convs: [] }, { msgType: 45, synced: true });
  await other;
  assert.deepEqual(await fake.held('u2'), []);
  assert.equal(fake.box.conversations.size, 0);
  fake.box.stop();
});

test('a browser that can store nothing is no reason not to work', async () => {
  const store = new MemoryStore();
  store.open = () => Promise.reject(new Error('no room'));
  const fake = new Fake({ store });
  /** @type {string[]} */
  const troubles = [];
  fake.box.addEventListener('trouble', (event) => troubles.push(/** @type {CustomEvent} */ (event).detail));
  const one = await fake.login([entry('u2', 0)]);
  assert.deepEqual(troubles, ['Error: no room']);
  assert.equal(fake.box.trouble, 'Error: no room', 'also for whoever asks later');
  const cid = await fake.box.send('u2', 'hello');
  await one.next(4);
  one.say(ack(cid, 'u2', 1));
  await until('nothing is pending', () => fake.box.pending('u2').length === 0);
  fake.box.stop();
});

test('uuids of version 7 sort by time', () => {
  assert.match(uuid7(), /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.ok(uuid7(1_000) < uuid7(2_000) && uuid7(0xffff_ffff) < uuid7(0x1_0000_0000));
});

test('a refused login costs nothing of what another user has stored', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  one.say(push('u2', 1));
  await settle();
  one.end({ reason: 'revoked', errno: 403 });
  await fake.box.send('u2', 'not sent yet');
  await until('signed out', () => fake.box.status.state === 'signedOut');
  const before = fake.told('status').length;
  const refused = fake.box.login({ name: 'ann', password: 'no' });
  const two = await fake.connection(1);
  const login = await two.next(1);
  assert.equal(login.name, 'ann');
  two.say({ msgType: 40, errno: 302, errmsg: 'wrong' });
  await assert.rejects(refused);
  assert.equal(fake.box.pending('u2').length, 1);
  const states = new Set(fake.told('status').slice(before).map(({ state }) => state));
  assert.deepEqual([...states], ['signedOut'], 'nobody is shown what is stored before the server has said who it is');
  // Ann has another name now. The server's answer shows that it is the same user.
  const again = fake.box.login({ name: 'anna', password: 'secret-a' });
  const three = await fake.connection(2);
  assert.deepEqual((await three.welcome([entry('u2', 1)])).have, {});
  await again;
  const four = await fake.connection(3);
  const second = await four.welcome([entry('u2', 1)]);
  assert.deepEqual(Object.keys(second.have), ['u2'], 'with her cursors');
  assert.equal((await four.next(4)).msg, 'not sent yet');
  fake.box.stop();
});

test('what comes with the login of another user is stored, and nothing of the one before', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  one.say(push('u2', 1));
  await fake.box.send('u2', 'of ann');
  const login = fake.box.login({ name: 'eve', password: 'secret-e' });
  const two = await fake.connection(1);
  await two.next(1);
  two.say({ msgType: 40, errno: 200, level: 2, name: 'eve', user: 5, token: 't', tokenExpires: 1, limits: { frame: 65536, inflight: 256, page: 200 } },
    { msgType: 43, more: false, convs: [entry('u2', 3)] }, { msgType: 45, synced: true }, push('u2', 4));
  await login;
  await until('it is stored', async () => (await fake.held('u2')).length > 0);
  assert.deepEqual((await fake.held('u2')).map((msg) => msg.seq), [4]);
  const { account, convs, outbox } = await fake.store.open();
  assert.deepEqual([account?.user, convs.map(({ conv, seq }) => [conv, seq]), outbox], [5, [['u2', 4]], []]);
  fake.box.stop();
});

test('a browser without room keeps the newest messages, and goes on', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  for (let seq = 1; seq <= 250; seq++) one.say(push('u2', seq));
  await settle();
  const write = fake.store.write.bind(fake.store);
  let isFull = true;
  fake.store.write = async (changes) => {
    if (changes.cut) isFull = false;
    if (isFull) throw new DOMException('full', 'QuotaExceededError');
    return write(changes);
  };
  const cid = await fake.box.send('u2', 'x');
  assert.equal((await one.next(4)).cid, cid);
  await until('old ones have gone', async () => (await fake.held('u2')).length === 100);
  assert.deepEqual((await fake.box.history('u2', { limit: 200 })).msgs.map((msg) => msg.seq)[0], 151);
  assert.equal((await fake.store.open()).convs[0].held[0][0], 151);
  fake.box.stop();
});

test('a browser that cannot store anything sends and reads nevertheless, and says so', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  /** @type {(string | null)[]} */
  const troubles = [];
  fake.box.addEventListener('trouble', (event) => troubles.push(/** @type {CustomEvent} */ (event).detail));
  fake.store.write = () => Promise.reject(new Error('no disk'));
  const cid = await fake.box.send('u2', 'x');
  assert.equal((await one.next(4)).cid, cid);
  assert.deepEqual(troubles, ['Error: no disk']);
  one.say(ack(cid, 'u2', 1));
  await until('nothing is pending', () => fake.box.pending('u2').length === 0);
  const asking = fake.box.history('u2');
  const page = await one.next(48);
  one.say({ msgType: 48, errno: 200, conv: 'u2', complete: true, floor: 0, from: 1, to: 1, head: 1, msgs: [{ seq: 1, from: 1, m: {}, tag: 'a', time: 1 }], rid: page.rid });
  assert.equal((await asking).msgs.length, 1);
  fake.box.stop();
});

test('the first message to somebody makes a conversation, also without a connection', async () => {
  const fake = new Fake();
  const one = await fake.login();
  one.end();
  await fake.box.send('u8', 'hello');
  assert.ok(fake.box.conversations.has('u8'));
  const two = await fake.connection(1);
  const login = await two.welcome();
  assert.deepEqual(login.have, {}, 'nothing is held of it');
  assert.equal((await two.next(4)).TOID, 8);
  fake.box.stop();
});

test('a look at the page does not hurry a server that has asked for patience; the user may', async () => {
  const fake = new Fake();
  const one = await fake.login();
  one.end({ reason: 'overload', errno: 503, retryAfter: 600 });
  await until('offline', () => fake.box.status.state === 'offline');
  await fake.box.wake({ isPatient: true });
  await settle();
  assert.equal(fake.connections.length, 1);
  await fake.box.wake();
  await fake.connection(1);
  fake.box.stop();
});
