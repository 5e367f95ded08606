"""kvstore, an embedded key-value store, by ctypes: nothing to build. Copy this file and kvstore_abi.py.

    with kvstore.open("my.db") as db:
        db[b"key"] = b"value"
        for key, value in db.scan(prefix=b"k", sort=True): ...

Keys and values are bytes. Errors are kvstore.Error; what is no error is a result, or a KeyError for `db[key]`.
Codes and the values of options are in kvstore.abi: `error.code == kvstore.abi.KV_ERR_LOCKED`.
A Store and a Snapshot may be used from any number of threads, a Batch and a scan from one at a time.

The library is found where the environment variable KVSTORE_LIBRARY says, or else where the system finds it.
"""

import ctypes
import ctypes.util
import os
import struct
import sys

import kvstore_abi as abi


def _library():
    name = "libkvstore.0.dylib" if sys.platform == "darwin" else "libkvstore.so.0"
    return os.environ.get("KVSTORE_LIBRARY") or ctypes.util.find_library("kvstore") or name


lib = abi.load(_library())


class Error(Exception):
    """A call failed: `code` is a negative value of kv_status."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Conflict(Exception):
    """A condition of a batch did not hold. Nothing was changed."""


def _check(status):
    if status >= 0:
        return status
    message = ctypes.create_string_buffer(lib.kv_last_error(None, 0) + 1)
    lib.kv_last_error(message, len(message))
    raise Error(status, message.value.decode())


def _copy(pointer, length):
    return ctypes.string_at(pointer, length.value)


class _Handle:
    """What is made by one function of the library and freed by another."""

    def __init__(self, make, *arguments):
        self._handle = ctypes.c_void_p()
        _check(make(*arguments, ctypes.byref(self._handle)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if getattr(self, "_handle", None):
            self._free()

    def close(self):
        """Frees it. Closing twice is fine."""
        self._free()

    def _free(self):
        handle, self._handle = self._handle, None
        type(self)._free_function(handle)


class Batch(_Handle):
    """Changes that Store.write() writes all at once or not at all, and conditions on them."""

    _free_function = lib.kv_batch_free

    def __init__(self):
        super().__init__(lib.kv_batch_new)

    def __setitem__(self, key, value):
        _check(lib.kv_batch_set(self._handle, key, len(key), value, len(value)))

    def __delitem__(self, key):
        _check(lib.kv_batch_del(self._handle, key, len(key)))

    def require(self, key, expected):
        """Only if `key` has the value `expected`; None: only if it is absent."""
        if expected is None:
            _check(lib.kv_batch_require_absent(self._handle, key, len(key)))
        else:
            _check(lib.kv_batch_require(self._handle, key, len(key), expected, len(expected)))

    def clear(self):
        _check(lib.kv_batch_clear(self._handle))

    def __len__(self):
        return lib.kv_batch_len(self._handle)


class _Iter(_Handle):
    _free_function = lib.kv_iter_free


def _scan(iterator, prefix, start, end, sort, keys_only):
    """Many items for each call of the library: they come packed in one buffer."""
    with iterator:
        handle = iterator._handle
        _check(lib.kv_iter_prefix(handle, prefix, len(prefix)))
        if start or end:
            _check(lib.kv_iter_range(handle, start, len(start), end, len(end)))
        if sort:
            _check(lib.kv_iter_sort(handle))
        if keys_only:
            _check(lib.kv_iter_keys_only(handle))
        buf = ctypes.create_string_buffer(65536)
        used, count = ctypes.c_size_t(), ctypes.c_size_t()
        while True:
            status = lib.kv_iter_fill(handle, buf, len(buf), ctypes.byref(used), ctypes.byref(count))
            if status == abi.KV_ERR_BUFFER_TOO_SMALL:
                buf = ctypes.create_string_buffer(used.value)
            elif _check(status) == abi.KV_DONE:
                return
            else:
                yield from _unpack(ctypes.string_at(buf, used.value), keys_only)


def _unpack(packed, keys_only):
    at = 0
    while at < len(packed):
        key_len, value_len = struct.unpack_from("<II", packed, at)
        middle = at + 8 + key_len
        key, at = packed[at + 8 : middle], middle + value_len
        yield key if keys_only else (key, packed[middle:at])


class Snapshot(_Handle):
    """A store as it was at one moment."""

    _free_function = lib.kv_snapshot_free

    def get(self, key, default=None):
        value, length = ctypes.c_void_p(), ctypes.c_size_t()
        status = lib.kv_snapshot_get(self._handle, key, len(key), ctypes.byref(value), ctypes.byref(length))
        return default if _check(status) == abi.KV_NOT_FOUND else _copy(value, length)

    def scan(self, prefix=b"", start=b"", end=b"", sort=False, keys_only=False):
        """As Store.scan(). May outlive the snapshot."""
        return _scan(_Iter(lib.kv_snapshot_iter, self._handle), prefix, start, end, sort, keys_only)


class Store(_Handle):
    """An open database."""

    _free_function = lib.kv_close

    def __init__(self, path, **options):
        """Options are those of kv_option in lower case: `sync=kvstore.abi.KV_SYNC_ALWAYS, read_only=True`."""
        chosen = lib.kv_options_new()
        try:
            for name, value in options.items():
                _check(lib.kv_options_set(chosen, getattr(abi, "KV_OPT_" + name.upper()), value))
            super().__init__(lib.kv_open, os.fsencode(path), chosen)
        finally:
            lib.kv_options_free(chosen)

    def close(self):
        """Syncs and closes. KV_ERR_BUSY, and still open, while there are snapshots or unfinished scans."""
        status = lib.kv_close(self._handle)
        if status != abi.KV_ERR_BUSY:
            self._handle = None
        _check(status)

    def get(self, key, default=None):
        value, length = ctypes.c_void_p(), ctypes.c_size_t()
        status = lib.kv_get(self._handle, key, len(key), ctypes.byref(value), ctypes.byref(length))
        if _check(status) == abi.KV_NOT_FOUND:
            return default
        try:
            return _copy(value, length)
        finally:
            lib.kv_free_buf(value)

    def __getitem__(self, key):
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key, value):
        _check(lib.kv_set(self._handle, key, len(key), value, len(value)))

    def __delitem__(self, key):
        if _check(lib.kv_del(self._handle, key, len(key))) == abi.KV_NOT_FOUND:
            raise KeyError(key)

    def __contains__(self, key):
        return _check(lib.kv_exists(self._handle, key, len(key))) == abi.KV_OK

    def set_if_absent(self, key, value):
        """Returns whether it was written."""
        return _check(lib.kv_set_if_absent(self._handle, key, len(key), value, len(value))) == abi.KV_OK

    def replace_if(self, key, expected, value):
        """Returns whether `key` had the value `expected` and now has `value`."""
        status = lib.kv_replace_if(self._handle, key, len(key), expected, len(expected), value, len(value))
        return _check(status) == abi.KV_OK

    def write(self, batch):
        """Writes a batch; Conflict if one of its conditions does not hold."""
        if _check(lib.kv_write(self._handle, batch._handle)) == abi.KV_CONFLICT:
            raise Conflict("a condition of the batch does not hold")

    def scan(self, prefix=b"", start=b"", end=b"", sort=False, keys_only=False):
        """Yields (key, value), or keys, as they are now: those with the prefix, and with start <= key < end."""
        return _scan(_Iter(lib.kv_iter_new, self._handle), prefix, start, end, sort, keys_only)

    def snapshot(self):
        return Snapshot(lib.kv_snapshot_new, self._handle)

    def sync(self):
        """Makes everything acknowledged so far survive power loss."""
        _check(lib.kv_sync(self._handle))

    def stats(self):
        """The counters of struct kv_stats."""
        stats = abi.kv_stats()
        _check(lib.kv_stats(self._handle, ctypes.byref(stats), ctypes.sizeof(stats)))
        return {name: getattr(stats, name) for name, _ in stats._fields_}


open = Store  # kvstore.open(path), as dbm.open() or sqlite3.connect()
