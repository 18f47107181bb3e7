// The library in Node against the real server.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { MemoryStore, RayBox, RayBoxError } from '../../../web/raybox.js';
import { Nc, Server } from '../support/server.js';
import { until } from '../support/wait.js';

/** @type {Server} */
let server;
/** @type {RayBox[]} */
const boxes = [];

before(async () => {
  server = await Server.start();
});
after(async () => {
  for (const box of boxes) box.stop();
  await server.stop();
});

/** @param {Partial<import('../../../web/raybox.js').Options>} [options] */
function client(options) {
  const box = new RayBox({ url: `tcp://127.0.0.1:${server.port}`, scale: 0.2, ...options });
  boxes.push(box);
  return box;
}

/** @param {string} name @param {Partial<import('../../../web/raybox.js').Options>} [options] */
async function newcomer(name, options) {
  const box = client(options);
  await box.start();
  await box.register({ name, password: `secret-${name}` });
  await online(box);
  return { box, id: Number(box.account.user) };
}

/** @param {RayBox} box */
const online = (box) => until('online', () => box.status.state === 'online');

/** The texts of a conversation. @param {RayBox} box @param {string} conv */
async function texts(box, conv) {
  const all = [];
  for (let before; ; ) {
    const page = await box.history(conv, { before, limit: 200 });
    all.unshift(...page.msgs);
    if (page.atStart) break;
    before = page.msgs[0].seq;
  }
  return all.filter((msg) => msg.m?.msg !== undefined).map((msg) => msg.m?.msg);
}

test('two clients and a user of level 1 talk in all directions', async () => {
  const ann = await newcomer('ann1');
  const bob = await newcomer('bob1');
  const nc = new Nc(server.port);
  const cat = await nc.join('cat1');
  await ann.box.send(`u${bob.id}`, 'hello bob');
  await until('bob has it', async () => (await texts(bob.box, `u${ann.id}`)).includes('hello bob'));
  await ann.box.send(`u${cat}`, 'hello cat');
  assert.equal((await nc.hear((frame) => frame.msgType === 4)).msg, 'hello cat');
  nc.say({ msgType: 4, FROMID: cat, TOID: ann.id, msg: 'hello ann' });
  await until('ann has it', async () => (await texts(ann.box, `u${cat}`)).includes('hello ann'));
  assert.equal(bob.box.conversations.get(`u${ann.id}`)?.name, 'ann1', 'a name that no overview had is looked up');
  nc.close();
});

test('marks: delivered, read, and unread on another device', async () => {
  const ann = await newcomer('ann2');
  const bob = await newcomer('bob2');
  await ann.box.send(`u${bob.id}`, 'one');
  await until('delivered', () => ann.box.conversations.get(`u${bob.id}`)?.peerRecv === 1);
  const second = client();
  await second.start();
  await second.login({ name: 'bob2', password: 'secret-bob2' });
  await until('unread', () => second.conversations.get(`u${ann.id}`)?.unread === 1);
  await bob.box.markRead(`u${ann.id}`, 1);
  await until('read', () => ann.box.conversations.get(`u${bob.id}`)?.peerRead === 1);
  await until('read there too', () => second.conversations.get(`u${ann.id}`)?.unread === 0);
});

test('killed and restarted while both send: everything once, in one order', async () => {
  const store = new MemoryStore();
  const ann = await newcomer('ann3', { store });
  const bob = await newcomer('bob3');
  const sending = async (/** @type {typeof ann} */ from, /** @type {typeof ann} */ to, /** @type {string} */ name, /** @type {number} */ first) => {
    for (let at = first; at < first + 50; at++) await from.box.send(`u${to.id}`, `${name} ${at}`);
  };
  const committed = () => ann.box.conversations.get(`u${bob.id}`)?.seq ?? 0;
  for (let part = 0; part < 4; part++) {
    const before = committed();
    const both = Promise.all([sending(ann, bob, 'ann', part * 50), sending(bob, ann, 'bob', part * 50)]);
    await until('some more are committed', () => committed() > before);
    if (part < 3) {
      await server.kill();
      await server.launch();
    }
    await both;
  }
  await until('nothing is pending', () => ann.box.pending(`u${bob.id}`).length + bob.box.pending(`u${ann.id}`).length === 0);
  await until('all is there', () => [...ann.box.conversations.values(), ...bob.box.conversations.values()].every((conv) => conv.seq === 400));
  const [hers, his] = [await texts(ann.box, `u${bob.id}`), await texts(bob.box, `u${ann.id}`)];
  assert.deepEqual(hers, his);
  assert.equal(new Set(hers).size, 400);
  for (const name of ['ann', 'bob']) {
    const own = hers.filter((text) => text.startsWith(name));
    assert.deepEqual(own, Array.from({ length: 200 }, (_, at) => `${name} ${at}`));
  }
});

test('groups: made, found, joined, left, renamed, dissolved', async () => {
  const ann = await newcomer('ann4');
  const bob = await newcomer('bob4');
  const group = await ann.box.createGroup('hikers of four', 'every Sunday');
  const found = await bob.box.search('of four');
  assert.deepEqual(found.map(({ id, isGroup }) => [id, isGroup]), [[group, true]]);
  await bob.box.joinGroup(group);
  const conv = `g${group}`;
  await until('bob is shown to be a member', () => ann.box.conversations.get(conv)?.last?.m?.event === 'joined');
  assert.deepEqual((await ann.box.members(conv)).map((member) => member.name), ['ann4', 'bob4']);
  await bob.box.send(conv, 'hello');
  await until('ann has it', async () => (await texts(ann.box, conv)).includes('hello'));
  await ann.box.changeGroup(group, { name: 'walkers' });
  await until('bob sees the name', () => bob.box.conversations.get(conv)?.name === 'walkers');
  await ann.box.removeMember(group, bob.id);
  await until('bob is out', () => bob.box.conversations.get(conv)?.closed === 403);
  await assert.rejects(bob.box.joinGroup(group), (error) => error instanceof RayBoxError && error.errno === 403);
  await ann.box.dissolveGroup(group);
  await until('it is gone', () => ann.box.conversations.get(conv)?.closed === 404);
});

test('friends, blocking, devices, name, password, and the end of an account', async () => {
  const ann = await newcomer('ann5');
  const bob = await newcomer('bob5');
  await ann.box.requestFriend(bob.id);
  await until('the request is there', () => bob.box.conversations.get(`u${ann.id}`)?.last?.m?.msgType === 5);
  assert.equal(await bob.box.addFriend(ann.id), true);
  assert.deepEqual((await ann.box.contacts()).friends, [{ id: bob.id, name: 'bob5' }]);
  await ann.box.watch([bob.id]);
  await until('bob is online', () => ann.box.online.get(bob.id) === true);
  await bob.box.block(ann.id, true);
  await ann.box.send(`u${bob.id}`, 'x');
  await until('refused', () => ann.box.pending(`u${bob.id}`)[0]?.errno === 403);
  await bob.box.block(ann.id, false);
  assert.deepEqual(await bob.box.blocked(), []);
  assert.equal((await ann.box.profile({ name: 'anna5' })).name, 'anna5');
  await ann.box.changePassword('secret-ann5', 'new');
  assert.equal((await ann.box.devices()).length, 1);
  await ann.box.deleteAccount('new');
  await until('signed out', () => ann.box.status.state === 'signedOut');
  const gone = client();
  await gone.start();
  await assert.rejects(gone.login({ name: 'anna5', password: 'new' }), (error) => error instanceof RayBoxError && error.errno === 302);
});

test('edit and recall reach the other side', async () => {
  const ann = await newcomer('ann6');
  const bob = await newcomer('bob6');
  const conv = `u${bob.id}`;
  await ann.box.send(conv, 'teh');
  await ann.box.send(conv, 'oops');
  await until('both are there', () => ann.box.conversations.get(conv)?.seq === 2);
  await ann.box.send(conv, 'the', { edit: 1 });
  await ann.box.recall(conv, 2);
  await until('bob has the changes', async () => {
    const { msgs } = await bob.box.history(`u${ann.id}`);
    return msgs[0]?.m?.msg === 'the' && msgs[1]?.m === null;
  });
});
