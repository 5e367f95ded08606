//! get, set, del, scan, stats.

use crate::{Kv, all_bytes, hex};

#[test]
fn set_get_del() {
    let kv = Kv::new();
    assert_eq!(kv.run(["set", "db", "alice", "wonderland"]).text(), "");
    assert_eq!(kv.run(["get", "db", "alice"]).text(), "wonderland");
    kv.run(["get", "--quiet", "db", "alice"]).ok();
    kv.run(["get", "db", "bob"]).fails(1, "key not found");
    assert_eq!(kv.run(["get", "-q", "db", "bob"]).code(1).err, "");
    kv.run(["set", "db", "bob", ""]).ok();
    assert_eq!(kv.run(["get", "db", "bob"]).text(), "");
    // Those that are there are deleted, whatever the others are.
    kv.run(["del", "db", "carol", "bob"]).fails(1, "carol: key not found");
    kv.run(["get", "-q", "db", "bob"]).code(1);
    kv.run(["del", "db", "alice"]).ok();
    assert_eq!(kv.run(["scan", "db"]).text(), "");
    // After the dashes everything is a key or a value.
    kv.run(["set", "db", "--", "--hex", "-x"]).ok();
    assert_eq!(kv.run(["get", "db", "--", "--hex"]).text(), "-x");
}

#[test]
fn conditions() {
    let kv = Kv::new();
    kv.run(["set", "--if-absent", "db", "a", "1"]).ok();
    kv.run(["set", "--if-absent", "db", "a", "2"]).fails(1, "there already");
    kv.run(["set", "--if-value", "2", "db", "a", "3"]).fails(1, "does not have that value");
    kv.run(["set", "--if-value", "1", "db", "b", "3"]).fails(1, "does not have that value");
    assert_eq!(kv.run(["get", "db", "a"]).text(), "1");
    kv.run(["set", "--if-value=1", "db", "a", "3"]).ok();
    assert_eq!(kv.run(["get", "db", "a"]).text(), "3");
}

#[test]
fn values_come_from_standard_input() {
    let kv = Kv::new();
    let large = all_bytes().repeat(20_000);
    kv.feed(["set", "db", "large"], &large).ok();
    assert!(kv.run(["get", "db", "large"]).ok() == large);
    kv.feed(["set", "db", "dash", "-"], b"line\n").ok();
    assert_eq!(kv.run(["get", "db", "dash"]).text(), "line\n");
    kv.run(["set", "db", "nothing"]).ok();
    assert_eq!(kv.run(["get", "db", "nothing"]).text(), "");
    // In another form the input is text, with the end of its line.
    kv.feed(["set", "-x", "db", "00"], b"ff00\n").ok();
    assert_eq!(kv.run(["get", "-x", "db", "00"]).text(), "ff00\n");
    kv.feed(["set", "-x", "db", "00"], b"ff00\0").fails(2, "no text");
}

#[test]
fn bytes_as_escapes_and_digits() {
    let kv = Kv::new();
    kv.run(["set", "-e", "db", "a\\00\\FFb\\\\c", "\\0a tab\\09"]).ok();
    assert_eq!(kv.run(["get", "-e", "db", "a\\00\\ffb\\5cc"]).text(), "\\0a tab\\09\n");
    assert_eq!(kv.run(["get", "-x", "db", "6100ff625c63"]).text(), "0a2074616209\n");
    let all = hex(&all_bytes());
    kv.run(["set", "-x", "db", &all, &all]).ok();
    assert_eq!(kv.run(["get", "-x", "db", &all]).text(), format!("{all}\n"));
    let escaped = kv.run(["get", "-x", "-e", "db", &all]);
    escaped.fails(2, "exclude each other");
    // What scan prints is what --escape takes.
    let printed = kv.run(["scan", "--keys", "--sorted", "--limit", "1", "db"]).text();
    let value = kv.run(["get", "--escape", "db", printed.trim_end()]).text();
    assert_eq!(value, printed);
    kv.run(["del", "-x", "db", &all, "6100ff625c63"]).ok();
    // Without them, a backslash is a backslash.
    kv.run(["set", "db", "\\61", "\\"]).ok();
    assert_eq!(kv.run(["scan", "db"]).text(), "\\5c61\t\\5c\n");
    // The empty key is one.
    kv.run(["set", "db", "", "nothing"]).ok();
    assert_eq!(kv.run(["get", "db", ""]).text(), "nothing");
}

#[test]
fn scan() {
    let kv = Kv::new();
    for key in ["b1", "a2", "c", "a1", "\u{e9}"] {
        kv.run(["set", "db", key, &key.to_uppercase()]).ok();
    }
    let mut unsorted: Vec<String> = kv.run(["scan", "db"]).text().lines().map(String::from).collect();
    unsorted.sort();
    assert_eq!(unsorted, ["\\c3\\a9\t\\c3\\89", "a1\tA1", "a2\tA2", "b1\tB1", "c\tC"]);
    assert_eq!(kv.run(["scan", "db", "-sk"]).text(), "a1\na2\nb1\nc\n\\c3\\a9\n");
    assert_eq!(kv.run(["scan", "db", "--sorted", "--prefix", "a"]).text(), "a1\tA1\na2\tA2\n");
    assert_eq!(kv.run(["scan", "db", "-s", "-k", "--start=a2", "--end=c"]).text(), "a2\nb1\n");
    assert_eq!(kv.run(["scan", "db", "-sk", "--start", "b"]).text(), "b1\nc\n\\c3\\a9\n");
    assert_eq!(kv.run(["scan", "db", "-sk", "--end", "b"]).text(), "a1\na2\n");
    assert_eq!(kv.run(["scan", "db", "-sk", "--prefix", "a", "--start", "a2"]).text(), "a2\n");
    assert_eq!(kv.run(["scan", "db", "-skn", "2"]).text(), "a1\na2\n");
    assert_eq!(kv.run(["scan", "db", "-n0"]).text(), "");
    assert_eq!(kv.run(["scan", "db", "--count"]).text(), "5\n");
    assert_eq!(kv.run(["scan", "db", "--count", "--prefix", "a"]).text(), "2\n");
    assert_eq!(kv.run(["scan", "db", "-sx", "--prefix", "61"]).text(), "6131\t4131\n6132\t4132\n");
    assert_eq!(kv.run(["scan", "db", "-s0"]).text(), "a1\0A1\0a2\0A2\0b1\0B1\0c\0C\0\u{e9}\0\u{c9}\0");
}

#[test]
fn stats() {
    let kv = Kv::new();
    kv.run(["set", "db", "a", "1"]).ok();
    kv.run(["set", "db", "b", "22"]).ok();
    let people = kv.run(["stats", "db"]).text();
    assert!(people.contains("\n  keys                                  2\n"), "{people}");
    let json = kv.run(["stats", "--json", "db"]).text();
    assert!(json.starts_with("{\"stats\": {\"keys\": 2, \"live_bytes\": "), "{json}");
    assert!(json.contains("}, \"recovery\": {\"clean\": 1, "), "{json}");
    assert!(json.ends_with("}}\n"), "{json}");
}
