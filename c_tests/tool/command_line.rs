//! The command line itself: help, mistakes, exit codes, output that cannot be written.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{ptr, thread};

use crate::{Kv, build};

const COMMANDS: [&str; 12] =
    ["get", "set", "del", "scan", "stats", "dump", "load", "import", "compact", "verify", "salvage", "checkpoint"];

#[test]
fn help_explains_each_command_and_the_manual_each_option() {
    let kv = Kv::new();
    let all = kv.run(["--help"]).text();
    assert_eq!(kv.run(["help"]).text(), all);
    let manual = fs::read_to_string(build::root().join("examples/kv/kv.1")).expect("read the manual");
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not in kv help");
        assert!(manual.contains(&format!(".It Cm {command}\n")), "{command} is not in the manual");
        let help = kv.run(["help", command]).text();
        assert_eq!(kv.run([command, "--help"]).text(), help);
        assert!(help.starts_with(&format!("usage: kv {command} ")));
        assert!(help.contains("Example"), "{help}");
        for option in help.lines().filter_map(|line| line.get(6..)?.strip_prefix("--")) {
            let name = option.split(' ').next().expect("a name");
            assert!(manual.contains(&format!("Fl -{name}")) || manual.contains(&format!(", -{name}")), "--{name}");
        }
    }
    assert!(kv.run(["--version"]).text().starts_with(concat!("kv ", env!("CARGO_PKG_VERSION"), ", library ")));
}

#[test]
fn mistakes_are_usage_errors_and_do_nothing() {
    let kv = Kv::new();
    kv.run([]).fails(2, "which command");
    kv.run(["frobnicate"]).fails(2, "no command frobnicate");
    kv.run(["help", "frobnicate"]).fails(2, "no command frobnicate");
    kv.run(["set", "db"]).fails(2, "too few arguments: kv set");
    kv.run(["get", "db", "a", "b"]).fails(2, "too many arguments: kv get");
    kv.run(["set", "db", "-key", "v"]).fails(2, "-key (a key that begins with - goes after --)");
    kv.run(["set", "db", "--frob", "v"]).fails(2, "unknown option --frob");
    kv.run(["set", "db", "a", "b", "--hex=1"]).fails(2, "--hex takes no value");
    kv.run(["set", "--hex", "db", "0g", ""]).fails(2, "0g: not pairs of hexadecimal digits");
    kv.run(["set", "--hex", "db", "000", ""]).fails(2, "000: not pairs");
    kv.run(["set", "--escape", "db", "a\\", ""]).fails(2, "a\\: a backslash needs");
    kv.run(["set", "--escape", "db", "a\\0", ""]).fails(2, "a backslash needs");
    kv.run(["set", "-ex", "db", "a", ""]).fails(2, "exclude each other");
    kv.run(["set", "db", "a", "b", "--if-absent", "--if-value", "c"]).fails(2, "exclude each other");
    kv.run(["scan", "db", "--limit", "ten"]).fails(2, "ten is not a number");
    kv.run(["scan", "db", "--limit"]).fails(2, "--limit needs a value: N");
    kv.run(["scan", "db", "-n"]).fails(2, "-n needs a value: N");
    kv.run(["dump", "db", "--format=xml"]).fails(2, "bytevalue, print or resp");
    assert!(!kv.path("db").exists());
}

#[test]
fn only_commands_that_store_create_a_database() {
    let kv = Kv::new();
    kv.run(["get", "db", "a"]).code(3);
    kv.run(["del", "db", "a"]).code(3);
    kv.run(["scan", "db"]).code(3);
    kv.run(["stats", "db"]).code(3);
    kv.run(["dump", "db"]).code(3);
    kv.run(["compact", "db"]).code(3);
    kv.run(["verify", "db"]).code(3);
    kv.run(["salvage", "db", "new"]).code(3);
    kv.run(["checkpoint", "db", "new"]).code(3);
    kv.run(["set", "db", "a", "b", "--if-value", "c"]).code(3);
    kv.run(["load", "db", "no-such-file"]).fails(3, "no-such-file: No such file");
    kv.run(["load", "db"]).fails(3, "the input is empty");
    kv.feed(["load", "db"], b"a,b\n").fails(3, "line 1: not a dump");
    assert_eq!(fs::read_dir(kv.work.path()).expect("read the directory").count(), 0);
    // And what is there, but is no database, stays as it is.
    kv.write("file", "precious");
    kv.run(["set", "file", "a", "b"]).code(3);
    assert_eq!(fs::read(kv.path("file")).expect("read it"), b"precious");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let kv = Kv::new();
    kv.run(["set", "db", "a", "b"]).ok();
    // Linux only.
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        for words in [["get", "db", "a"], ["dump", "db", "-p"], ["help", "get", "-p"]] {
            let output = kv.command(words).stdout(full.try_clone().expect("share it")).output().expect("run it");
            assert_eq!(output.status.code(), Some(3), "{words:?}");
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(message.contains("writing to standard output: No space left"), "{message}");
        }
    }
    // Whoever reads no more ends the tool, soon and quietly, as any filter.
    kv.feed(["set", "db", "large"], &[b'x'; 1 << 20]).ok();
    let mut child = kv.command(["scan", "db"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run it");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("wait for it");
    assert_eq!(output.status.signal(), Some(libc::SIGPIPE));
    assert_eq!(output.stderr, b"");
}

#[test]
fn a_database_in_use_is_reported_and_ctrl_c_ends_cleanly() {
    let kv = Kv::new();
    let mut command = kv.command(["load", "db"]);
    // The tests may run in the background, where Ctrl-C is ignored, and programs started from there leave it so.
    // SAFETY: signal() may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        })
    };
    let mut load = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run it");
    let mut pipe = load.stdin.take().expect("a pipe to it");
    let mut input = String::from("VERSION=3\nHEADER=END\n");
    for i in 0..40 {
        input += &format!(" {i:04x}\n {}\n", "00".repeat(100_000));
    }
    pipe.write_all(input.as_bytes()).expect("feed it");
    // By now it reads records; what is left of the input fits into the pipe.
    kv.run(["get", "db", "a"]).fails(5, "open");
    kv.run(["set", "db", "a", "b"]).fails(5, "open");
    kv.run(["verify", "db"]).fails(5, "open");
    let id = i32::try_from(load.id()).expect("a process id");
    // SAFETY: sends a signal to the child, which has not been waited for.
    unsafe { libc::kill(id, libc::SIGINT) };
    let output = load.wait_with_output().expect("wait for it");
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let stored: usize = said.strip_suffix(" records stored\n").expect("what was stored").parse().expect("a number");
    // Whole batches of 10 records of 100,002 bytes, all of them but the last one or two.
    assert!(stored.is_multiple_of(10) && (20..40).contains(&stored), "{said}");
    assert_eq!(kv.run(["scan", "db", "--count"]).text(), format!("{stored}\n"));
    kv.run(["verify", "db"]).ok();
}

#[test]
fn a_terminal_gets_a_bar() {
    let kv = Kv::new();
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: both out-parameters are valid; the others may be null.
    let opened = unsafe { libc::openpty(&mut master, &mut slave, ptr::null_mut(), ptr::null_mut(), ptr::null_mut()) };
    assert_eq!(opened, 0);
    // SAFETY: openpty() has just made them, and nobody else owns them.
    let (mut master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    let mut load = kv.command(["load", "db"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(slave).spawn();
    let load = load.as_mut().expect("run it");
    let mut pipe = load.stdin.take().expect("a pipe to it");
    pipe.write_all(b"VERSION=3\nHEADER=END\n").expect("feed it");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(900) {
        pipe.write_all(" 00\n 00\n".repeat(1000).as_bytes()).expect("feed it");
        thread::sleep(Duration::from_millis(50));
    }
    pipe.write_all(b"DATA=END\n").expect("feed it");
    drop(pipe);
    assert!(load.wait().expect("wait for it").success());
    let mut seen = [0; 4096];
    let len = master.read(&mut seen).expect("read what the terminal shows");
    let seen = String::from_utf8_lossy(&seen[..len]).into_owned();
    assert!(seen.starts_with("\r\u{1b}[Kload  ") && seen.contains("KiB/s"), "{seen:?}");
}
