import CKVStore
import Foundation

/// A call failed. The code is a negative value of `kv_status`.
public struct KVError: LocalizedError {
    public let code: Int32
    public let message: String
    public var errorDescription: String? { message }
}

/// Passes on what is no error. The message is kept for each thread, so it is fetched at once.
@discardableResult
func check(_ status: Int32) throws -> Int32 {
    guard status < 0 else { return status }
    var message = [CChar](repeating: 0, count: kv_last_error(nil, 0) + 1)
    _ = kv_last_error(&message, message.count)
    throw KVError(code: status, message: String(cString: message))
}

let notFound = Int32(KV_NOT_FOUND.rawValue)
let done = Int32(KV_DONE.rawValue)
let conflict = Int32(KV_CONFLICT.rawValue)

extension Data {
    /// The bytes for the time of a call, as C takes them.
    func withBytes<Result>(_ body: (UnsafePointer<UInt8>?, Int) throws -> Result) rethrows -> Result {
        try withUnsafeBytes { try body($0.bindMemory(to: UInt8.self).baseAddress, $0.count) }
    }
}

/// An open database. May be used by any number of threads. Closed when the last reference to it goes, or by `close()`,
/// which tells of errors.
public final class Store: @unchecked Sendable {
    private var handle: OpaquePointer?

    /// Opens the database in the directory `path`, and creates it if there is none.
    public init(path: String) throws {
        try check(kv_open(path, nil, &handle))
    }

    deinit { kv_close(handle) }

    /// Syncs and closes. Closing twice is fine.
    public func close() throws {
        let status = kv_close(handle)
        if status != Int32(KV_ERR_BUSY.rawValue) { handle = nil }
        try check(status)
    }

    public func set(_ key: Data, _ value: Data) throws {
        try key.withBytes { k, kn in
            try value.withBytes { v, vn in _ = try check(kv_set(handle, k, kn, v, vn)) }
        }
    }

    /// The value is not copied: the `Data` owns the memory of the library.
    public func get(_ key: Data) throws -> Data? {
        var value: UnsafeMutablePointer<UInt8>?
        var length = 0
        let status = try key.withBytes { try check(kv_get(handle, $0, $1, &value, &length)) }
        guard status != notFound, let found = value else { return nil }
        return Data(bytesNoCopy: found, count: length, deallocator: .custom { pointer, _ in
            kv_free_buf(pointer.assumingMemoryBound(to: UInt8.self))
        })
    }

    /// Whether it was there.
    @discardableResult
    public func delete(_ key: Data) throws -> Bool {
        try key.withBytes { try check(kv_del(handle, $0, $1)) } != notFound
    }

    /// Whether it was written.
    public func setIfAbsent(_ key: Data, _ value: Data) throws -> Bool {
        try key.withBytes { k, kn in
            try value.withBytes { v, vn in try check(kv_set_if_absent(handle, k, kn, v, vn)) }
        } != conflict
    }

    /// Makes everything acknowledged so far survive power loss.
    public func sync() throws { try check(kv_sync(handle)) }

    /// Writes a batch, all of it or nothing. Returns false if one of its conditions does not hold.
    @discardableResult
    public func write(_ batch: Batch) throws -> Bool {
        try check(kv_write(handle, batch.handle)) != conflict
    }

    /// The keys with a prefix as they are now, ascending by their bytes.
    public func scan(prefix: Data = Data()) throws -> Scan {
        var iter: OpaquePointer?
        try check(kv_iter_new(handle, &iter))
        return try Scan(iter, of: self, prefix: prefix)
    }
}

/// Changes that are written together, and conditions on them. For one thread at a time.
public final class Batch {
    var handle: OpaquePointer?

    public init() throws { try check(kv_batch_new(&handle)) }
    deinit { kv_batch_free(handle) }

    public var count: Int { kv_batch_len(handle) }

    public func set(_ key: Data, _ value: Data) throws {
        try key.withBytes { k, kn in
            try value.withBytes { v, vn in _ = try check(kv_batch_set(handle, k, kn, v, vn)) }
        }
    }

    public func delete(_ key: Data) throws {
        _ = try key.withBytes { try check(kv_batch_del(handle, $0, $1)) }
    }

    /// The batch is written only if there is no `key`.
    public func requireAbsent(_ key: Data) throws {
        _ = try key.withBytes { try check(kv_batch_require_absent(handle, $0, $1)) }
    }
}

/// Goes through keys and values once: `while let (key, value) = try scan.next()`. For one thread at a time.
public final class Scan {
    private let handle: OpaquePointer?
    private let store: Store // stays open as long as this

    init(_ handle: OpaquePointer?, of store: Store, prefix: Data) throws {
        self.handle = handle
        self.store = store
        _ = try prefix.withBytes { try check(kv_iter_prefix(handle, $0, $1)) }
        try check(kv_iter_sort(handle))
    }

    deinit { kv_iter_free(handle) }

    public func next() throws -> (key: Data, value: Data)? {
        var key: UnsafePointer<UInt8>?, value: UnsafePointer<UInt8>?
        var keyLength = 0, valueLength = 0
        guard try check(kv_iter_next(handle, &key, &keyLength, &value, &valueLength)) != done else { return nil }
        return (Data(UnsafeBufferPointer(start: key, count: keyLength)),
                Data(UnsafeBufferPointer(start: value, count: valueLength)))
    }
}
