// Package kvstore is an embedded key-value store: a binding of libkvstore by cgo, found by pkg-config.
//
// Keys and values are byte slices. What goes in is copied before a call returns, what comes out belongs to the
// caller. A DB and a Snapshot may be used by any number of goroutines at once, a Batch and an Iterator by one.
package kvstore

/*
#cgo pkg-config: kvstore
#include <kvstore.h>
#include <stdlib.h>
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"runtime"
	"unsafe"
)

var (
	// ErrNotFound is returned for a key that is not there.
	ErrNotFound = errors.New("kvstore: not found")
	// ErrConflict is returned if a condition of a write did not hold; nothing was changed.
	ErrConflict = errors.New("kvstore: conflict")
)

// Error is a call that failed.
type Error struct {
	Code    int // a negative value of kv_status
	Message string
}

func (e *Error) Error() string { return e.Message }

// Is compares codes, so that errors.Is(err, kvstore.ErrLocked) works.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// Errors that a caller may want to handle. There are more; see kv_status in kvstore.h.
var (
	ErrLocked  = &Error{C.KV_ERR_LOCKED, "kvstore: locked"}
	ErrBusy    = &Error{C.KV_ERR_BUSY, "kvstore: busy"}
	ErrCorrupt = &Error{C.KV_ERR_CORRUPT, "kvstore: corrupt"}
	ErrNoSpace = &Error{C.KV_ERR_NO_SPACE, "kvstore: no space"}
)

// call turns a status into an error. Messages are kept for each thread, so the goroutine must stay on its own.
func call(function func() C.int32_t) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	switch status := function(); {
	case status == C.KV_NOT_FOUND:
		return ErrNotFound
	case status == C.KV_CONFLICT:
		return ErrConflict
	case status < 0:
		message := make([]byte, C.kv_last_error(nil, 0)+1)
		C.kv_last_error((*C.char)(unsafe.Pointer(&message[0])), C.size_t(len(message)))
		return &Error{int(status), string(message[:len(message)-1])}
	}
	return nil
}

// pointer is what C takes for bytes. Byte slices hold no pointers, and C keeps none, as the rules of cgo demand.
func pointer(bytes []byte) (*C.uint8_t, C.size_t) {
	if len(bytes) == 0 {
		return nil, 0
	}
	return (*C.uint8_t)(unsafe.Pointer(&bytes[0])), C.size_t(len(bytes))
}

// DB is an open database.
type DB struct{ handle *C.kv_store }

// Open opens the database in the directory path, and creates it if there is none.
func Open(path string) (*DB, error) {
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	db := new(DB)
	if err := call(func() C.int32_t { return C.kv_open(cpath, nil, &db.handle) }); err != nil {
		return nil, err
	}
	return db, nil
}

// Close syncs and closes. It is ErrBusy, and the database stays open, while there are snapshots or iterators of it.
// Closing twice is fine.
func (db *DB) Close() error {
	err := call(func() C.int32_t { return C.kv_close(db.handle) })
	if !errors.Is(err, ErrBusy) {
		db.handle = nil
	}
	return err
}

// Set stores value under key.
func (db *DB) Set(key, value []byte) error {
	k, kn := pointer(key)
	v, vn := pointer(value)
	return call(func() C.int32_t { return C.kv_set(db.handle, k, kn, v, vn) })
}

// Get returns the value of key, or ErrNotFound. An empty value is not nil.
func (db *DB) Get(key []byte) ([]byte, error) {
	k, kn := pointer(key)
	var v *C.uint8_t
	var vn C.size_t
	if err := call(func() C.int32_t { return C.kv_get(db.handle, k, kn, &v, &vn) }); err != nil {
		return nil, err
	}
	defer C.kv_free_buf(v)
	return append([]byte{}, unsafe.Slice((*byte)(v), int(vn))...), nil
}

// Delete deletes key, or returns ErrNotFound.
func (db *DB) Delete(key []byte) error {
	k, kn := pointer(key)
	return call(func() C.int32_t { return C.kv_del(db.handle, k, kn) })
}

// SetIfAbsent stores value unless key is there already, which is ErrConflict.
func (db *DB) SetIfAbsent(key, value []byte) error {
	k, kn := pointer(key)
	v, vn := pointer(value)
	return call(func() C.int32_t { return C.kv_set_if_absent(db.handle, k, kn, v, vn) })
}

// ReplaceIf stores value if key has the value expected; ErrConflict if not.
func (db *DB) ReplaceIf(key, expected, value []byte) error {
	k, kn := pointer(key)
	e, en := pointer(expected)
	v, vn := pointer(value)
	return call(func() C.int32_t { return C.kv_replace_if(db.handle, k, kn, e, en, v, vn) })
}

// Sync makes everything acknowledged so far survive power loss.
func (db *DB) Sync() error {
	return call(func() C.int32_t { return C.kv_sync(db.handle) })
}

// Write writes a batch, all of it or nothing; ErrConflict if one of its conditions does not hold.
func (db *DB) Write(batch *Batch) error {
	return call(func() C.int32_t { return C.kv_write(db.handle, batch.handle) })
}

// Batch gathers changes for DB.Write. It must be closed.
type Batch struct{ handle *C.kv_batch }

// NewBatch returns an empty batch.
func NewBatch() (*Batch, error) {
	batch := new(Batch)
	if err := call(func() C.int32_t { return C.kv_batch_new(&batch.handle) }); err != nil {
		return nil, err
	}
	return batch, nil
}

// Set adds storing value under key.
func (b *Batch) Set(key, value []byte) error {
	k, kn := pointer(key)
	v, vn := pointer(value)
	return call(func() C.int32_t { return C.kv_batch_set(b.handle, k, kn, v, vn) })
}

// Delete adds deleting key.
func (b *Batch) Delete(key []byte) error {
	k, kn := pointer(key)
	return call(func() C.int32_t { return C.kv_batch_del(b.handle, k, kn) })
}

// Require adds the condition that key has the value expected.
func (b *Batch) Require(key, expected []byte) error {
	k, kn := pointer(key)
	e, en := pointer(expected)
	return call(func() C.int32_t { return C.kv_batch_require(b.handle, k, kn, e, en) })
}

// RequireAbsent adds the condition that there is no key.
func (b *Batch) RequireAbsent(key []byte) error {
	k, kn := pointer(key)
	return call(func() C.int32_t { return C.kv_batch_require_absent(b.handle, k, kn) })
}

// Len is the number of changes.
func (b *Batch) Len() int { return int(C.kv_batch_len(b.handle)) }

// Close frees the batch. Closing twice is fine.
func (b *Batch) Close() {
	C.kv_batch_free(b.handle)
	b.handle = nil
}

// Snapshot is the database as it was at one moment. It must be closed.
type Snapshot struct{ handle *C.kv_snapshot }

// Snapshot returns the database as it is now.
func (db *DB) Snapshot() (*Snapshot, error) {
	s := new(Snapshot)
	if err := call(func() C.int32_t { return C.kv_snapshot_new(db.handle, &s.handle) }); err != nil {
		return nil, err
	}
	return s, nil
}

// Get returns the value that key had, or ErrNotFound.
func (s *Snapshot) Get(key []byte) ([]byte, error) {
	k, kn := pointer(key)
	var v *C.uint8_t
	var vn C.size_t
	if err := call(func() C.int32_t { return C.kv_snapshot_get(s.handle, k, kn, &v, &vn) }); err != nil {
		return nil, err
	}
	return append([]byte{}, unsafe.Slice((*byte)(v), int(vn))...), nil
}

// Close frees the snapshot. Closing twice is fine.
func (s *Snapshot) Close() {
	C.kv_snapshot_free(s.handle)
	s.handle = nil
}

// Scan chooses what to iterate over. Its zero value is everything, in no order.
type Scan struct {
	Prefix     []byte
	Start, End []byte // Start <= key < End; an empty End is no end
	Sorted     bool   // ascending by the bytes of the keys
	KeysOnly   bool
}

// Iterator goes through keys and values as they were when it was made. It must be closed.
type Iterator struct {
	handle     *C.kv_iter
	buf, rest  []byte // rest is the part of buf that is still to be handed out
	key, value []byte
	err        error
}

// Iterate goes through the database as it is now.
func (db *DB) Iterate(scan Scan) (*Iterator, error) {
	it := new(Iterator)
	if err := call(func() C.int32_t { return C.kv_iter_new(db.handle, &it.handle) }); err != nil {
		return nil, err
	}
	return it.choose(scan)
}

// Iterate goes through the database as it was. The iterator may outlive the snapshot.
func (s *Snapshot) Iterate(scan Scan) (*Iterator, error) {
	it := new(Iterator)
	if err := call(func() C.int32_t { return C.kv_snapshot_iter(s.handle, &it.handle) }); err != nil {
		return nil, err
	}
	return it.choose(scan)
}

func (it *Iterator) choose(scan Scan) (*Iterator, error) {
	err := call(func() C.int32_t {
		p, pn := pointer(scan.Prefix)
		status := C.kv_iter_prefix(it.handle, p, pn)
		if status == C.KV_OK && (len(scan.Start) > 0 || len(scan.End) > 0) {
			s, sn := pointer(scan.Start)
			e, en := pointer(scan.End)
			status = C.kv_iter_range(it.handle, s, sn, e, en)
		}
		if status == C.KV_OK && scan.Sorted {
			status = C.kv_iter_sort(it.handle)
		}
		if status == C.KV_OK && scan.KeysOnly {
			status = C.kv_iter_keys_only(it.handle)
		}
		return status
	})
	if err != nil {
		it.Close()
		return nil, err
	}
	return it, nil
}

// Next goes to the next item and tells whether there is one. If not, Err tells why.
func (it *Iterator) Next() bool {
	if len(it.rest) == 0 && !it.fill() {
		it.key, it.value = nil, nil
		return false
	}
	keyLen := binary.LittleEndian.Uint32(it.rest)
	end := 8 + int(keyLen) + int(binary.LittleEndian.Uint32(it.rest[4:]))
	it.key, it.value = it.rest[8:8+keyLen], it.rest[8+keyLen:end]
	it.rest = it.rest[end:]
	return true
}

// fill fetches many items by one call, for each call into C costs as much as some tens of items.
func (it *Iterator) fill() bool {
	if it.buf == nil {
		it.buf = make([]byte, 64<<10)
	}
	for it.err == nil {
		var status C.int32_t
		var used, count C.size_t
		it.err = call(func() C.int32_t {
			buf, size := pointer(it.buf)
			if status = C.kv_iter_fill(it.handle, buf, size, &used, &count); status == C.KV_ERR_BUFFER_TOO_SMALL {
				return C.KV_OK
			}
			return status
		})
		if it.err == nil && status == C.KV_ERR_BUFFER_TOO_SMALL {
			it.buf = make([]byte, used)
			continue
		}
		it.rest = it.buf[:used]
		return count > 0
	}
	return false
}

// Key is the key of the item. Valid until Next has returned false or fetched more: copy what is to be kept.
func (it *Iterator) Key() []byte { return it.key }

// Value is the value of the item, valid as long as Key.
func (it *Iterator) Value() []byte { return it.value }

// Err is the error that ended the iteration, nil if it came to its end.
func (it *Iterator) Err() error { return it.err }

// Close frees the iterator. Closing twice is fine.
func (it *Iterator) Close() {
	C.kv_iter_free(it.handle)
	it.handle = nil
}
