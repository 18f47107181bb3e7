// Synchronising, receiving, history and marks, against a fake server.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isChange, MemoryStore } from '../../../web/raybox.js';
import { entry, Fake, push, tagOf } from '../support/fake.js';
import { settle, until } from '../support/wait.js';

test('a message is stored once, with its cursor, and the next login tells it', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  one.say(push('u2', 1), push('u2', 2), push('u2', 2), push('u2', 1));
  await until('two messages', () => fake.told('message').length === 2);
  await settle();
  assert.deepEqual((await fake.held('u2')).map((msg) => msg.seq), [1, 2]);
  one.end({ reason: 'drain', errno: 503, retryAfter: 0.1 });
  const two = await fake.connection(1);
  const login = await two.welcome([entry('u2', 2, { unread: 2 })]);
  assert.deepEqual(login.have, { u2: `2:${tagOf(2)}` });
  assert.equal(login.token, 'token-1');
  fake.box.stop();
});

test('a hole is not taken: the client asks for a run, and then has everything once', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 5)]);
  one.say(push('u2', 6), push('u2', 9), push('u2', 10));
  const ask = await one.next(46);
  assert.deepEqual(ask.have, { u2: `6:${tagOf(6)}` });
  one.say({ msgType: 44, conv: 'u2', complete: true, from: 7, to: 10 }, push('u2', 7), push('u2', 8), push('u2', 9), push('u2', 10));
  one.say({ msgType: 45, synced: true, rid: ask.rid });
  await settle();
  assert.deepEqual(fake.told('message').map((msg) => msg.seq), [6, 7, 8, 9, 10]);
  assert.equal(one.sent.filter((frame) => frame.msgType === 46).length, 0, 'asked once');
  fake.box.stop();
});

test('a gap is paged when somebody looks, and what is stored is not asked for again', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('g3', 2)]);
  one.say(push('g3', 3, { msgType: 9 }));
  await settle();
  one.end({ reason: 'drain', errno: 503, retryAfter: 0.01 });
  const two = await fake.connection(1);
  await two.welcome([entry('g3', 8)], [
    { msgType: 44, conv: 'g3', complete: false, from: 7, gap: [4, 6], to: 8 }, push('g3', 7), push('g3', 8),
  ]);
  await fake.online();
  const newest = await fake.box.history('g3', { limit: 50 });
  assert.deepEqual(newest.msgs.map((msg) => msg.seq), [7, 8]);
  assert.equal(newest.atStart, false);
  const asking = fake.box.history('g3', { before: 7 });
  const page = await two.next(48);
  assert.deepEqual([page.before, page.conv], [7, 'g3']);
  const { msgType: _, ...shown } = push('g3', 6);
  two.say({ msgType: 48, errno: 200, conv: 'g3', complete: false, floor: 0, from: 6, to: 6, head: 8, msgs: [shown], rid: page.rid });
  assert.deepEqual((await asking).msgs.map((msg) => msg.seq), [6]);
  assert.deepEqual((await fake.box.history('g3')).msgs.map((msg) => msg.seq), [6, 7, 8]);
  fake.box.stop();
});

test('a reset drops what is held', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  one.say(push('u2', 1), push('u2', 2));
  await settle();
  one.end({ reason: 'drain', errno: 503, retryAfter: 0.01 });
  const two = await fake.connection(1);
  await two.welcome([entry('u2', 1)], [{ msgType: 44, conv: 'u2', complete: true, reset: true, from: 1, to: 1 }, push('u2', 1, { msg: 'other' })]);
  await fake.online();
  assert.deepEqual((await fake.box.history('u2')).msgs.map((msg) => msg.m?.msg), ['other']);
  assert.ok(fake.told('reset').includes('u2'));
  fake.box.stop();
});

test('a conversation that is no longer one\'s own is kept, closed', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('g3', 0)]);
  one.say(push('g3', 1));
  await settle();
  one.end({ reason: 'drain', errno: 503, retryAfter: 0.01 });
  const two = await fake.connection(1);
  await two.welcome([], [{ msgType: 44, conv: 'g3', errno: 403, errmsg: 'not a member' }]);
  await fake.online();
  assert.equal(fake.box.conversations.get('g3')?.closed, 403);
  assert.deepEqual((await fake.box.history('g3')).msgs.map((msg) => msg.seq), [1]);
  fake.box.stop();
});

test('cursors that do not fit into the login are asked for after it', async () => {
  const store = new MemoryStore();
  const many = Array.from({ length: 3000 }, (_, at) => ({
    conv: `u${at + 10}`, kind: /** @type {const} */ ('user'), name: 'x', seq: 1, tag: tagOf(1), floor: 0, read: 0, unread: 0,
    peerRead: 0, peerRecv: 0, last: null, time: at, held: /** @type {[number, number][]} */ ([]),
  }));
  await store.write({ convs: many, account: { device: 'd', user: 1, name: 'ann', token: 't' } });
  const fake = new Fake({ store });
  await fake.box.start();
  const one = await fake.connection(0);
  const login = await one.welcome([]);
  assert.ok(JSON.stringify(login).length <= 65536);
  const told = new Set(Object.keys(login.have));
  assert.ok(told.has('u3009') && !told.has('u10'), 'the most recently active are first');
  const late = await one.next(46);
  one.say(push('u10', 7));
  for (const conv of Object.keys(late.have)) told.add(conv);
  one.say({ msgType: 45, synced: true, rid: late.rid });
  assert.equal(told.size, 3000);
  await settle();
  assert.equal(one.sent.filter((frame) => frame.msgType === 46).length, 0, 'a number beyond the cursor was no error before the answer');
  fake.box.stop();
});

test('edits and recalls change what is held, in the order of their numbers', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  one.say(push('u2', 1), push('u2', 2), push('u2', 3, { edit: 1, msg: 'new' }), push('u2', 4, { recall: 2 }), push('u2', 5, { edit: 1, msg: 'newer' }));
  await until('three changes', () => fake.told('altered').length === 3);
  const { msgs } = await fake.box.history('u2');
  assert.deepEqual([msgs[0].m?.msg, msgs[0].edited], ['newer', 5]);
  assert.deepEqual(msgs.filter((msg) => !isChange(msg.m, msg.seq)).map((msg) => msg.seq), [1, 2]);
  assert.deepEqual([msgs[1].m, msgs[1].recalled], [null, 4]);
  assert.equal(fake.box.conversations.get('u2')?.unread, 1, 'a recalled message does not count');
  one.say(push('u2', 6, { recall: 1 }));
  await until('a fourth', () => fake.told('altered').length === 4);
  const after = await fake.box.history('u2');
  assert.deepEqual(after.msgs.filter((msg) => msg.m?.msg?.startsWith('new')), [], 'the texts of its edits are gone too');
  fake.box.stop();
});

test('a message that comes edited is shown by itself, and its edit is not', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  const edit = { edit: 1, msg: 'new' };
  one.say(push('u2', 1, edit, { edited: 2 }), push('u2', 2, edit));
  await settle();
  const conv = fake.box.conversations.get('u2');
  assert.deepEqual([conv?.unread, conv?.last?.seq, conv?.last?.m?.msg], [1, 1, 'new']);
  fake.box.stop();
});

test('an edit that comes while a page is on its way counts', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 3)]);
  const asking = fake.box.history('u2');
  const page = await one.next(48);
  one.say(push('u2', 4, { edit: 2, msg: 'new' }));
  const msgs = [1, 2, 3].map((seq) => {
    const { msgType: _, conv: __, ...rest } = push('u2', seq);
    return rest;
  });
  one.say({ msgType: 48, errno: 200, conv: 'u2', complete: true, floor: 0, from: 1, to: 3, head: 3, msgs, rid: page.rid });
  assert.deepEqual((await asking).msgs.map((msg) => msg.m?.msg), ['text 1', 'new', 'text 3']);
  fake.box.stop();
});

test('a read mark made offline is sent later, and only the newest', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  one.say(push('u2', 1), push('u2', 2), push('u2', 3));
  await settle();
  one.end({ reason: 'drain', errno: 503, retryAfter: 0.5 });
  await fake.box.markRead('u2', 2);
  await fake.box.markRead('u2', 3);
  assert.equal(fake.box.conversations.get('u2')?.read, 3);
  const two = await fake.connection(1);
  await two.welcome([entry('u2', 3, { read: 0, unread: 3 })]);
  const mark = await two.next(49);
  assert.equal(mark.read, 3);
  two.say({ msgType: 49, errno: 200, conv: 'u2', read: 3, unread: 0, head: 3, user: 1, rid: mark.rid });
  two.say({ msgType: 50, conv: 'u2', read: 2, recv: 3, user: 2 });
  await settle();
  const conv = fake.box.conversations.get('u2');
  assert.deepEqual([conv?.unread, conv?.markDue, conv?.peerRead, conv?.peerRecv], [0, undefined, 2, 3]);
  fake.box.stop();
});

test('47 tells what is stored, at most once a second', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  one.say(push('u2', 1));
  assert.deepEqual((await one.next(47)).recv, { u2: 1 });
  one.say(push('u2', 2), push('u2', 3));
  await settle();
  assert.ok(!one.sent.some((frame) => frame.msgType === 47), 'not within the same second');
  assert.deepEqual((await one.next(47)).recv, { u2: 3 });
  fake.box.stop();
});

test('what the store has lost comes from the server', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  one.say(push('u2', 1), push('u2', 2), push('u2', 3));
  await settle();
  await fake.store.write({ emptied: ['u2'] });
  const asking = fake.box.history('u2');
  const page = await one.next(48);
  const msgs = [1, 2, 3].map((seq) => {
    const { msgType: _, conv: __, ...rest } = push('u2', seq);
    return rest;
  });
  one.say({ msgType: 48, errno: 200, conv: 'u2', complete: true, floor: 0, from: 1, to: 3, head: 3, msgs, rid: page.rid });
  assert.deepEqual((await asking).msgs.map((msg) => msg.seq), [1, 2, 3]);
  assert.deepEqual((await fake.box.history('u2')).msgs.map((msg) => msg.seq), [1, 2, 3], 'and is stored again');
  fake.box.stop();
});

test('a clock that is set back holds up neither reports nor messages', async (t) => {
  const realNow = Date.now;
  t.after(() => (Date.now = realNow));
  const fake = new Fake();
  const one = await fake.login([entry('u2', 0)]);
  one.say(push('u2', 1));
  await one.next(47);
  const cid = await fake.box.send('u2', 'x');
  await one.next(4);
  one.say({ msgType: 41, cid, errno: 503, errmsg: 'busy', retryAfter: 0.05 });
  Date.now = () => realNow() - 86_400_000;
  assert.equal((await one.next(4)).cid, cid);
  one.say(push('u2', 2));
  assert.deepEqual((await one.next(47)).recv, { u2: 2 });
  fake.box.stop();
});

test('a request to be friends is remembered, whatever is written after it, until it has gone', async () => {
  const fake = new Fake();
  const ask = { msgType: 6, U1: 3, U2: 1, ask: true };
  const one = await fake.login([entry('u3', 7, { last: { ...push('u3', 7, ask, { from: 3 }), conv: undefined } }), entry('u2', 0)]);
  one.say(push('u2', 1, { msgType: 5 }), push('u2', 2), push('u3', 8, {}, { from: 3 }));
  await settle();
  assert.deepEqual(['u2', 'u3'].map((conv) => fake.box.conversations.get(conv)?.asked), [1, 7]);
  fake.box.stop();
});

test('what a 43 has counted is not counted again, and after a loss nothing is read that is not there', async () => {
  const fake = new Fake();
  const one = await fake.login([entry('u2', 1)]);
  one.say(push('u2', 2));
  await until('a message', () => fake.told('message').length === 1);
  one.end({ reason: 'drain', errno: 503, retryAfter: 0.01 });
  const two = await fake.connection(1);
  await two.welcome([entry('u2', 4, { read: 1, unread: 3, peerRead: 4 })], [
    { msgType: 44, conv: 'u2', complete: true, from: 3, to: 4 }, push('u2', 3), push('u2', 4),
  ]);
  await fake.online();
  const conv = () => fake.box.conversations.get('u2');
  assert.equal(conv()?.unread, 3);
  two.say(push('u2', 5));
  await until('the next one', () => conv()?.unread === 4);
  // The database falls back without a new login: 2 is another message now.
  two.say({ msgType: 44, conv: 'u2', complete: true, reset: true, from: 1, to: 2 }, push('u2', 1), push('u2', 2));
  await until('what is there', () => conv()?.seq === 2);
  assert.deepEqual([conv()?.read, conv()?.unread, conv()?.peerRead], [1, 1, 2], 'no mark is above the head');
  const asked = await two.next(49);
  assert.deepEqual([asked.conv, asked.read], ['u2', 0], 'a client is told its mark only if it asks');
  two.say({ msgType: 49, errno: 200, conv: 'u2', head: 2, read: 0, unread: 2, user: 1, rid: asked.rid });
  await until('the answer', () => conv()?.unread === 2);
  assert.equal(conv()?.read, 0);
  // The server tells the marks, which may be lower, and counts messages that come later.
  two.say({ msgType: 44, conv: 'u2', complete: true, reset: true, from: 1, to: 3 },
    { msgType: 49, errno: 200, conv: 'u2', head: 3, read: 0, unread: 2, user: 1 },
    { msgType: 50, conv: 'u2', read: 1, recv: 2, user: 2 }, push('u2', 1), push('u2', 2), push('u2', 3));
  await until('all of it', () => conv()?.seq === 3);
  assert.deepEqual([conv()?.read, conv()?.unread, conv()?.peerRead, conv()?.peerRecv], [0, 2, 1, 2]);
  two.say(push('u2', 4));
  await until('one more', () => conv()?.unread === 3);
  fake.box.stop();
});
