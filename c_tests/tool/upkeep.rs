//! compact.

use std::fs;
use std::path::Path;

use crate::Kv;

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
