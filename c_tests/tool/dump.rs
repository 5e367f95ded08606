//! dump and load, on their own.

use crate::{Kv, all_bytes, dump_of, hex, records};

const HEADER: &str = "VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n";

#[test]
fn a_dump_is_loaded_and_dumped_again_to_the_byte() {
    let kv = Kv::new();
    let mut records = records();
    records.insert(0, (Vec::new(), b"of the empty key".to_vec()));
    let text = dump_of(&records);
    let said = kv.feed(["load", "first"], text.as_bytes()).text();
    assert_eq!(said, format!("{} records stored\n", records.len()));
    // Records of the dump that is written by hand come in order already.
    let bytevalue = kv.run(["dump", "first"]).text();
    assert!(bytevalue == text);
    let print = kv.run(["dump", "--print", "first"]).text();
    assert!(print.starts_with("VERSION=3\nformat=print\ntype=btree\nHEADER=END\n \n of the empty key\n"));
    assert!(print.contains("\n back\\5cslash \\5c5c\n  \\5c\\5c \n"));
    assert!(print.is_ascii());
    kv.write("dump", &print);
    kv.run(["load", "second", "dump"]).ok();
    assert!(kv.run(["dump", "--format=bytevalue", "second"]).text() == text);
    let unsorted = kv.run(["dump", "-u", "--format", "print", "second"]).ok();
    kv.feed(["load", "third", "-"], &unsorted).ok();
    assert!(kv.run(["dump", "third"]).text() == text);
    assert!(kv.run(["get", "-x", "third", &hex(&all_bytes())]).text().trim_end() == hex(&all_bytes()));
}

#[test]
fn headers_of_other_stores() {
    let kv = Kv::new();
    let lmdb = "VERSION=3\nformat=print\ndatabase=users\ntype=btree\nmapsize=1048576\nmaxreaders=126\n\
                db_pagesize=4096\nHEADER=END\n a\\20\\\\\\5C\n \nDATA=END\n";
    assert_eq!(kv.feed(["load", "a"], lmdb.as_bytes()).text(), "1 records stored\n");
    assert_eq!(kv.run(["scan", "a"]).text(), "a \\5c\\5c\t\n");
    let berkeley = "VERSION=3\nformat=bytevalue\ntype=hash\nh_nelem=7\ndb_pagesize=4096\nkeys=1\nHEADER=END\n \
                    6B\n 76\nDATA=END\n";
    assert_eq!(kv.feed(["load", "b"], berkeley.as_bytes()).text(), "1 records stored\n");
    assert_eq!(kv.run(["scan", "b"]).text(), "k\tv\n");
    let ours = kv.run(["dump", "--lmdb", "b"]).text();
    assert!(ours.contains("\nmapsize=67108864\nHEADER=END\n"), "{ours}");
    assert_eq!(kv.feed(["load", "b"], ours.as_bytes()).text(), "1 records stored\n");
}

#[test]
fn bad_input_is_refused_by_its_line() {
    let cases: &[(&str, &str)] = &[
        ("version=3\n", "line 1: not a dump"),
        ("VERSION=2\nHEADER=END\nDATA=END\n", "line 1: not a dump"),
        ("VERSION=3\nformat=json\nHEADER=END\n", "line 2: this format"),
        ("VERSION=3\ntype=recno\nHEADER=END\n", "line 2: a database of this type has no keys"),
        ("VERSION=3\nkeys=0\nHEADER=END\n", "line 2: this is a dump without keys"),
        ("VERSION=3\nnonsense\n", "line 2: a line of the header has no ="),
        ("VERSION=3\nformat=print\n", "line 3: the input ends before DATA=END"),
        ("VERSION=3\nHEADER=END\n 61\n 62\n", "line 5: the input ends before DATA=END"),
        ("VERSION=3\nHEADER=END\n 61\n 62", "line 4: the input ends before DATA=END"),
        ("VERSION=3\nHEADER=END\n 61\nDATA=END\n", "line 4: the last key has no value"),
        ("VERSION=3\nHEADER=END\n 61\n6b\nDATA=END\n", "line 4: neither a blank and data nor DATA=END"),
        ("VERSION=3\nHEADER=END\n 6\n 61\nDATA=END\n", "line 3: not pairs"),
        ("VERSION=3\nHEADER=END\n 61\n 6x\nDATA=END\n", "line 4: not pairs"),
        ("VERSION=3\nHEADER=END\n 61\r\n 62\r\nDATA=END\r\n", "line 3: not pairs"),
        ("VERSION=3\nformat=print\nHEADER=END\n a\\ b\n c\nDATA=END\n", "line 4: a backslash without two"),
        ("VERSION=3\nHEADER=END\nDATA=END\nmore\n", "line 4: not a dump"),
    ];
    let kv = Kv::new();
    for (input, message) in cases {
        kv.feed(["load", "db"], input.as_bytes()).fails(3, message);
    }
    assert_eq!(kv.run(["scan", "db"]).text(), "", "a batch is stored whole or not at all");
    let long = format!("VERSION=3\n{}=1\n", "x".repeat(5000));
    kv.feed(["load", "db"], long.as_bytes()).fails(3, "line 2: not a line of the header");
    let key = format!("{HEADER} {}\n 00\nDATA=END\n", "00".repeat(65_537));
    kv.feed(["load", "db"], key.as_bytes()).fails(3, "key");
}

#[test]
fn batches_before_a_bad_line_are_stored_and_no_part_of_one_is() {
    let kv = Kv::new();
    let mut input = String::from(HEADER);
    for i in 0..25 {
        input += &format!(" {i:04x}\n {}\n", "00".repeat(100_000));
    }
    let did = kv.feed(["load", "db"], format!("{input} zz\n").as_bytes()).code(3);
    assert!(did.err.contains("line 55: not pairs"), "{}", did.err);
    assert_eq!(did.out, b"20 records stored\n");
    assert_eq!(kv.run(["scan", "db", "--count"]).text(), "20\n");
    // A record that is larger than a batch is one.
    input += &format!(" ff\n {}\n ee\n 00\nDATA=END\n", "11".repeat(3_000_000));
    assert_eq!(kv.feed(["load", "--sync", "db"], input.as_bytes()).text(), "27 records stored\n");
    assert_eq!(kv.run(["get", "-x", "db", "ff"]).text().len(), 6_000_001);
}

#[test]
fn what_is_there_is_kept_if_asked() {
    let kv = Kv::new();
    kv.run(["set", "db", "a", "old"]).ok();
    let input = "VERSION=3\nformat=print\nHEADER=END\n b\n new\n a\n new\n b\n newer\n c\n new\nDATA=END\n";
    let did = kv.feed(["load", "--no-overwrite", "db"], input.as_bytes()).code(1);
    assert_eq!(did.out, b"2 records stored, 2 left out\n");
    assert_eq!(kv.run(["scan", "-s", "db"]).text(), "a\told\nb\tnew\nc\tnew\n");
    assert_eq!(kv.feed(["load", "db"], input.as_bytes()).text(), "4 records stored\n");
    assert_eq!(kv.run(["scan", "-s", "db"]).text(), "a\tnew\nb\tnewer\nc\tnew\n");
    // Many more keys than the memory of those that wait in a batch has room for.
    let many: String = (0..100_000).map(|i| format!(" {i:06}\n {i:06}\n")).collect();
    let many = format!("{HEADER}{many}DATA=END\n");
    assert_eq!(kv.feed(["load", "-n", "many"], many.as_bytes()).text(), "100000 records stored, 0 left out\n");
    let again = kv.feed(["load", "-n", "many"], many.as_bytes()).code(1);
    assert_eq!(again.out, b"0 records stored, 100000 left out\n");
    assert_eq!(kv.run(["scan", "-c", "many"]).text(), "100000\n");
}

#[test]
fn duplicates_are_a_choice() {
    let kv = Kv::new();
    let input = "VERSION=3\nformat=print\nduplicates=1\nHEADER=END\n a\n 1\n b\n 1\n b\n 2\n c\n 1\nDATA=END\n";
    kv.feed(["load", "a"], input.as_bytes()).fails(3, "line 9: another value of the key before");
    assert_eq!(kv.run(["scan", "a"]).text(), "");
    assert_eq!(kv.feed(["load", "--no-overwrite", "b"], input.as_bytes()).code(1).err, "");
    assert_eq!(kv.run(["scan", "-s", "b"]).text(), "a\t1\nb\t1\nc\t1\n");
    kv.feed(["load", "--last", "c"], input.as_bytes()).ok();
    assert_eq!(kv.run(["scan", "-s", "c"]).text(), "a\t1\nb\t2\nc\t1\n");
}

#[test]
fn of_several_databases_one_is_chosen() {
    let kv = Kv::new();
    let one = |name: &str| format!("VERSION=3\nformat=print\ndatabase={name}\nHEADER=END\n {name}\n 1\nDATA=END\n");
    let input = one("users") + &one("orders");
    kv.feed(["load", "a"], input.as_bytes()).fails(3, "line 11: the input holds another database, \"orders\"");
    kv.feed(["load", "--database", "orders", "b"], input.as_bytes()).ok();
    assert_eq!(kv.run(["scan", "b"]).text(), "orders\t1\n");
    kv.feed(["load", "-d", "none", "c"], input.as_bytes()).fails(1, "no database \"none\"");
}

#[test]
fn the_redis_protocol() {
    let kv = Kv::new();
    kv.run(["set", "-e", "db", "k\\0d\\0a", "\\00v"]).ok();
    let resp = kv.run(["dump", "--format=resp", "db"]).ok();
    assert_eq!(resp, b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$2\r\n\0v\r\n");
}
