//! compact, verify, salvage, checkpoint, import.

use std::fs;
use std::path::Path;

use crate::{Kv, dump_of, records};

fn log_bytes(database: &Path) -> u64 {
    let files = fs::read_dir(database).expect("read the database").map(|entry| entry.expect("read the database"));
    let logs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
    logs.map(|file| file.metadata().expect("ask for its size").len()).sum()
}

#[test]
fn compact() {
    let kv = Kv::new();
    let value = "x".repeat(100_000);
    for _ in 0..5 {
        kv.run(["set", "db", "key", &value]).ok();
    }
    assert!(log_bytes(&kv.path("db")) > 500_000);
    let said = kv.run(["compact", "db"]).text();
    assert!(said.starts_with("97.") && said.contains(" KiB, was 48"), "{said}");
    assert!(log_bytes(&kv.path("db")) < 110_000);
    assert_eq!(kv.run(["get", "db", "key"]).text(), value);
}

#[test]
fn verify_finds_damage_and_salvage_saves_the_rest() {
    let kv = Kv::new();
    for key in ["alice", "bob", "carol"] {
        kv.run(["set", "db", key, &key.repeat(100)]).ok();
    }
    let said = kv.run(["verify", "db"]).text();
    assert!(said.contains("3 records"), "{said}");
    let said = kv.run(["salvage", "db", "whole"]).text();
    assert!(said.contains("stored: 3\n") && !said.contains("damaged"), "{said}");
    // One bit, in the value of one key.
    let logs = fs::read_dir(kv.path("db")).expect("read the database").map(|entry| entry.expect("an entry").path());
    let mut flipped = 0;
    for log in logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
        let mut data = fs::read(&log).expect("read a segment");
        if let Some(at) = data.windows(6).position(|window| window == b"bobbob") {
            data[at + 3] ^= 1;
            fs::write(&log, data).expect("write it");
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1);
    let did = kv.run(["verify", "db"]).code(4);
    let said = String::from_utf8(did.out).expect("text");
    assert!(said.contains(".log: offset "), "{said}");
    assert_eq!(did.err, "");
    kv.run(["get", "db", "bob"]).fails(4, "damaged");
    let did = kv.run(["salvage", "db", "saved"]).code(4);
    let said = String::from_utf8(did.out).expect("text");
    assert!(said.contains("stored: 2\n") && said.contains("damaged records or stretches: 1\n"), "{said}");
    assert_eq!(kv.run(["scan", "-sk", "saved"]).text(), "alice\ncarol\n");
    assert_eq!(kv.run(["get", "saved", "carol"]).text(), "carol".repeat(100));
    kv.run(["salvage", "db", "saved"]).code(3);
}

#[test]
fn checkpoint() {
    let kv = Kv::new();
    let text = dump_of(&records());
    kv.feed(["load", "db"], text.as_bytes()).ok();
    kv.run(["checkpoint", "db", "monday"]).ok();
    kv.run(["set", "-x", "db", "00", "00"]).ok();
    kv.run(["checkpoint", "--base", "monday", "db", "tuesday"]).ok();
    assert!(kv.run(["dump", "monday"]).text() == text);
    assert_eq!(kv.run(["get", "-x", "tuesday", "00"]).text(), "00\n");
    assert!(kv.run(["dump", "tuesday"]).text() == kv.run(["dump", "db"]).text());
    kv.run(["checkpoint", "db", "monday"]).code(3);
    // A backup can be written to, and that is nothing to the others.
    kv.run(["set", "monday", "new", "1"]).ok();
    kv.run(["get", "-q", "tuesday", "new"]).code(1);
}

/// A record of the reference engine: the same entry as ours, without a checksum.
fn reference_record(key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let mut entry = 1_700_000_000_000_i64.to_le_bytes().to_vec();
    entry.extend((key.len() as u64).to_le_bytes());
    entry.extend(key);
    entry.push(u8::from(value.is_some()));
    if let Some(value) = value {
        entry.extend((value.len() as u64).to_le_bytes());
        entry.extend(value);
    }
    let mut record = (entry.len() as u64).to_le_bytes().to_vec();
    record.extend(entry);
    record
}

#[test]
fn import() {
    let kv = Kv::new();
    let mut log = reference_record(b"a", Some(b"1"));
    log.extend(reference_record(b"b", Some(b"2")));
    log.extend(reference_record(b"a", None));
    kv.write("old.log", &log);
    kv.run(["import", "db", "old.log"]).ok();
    assert_eq!(kv.run(["scan", "db"]).text(), "b\t2\n");
    // The last record is cut off: the others are taken, and somebody is told.
    kv.write("torn.log", &log[..log.len() - 1]);
    let did = kv.run(["import", "torn", "torn.log"]).code(4);
    assert!(String::from_utf8_lossy(&did.out).contains("torn.log: offset "));
    assert_eq!(kv.run(["scan", "-s", "torn"]).text(), "a\t1\nb\t2\n");
    kv.run(["import", "none", "none.log"]).fails(3, "none.log: No such file");
    assert!(!kv.path("none").exists());
}
