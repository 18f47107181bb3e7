// The store in browsers: one IndexedDB database with four object stores. Every write is one
// transaction.

/** @typedef {import('./memory-store.js').Store} Store */
/** @typedef {import('./memory-store.js').Changes} Changes */
/** @typedef {import('./wire.js').Message} Message */

const VERSION = 1;
const ALL = ['meta', 'convs', 'msgs', 'outbox'];

/**
 * The result of a request.
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
const resultOf = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/**
 * Waits for the end of a transaction: everything is stored, or nothing.
 * @param {IDBTransaction} transaction
 * @returns {Promise<void>}
 */
const committed = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error('the browser gave up a transaction'));
  });

/** @implements {Store} */
export class IdbStore {
  /** @type {Promise<IDBDatabase> | undefined} */
  #opened;

  /** @param {string} name of the database */
  constructor(name) {
    this.name = name;
  }

  async open() {
    const transaction = (await this.#database()).transaction(ALL);
    const [account, convs, outbox] = await Promise.all([
      resultOf(transaction.objectStore('meta').get('account')),
      resultOf(transaction.objectStore('convs').getAll()),
      resultOf(transaction.objectStore('outbox').getAll()),
    ]);
    outbox.sort((a, b) => a.order - b.order);
    return { account, convs, outbox };
  }

  /** @param {Changes} changes */
  async write({ cleared, account, convs, msgs, emptied, dropped, cut, outbox, sent }) {
    // The outbox is the only copy of its messages, so this write waits for the disk.
    const durability = outbox?.length ? 'strict' : 'default';
    const transaction = (await this.#database()).transaction(ALL, 'readwrite', { durability });
    const end = committed(transaction);
    const [metaStore, convStore, msgStore, outboxStore] = ALL.map((name) => transaction.objectStore(name));
    if (cleared) for (const name of ALL) transaction.objectStore(name).clear();
    if (account) metaStore.put(account, 'account');
    for (const conv of emptied ?? []) msgStore.delete(IDBKeyRange.bound([conv, 0], [conv, Infinity]));
    for (const conv of convs ?? []) convStore.put(conv);
    for (const msg of msgs ?? []) msgStore.put(msg);
    for (const pending of outbox ?? []) outboxStore.put(pending);
    for (const cid of sent ?? []) outboxStore.delete(cid);
    for (const conv of dropped ?? []) {
      convStore.delete(conv);
      msgStore.delete(IDBKeyRange.bound([conv, 0], [conv, Infinity]));
    }
    for (const [conv, below] of cut ?? []) msgStore.delete(IDBKeyRange.bound([conv, 0], [conv, below]));
    await end;
  }

  /** @param {string} conv @param {number} from @param {number} to @returns {Promise<Message[]>} */
  async read(conv, from, to) {
    const msgs = (await this.#database()).transaction('msgs').objectStore('msgs');
    return resultOf(msgs.getAll(IDBKeyRange.bound([conv, from], [conv, to])));
  }

  close() {
    void this.#opened?.then((database) => database.close());
    this.#opened = undefined;
  }

  #database() {
    this.#opened ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(this.name, VERSION);
      request.onupgradeneeded = () => {
        const database = request.result;
        database.createObjectStore('meta');
        database.createObjectStore('convs', { keyPath: 'conv' });
        database.createObjectStore('msgs', { keyPath: ['conv', 'seq'] });
        database.createObjectStore('outbox', { keyPath: 'cid' });
      };
      request.onsuccess = () => {
        // A newer version in another tab must not wait for this tab.
        request.result.onversionchange = () => this.close();
        // The user has deleted the data of this site.
        request.result.onclose = () => (this.#opened = undefined);
        resolve(request.result);
      };
      request.onerror = () => {
        this.#opened = undefined;
        reject(request.error);
      };
      request.onblocked = () => reject(new Error('another tab holds an older version; close it'));
    });
    return this.#opened;
  }
}
