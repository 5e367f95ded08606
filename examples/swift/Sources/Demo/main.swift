// kvstore from Swift: the tour that every folder of examples/ makes in its language.
import Foundation
import KVStore

func text(_ data: Data) -> String { String(decoding: data, as: UTF8.self) }

func show(_ db: Store, _ key: String) throws {
    guard let value = try db.get(Data(key.utf8)) else { return print("\(key): not found") }
    print(value.isEmpty ? "\(key): 0 bytes" : "\(key) = \(text(value))")
}

func binaryKey(_ db: Store) throws {
    let key = Data([0x00, 0xff, 0x0a])
    try db.set(key, Data("binary".utf8))
    let hex = key.map { String(format: "%02x", $0) }.joined()
    print("\(hex) = \(text(try db.get(key)!))")
}

func users(_ db: Store) throws {
    let batch = try Batch() // all of it is written, or nothing
    for (name, born) in ["grace": "1906", "ada": "1815", "alan": "1912"] {
        try batch.set(Data("user:\(name)".utf8), Data(born.utf8))
    }
    try db.write(batch)
    print("batch of \(batch.count) written")

    if try !db.setIfAbsent(Data("user:ada".utf8), Data("2024".utf8)) { print("ada is taken") }

    let scan = try db.scan(prefix: Data("user:".utf8))
    while let (key, value) = try scan.next() { print("\(text(key)) = \(text(value))") }
}

func provokeAnError(_ db: Store) {
    do {
        try db.set(Data(count: 70000), Data())
    } catch let error as KVError {
        print("error \(error.code): \(error.message)")
    } catch {
        print("unexpected: \(error)")
    }
}

func tour(_ path: String) throws {
    let db = try Store(path: path)
    try db.set(Data("greeting".utf8), Data("hello".utf8))
    try show(db, "greeting")
    try show(db, "nothing")
    try db.set(Data("empty".utf8), Data())
    try show(db, "empty")
    try binaryKey(db)
    try users(db)
    provokeAnError(db)
    try db.close()
    print("closed")
}

do {
    try tour(CommandLine.arguments.dropFirst().first ?? "demo.db")
} catch {
    print(error.localizedDescription)
    exit(1)
}
