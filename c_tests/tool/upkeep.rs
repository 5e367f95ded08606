//! compact, checkpoint.

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
