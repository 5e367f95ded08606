//! Data moves between this store and the real tools of others, and comes out as it went in. What is not installed is
//! skipped, and said so.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::{Kv, build, dump_of, records};

fn installed(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).is_file())
}

/// The tools of Berkeley DB: Debian's carry its version in their names.
fn berkeley() -> Option<(&'static str, &'static str)> {
    [("db5.3_load", "db5.3_dump"), ("db_load", "db_dump")].into_iter().find(|tools| installed(tools.0))
}

/// The part of a dump that is no header.
fn data(dump: &[u8]) -> String {
    let text = String::from_utf8(dump.to_vec()).expect("text");
    text.split_once("HEADER=END\n").expect("a header").1.to_string()
}

#[test]
fn from_lmdb_to_berkeley_db_and_back() {
    let (true, Some((db_load, db_dump))) = (installed("mdb_load"), berkeley()) else {
        return build::skipped("interop with LMDB and Berkeley DB", "their tools are not installed");
    };
    let kv = Kv::new();
    let records = records();
    let expected = data(dump_of(&records).as_bytes());
    // A map that all of it fits into.
    let text = dump_of(&records).replacen("HEADER=END", "mapsize=67108864\nHEADER=END", 1);
    for folder in ["first.lmdb", "last.lmdb"] {
        fs::create_dir(kv.path(folder)).expect("make a directory");
    }
    kv.other("mdb_load", ["first.lmdb"], text.as_bytes());
    let lmdb = kv.other("mdb_dump", ["first.lmdb"], b"");
    kv.feed(["load", "from-lmdb"], &lmdb).ok();
    kv.other(db_load, ["berkeley"], &kv.run(["dump", "from-lmdb"]).ok());
    let dumped = kv.other(db_dump, ["berkeley"], b"");
    assert!(data(&dumped) == expected, "Berkeley DB holds something else");
    kv.feed(["load", "from-berkeley"], &kv.other(db_dump, ["-p", "berkeley"], b"")).ok();
    kv.other("mdb_load", ["last.lmdb"], &kv.run(["dump", "--lmdb", "from-berkeley"]).ok());
    let dumped = kv.other("mdb_dump", ["last.lmdb"], b"");
    assert!(data(&dumped) == expected, "LMDB holds something else");
}

#[test]
fn both_read_our_printable_format() {
    let (true, Some((db_load, db_dump))) = (installed("mdb_load"), berkeley()) else {
        return build::skipped("interop with LMDB and Berkeley DB", "their tools are not installed");
    };
    let kv = Kv::new();
    let records = records();
    let expected = data(dump_of(&records).as_bytes());
    kv.feed(["load", "db"], dump_of(&records).as_bytes()).ok();
    kv.other(db_load, ["berkeley"], &kv.run(["dump", "-p", "db"]).ok());
    assert!(data(&kv.other(db_dump, ["berkeley"], b"")) == expected, "Berkeley DB holds something else");
    fs::create_dir(kv.path("lmdb")).expect("make a directory");
    kv.other("mdb_load", ["lmdb"], &kv.run(["dump", "-p", "--lmdb", "db"]).ok());
    assert!(data(&kv.other("mdb_dump", ["lmdb"], b"")) == expected, "LMDB holds something else");
}

#[test]
fn a_named_database_of_lmdb() {
    if !installed("mdb_load") {
        return build::skipped("interop with LMDB", "mdb_load is not installed");
    }
    let kv = Kv::new();
    fs::create_dir(kv.path("lmdb")).expect("make a directory");
    for name in ["orders", "users"] {
        let input = format!("VERSION=3\nformat=print\ntype=btree\nHEADER=END\n of\n {name}\nDATA=END\n");
        kv.other("mdb_load", ["-s", name, "lmdb"], input.as_bytes());
    }
    let all = kv.other("mdb_dump", ["-a", "lmdb"], b"");
    kv.feed(["load", "none"], &all).fails(3, "\"users\", which was not loaded; choose one with --database");
    kv.feed(["load", "-d", "users", "users"], &all).ok();
    assert_eq!(kv.run(["get", "users", "of"]).text(), "users");
    kv.feed(["load", "orders"], &kv.other("mdb_dump", ["-s", "orders", "lmdb"], b"")).ok();
    assert_eq!(kv.run(["get", "orders", "of"]).text(), "orders");
}

/// Ended with the test, however that ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn to_redis() {
    let server = ["redis-server", "valkey-server"].into_iter().find(|name| installed(name));
    let cli = ["redis-cli", "valkey-cli"].into_iter().find(|name| installed(name));
    let (Some(server), Some(cli)) = (server, cli) else {
        return build::skipped("interop with Redis", "redis-server and redis-cli are not installed");
    };
    let kv = Kv::new();
    let records = records();
    kv.feed(["load", "db"], dump_of(&records).as_bytes()).ok();
    // Its path has to be short.
    let folder = tempfile::tempdir().expect("make a directory");
    let socket = folder.path().join("socket");
    let path = socket.to_str().expect("a path in UTF-8");
    let arguments = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir"];
    let mut command = Command::new(server);
    command.args(arguments).arg(folder.path()).stdout(Stdio::null());
    let _server = Server(command.spawn().expect("start the server"));
    let start = Instant::now();
    while !socket.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "the server does not start");
        thread::sleep(Duration::from_millis(10));
    }
    let dump = kv.run(["dump", "--format=resp", "db"]).ok();
    let said = String::from_utf8(kv.other(cli, ["-s", path, "--pipe"], &dump)).expect("text");
    assert!(said.contains(&format!("errors: 0, replies: {}", records.len())), "{said}");
    assert_eq!(kv.other(cli, ["-s", path, "DBSIZE"], b""), format!("{}\n", records.len()).as_bytes());
    for (key, value) in records.iter().step_by(100).chain(records.iter().filter(|(key, _)| key.len() > 41)) {
        let got = kv.other(cli, ["-s", path, "--raw", "-x", "GET"], key);
        assert!(got.strip_suffix(b"\n") == Some(value.as_slice()), "{key:?} has another value");
    }
}
