// kvstore, an embedded key-value store, for Node by koffi. Nothing to compile.
//
//     const db = kvstore.open('my.db');
//     db.set('key', 'value');
//     for (const [key, value] of db.scan({ prefix: 'k', sort: true })) ...
//     db.close();
//
// Keys and values go in as strings (in UTF-8), Buffers or Uint8Arrays, and come out as Buffers of their own. Errors are
// KvError; what is no error is a result: undefined, or false. All calls are synchronous.
//
// The library is found where the environment variable KVSTORE_LIBRARY says, or else where the system finds it.
'use strict';

const koffi = require('koffi');

const NAME = process.platform === 'darwin' ? 'libkvstore.0.dylib' : 'libkvstore.so.0';
const library = koffi.load(process.env.KVSTORE_LIBRARY || NAME);

for (const handle of ['kv_store', 'kv_options', 'kv_batch', 'kv_iter', 'kv_snapshot']) koffi.opaque(handle);

// As in kvstore.h, without the pointers to pointers that JavaScript has no use for.
const lib = Object.fromEntries(
  [
    'size_t kv_last_error(_Out_ uint8_t *buf, size_t cap)',
    'int32_t kv_open(const char *path, const kv_options *options, _Out_ kv_store **store)',
    'int32_t kv_close(kv_store *store)',
    'int32_t kv_set(kv_store *store, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)',
    'int32_t kv_get_into(kv_store *store, const uint8_t *key, size_t key_len, _Out_ uint8_t *buf, size_t cap, _Out_ size_t *len)',
    'int32_t kv_exists(kv_store *store, const uint8_t *key, size_t key_len)',
    'int32_t kv_del(kv_store *store, const uint8_t *key, size_t key_len)',
    'int32_t kv_sync(kv_store *store)',
    'int32_t kv_set_if_absent(kv_store *store, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)',
    'int32_t kv_replace_if(kv_store *store, const uint8_t *key, size_t key_len, const uint8_t *expected, size_t expected_len, const uint8_t *value, size_t value_len)',
    'int32_t kv_batch_new(_Out_ kv_batch **batch)',
    'int32_t kv_batch_set(kv_batch *batch, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)',
    'int32_t kv_batch_del(kv_batch *batch, const uint8_t *key, size_t key_len)',
    'int32_t kv_batch_require(kv_batch *batch, const uint8_t *key, size_t key_len, const uint8_t *expected, size_t expected_len)',
    'int32_t kv_batch_require_absent(kv_batch *batch, const uint8_t *key, size_t key_len)',
    'size_t kv_batch_len(const kv_batch *batch)',
    'void kv_batch_free(kv_batch *batch)',
    'int32_t kv_write(kv_store *store, const kv_batch *batch)',
    'int32_t kv_snapshot_new(kv_store *store, _Out_ kv_snapshot **snapshot)',
    'void kv_snapshot_free(kv_snapshot *snapshot)',
    'int32_t kv_iter_new(kv_store *store, _Out_ kv_iter **iter)',
    'int32_t kv_snapshot_iter(kv_snapshot *snapshot, _Out_ kv_iter **iter)',
    'int32_t kv_iter_keys_only(kv_iter *iter)',
    'int32_t kv_iter_sort(kv_iter *iter)',
    'int32_t kv_iter_prefix(kv_iter *iter, const uint8_t *prefix, size_t prefix_len)',
    'int32_t kv_iter_range(kv_iter *iter, const uint8_t *start, size_t start_len, const uint8_t *end, size_t end_len)',
    'int32_t kv_iter_fill(kv_iter *iter, _Out_ uint8_t *buf, size_t cap, _Out_ size_t *used, _Out_ size_t *count)',
    'void kv_iter_free(kv_iter *iter)',
  ].map((prototype) => [prototype.match(/(\w+)\(/)[1], library.func(prototype)]),
);

const OK = 0, NOT_FOUND = 1, DONE = 2, CONFLICT = 3, BUSY = -6, BUFFER_TOO_SMALL = -10;

/** A call failed; `code` is a value of kv_status. */
class KvError extends Error {
  constructor(code, message) {
    super(message);
    this.name = 'KvError';
    this.code = code;
  }
}

function check(status) {
  if (status >= 0) return status;
  const message = Buffer.alloc(lib.kv_last_error(null, 0) + 1);
  lib.kv_last_error(message, message.length);
  throw new KvError(status, message.toString('utf8', 0, message.length - 1));
}

// A pointer and a length, as C takes bytes.
function bytes(data) {
  const buffer = typeof data === 'string' ? Buffer.from(data) : data;
  return [buffer, buffer.length];
}

function made(make, ...args) {
  const out = [null];
  check(make(...args, out));
  return out[0];
}

/** Changes that write() writes all at once or not at all, and conditions on them. To be closed. */
class Batch {
  #handle = made(lib.kv_batch_new);
  get handle() { return this.#handle; }
  set(key, value) { check(lib.kv_batch_set(this.#handle, ...bytes(key), ...bytes(value))); return this; }
  delete(key) { check(lib.kv_batch_del(this.#handle, ...bytes(key))); return this; }
  require(key, expected) { check(lib.kv_batch_require(this.#handle, ...bytes(key), ...bytes(expected))); return this; }
  requireAbsent(key) { check(lib.kv_batch_require_absent(this.#handle, ...bytes(key))); return this; }
  get size() { return lib.kv_batch_len(this.#handle); }
  close() { lib.kv_batch_free(this.#handle); this.#handle = null; }
}

// Many items for each call of the library: they come packed in one buffer.
function* items(make, handle, { prefix = '', start = '', end = '', sort = false, keysOnly = false }) {
  const iter = made(make, handle);
  try {
    check(lib.kv_iter_prefix(iter, ...bytes(prefix)));
    if (start.length || end.length) check(lib.kv_iter_range(iter, ...bytes(start), ...bytes(end)));
    if (sort) check(lib.kv_iter_sort(iter));
    if (keysOnly) check(lib.kv_iter_keys_only(iter));
    const used = [0], count = [0];
    for (let size = 65536; ; ) {
      const buf = Buffer.allocUnsafeSlow(size); // the items stay in it, so each call has its own
      const status = lib.kv_iter_fill(iter, buf, size, used, count);
      if (status === BUFFER_TOO_SMALL) {
        size = used[0];
      } else if (check(status) === DONE) {
        return;
      } else {
        yield* unpack(buf.subarray(0, used[0]), keysOnly);
      }
    }
  } finally {
    lib.kv_iter_free(iter);
  }
}

function* unpack(packed, keysOnly) {
  for (let at = 0; at < packed.length; ) {
    const middle = at + 8 + packed.readUInt32LE(at);
    const end = middle + packed.readUInt32LE(at + 4);
    const key = packed.subarray(at + 8, middle);
    yield keysOnly ? key : [key, packed.subarray(middle, end)];
    at = end;
  }
}

/** A store as it was at one moment. To be closed. */
class Snapshot {
  #handle;
  constructor(handle) { this.#handle = handle; }
  /** As Store.scan(). May outlive the snapshot. */
  scan(options = {}) { return items(lib.kv_snapshot_iter, this.#handle, options); }
  close() { lib.kv_snapshot_free(this.#handle); this.#handle = null; }
}

/** An open database. To be closed. */
class Store {
  #handle;
  #buf = Buffer.alloc(4096);
  constructor(path) { this.#handle = made(lib.kv_open, path, null); }

  set(key, value) { check(lib.kv_set(this.#handle, ...bytes(key), ...bytes(value))); }

  /** The value as a Buffer, or undefined. */
  get(key) {
    const len = [0];
    for (;;) {
      const status = lib.kv_get_into(this.#handle, ...bytes(key), this.#buf, this.#buf.length, len);
      if (status === BUFFER_TOO_SMALL) {
        this.#buf = Buffer.alloc(len[0]);
      } else {
        return check(status) === NOT_FOUND ? undefined : Buffer.from(this.#buf.subarray(0, len[0]));
      }
    }
  }

  has(key) { return check(lib.kv_exists(this.#handle, ...bytes(key))) === OK; }
  /** Whether it was there. */
  delete(key) { return check(lib.kv_del(this.#handle, ...bytes(key))) === OK; }
  /** Whether it was written. */
  setIfAbsent(key, value) {
    return check(lib.kv_set_if_absent(this.#handle, ...bytes(key), ...bytes(value))) === OK;
  }
  /** Whether `key` had the value `expected` and now has `value`. */
  replaceIf(key, expected, value) {
    return check(lib.kv_replace_if(this.#handle, ...bytes(key), ...bytes(expected), ...bytes(value))) === OK;
  }

  /** Writes a batch; throws if one of its conditions does not hold. */
  write(batch) {
    if (check(lib.kv_write(this.#handle, batch.handle)) === CONFLICT) {
      throw new KvError(CONFLICT, 'a condition of the batch does not hold');
    }
  }

  /**
   * Goes through [key, value], or keys, as they are at the first step: those with the `prefix`, and with
   * start <= key < end.
   * One that is begun and not finished keeps the store from closing; `break` and `return` finish it.
   */
  scan(options = {}) { return items(lib.kv_iter_new, this.#handle, options); }

  snapshot() { return new Snapshot(made(lib.kv_snapshot_new, this.#handle)); }
  /** Makes everything acknowledged so far survive power loss. */
  sync() { check(lib.kv_sync(this.#handle)); }

  /** Syncs and closes. Code -6 (busy), and still open, while there are snapshots or unfinished scans. */
  close() {
    const status = lib.kv_close(this.#handle);
    if (status !== BUSY) this.#handle = null;
    check(status);
  }
}

module.exports = { open: (path) => new Store(path), Store, Snapshot, Batch, KvError };
