//! Tests of the command-line tool, `examples/kv/`: it is compiled as `make kv` compiles it, against the library that
//! cargo has just built, and driven as a shell drives it.
//!
//! Environment:
//! - what the module `build` looks at
//! - `KV_C_WRAPPER`: a command to run the tool under, `valgrind -q --error-exitcode=9` for instance

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::{env, fs, thread};

use tempfile::TempDir;

#[path = "../build/mod.rs"]
mod build;

mod command_line;
mod data;
mod dump;
mod interop;
mod upkeep;

/// A directory to work in, with the tool at hand.
struct Kv {
    work: TempDir,
}

/// What a command did.
struct Did {
    /// -1 if a signal ended it.
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Kv {
    fn new() -> Kv {
        Kv { work: build::work_dir() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn write(&self, name: &str, data: impl AsRef<[u8]>) {
        fs::write(self.path(name), data).expect("write a file");
    }

    /// The tool as a command, in the working directory.
    fn command<const N: usize>(&self, words: [&str; N]) -> Command {
        let wrapper = env::var("KV_C_WRAPPER").unwrap_or_default();
        let mut all = wrapper.split_whitespace().map(Path::new).chain([tool()]).chain(words.iter().map(Path::new));
        let mut command = Command::new(all.next().expect("there is the tool at least"));
        command.args(all).current_dir(self.work.path());
        command
    }

    /// Runs the tool with an empty input.
    fn run<const N: usize>(&self, words: [&str; N]) -> Did {
        self.feed(words, b"")
    }

    fn feed<const N: usize>(&self, words: [&str; N], input: &[u8]) -> Did {
        run(&mut self.command(words), input)
    }

    /// Runs another program in the working directory; it must succeed.
    fn other<const N: usize>(&self, program: &str, words: [&str; N], input: &[u8]) -> Vec<u8> {
        let did = run(Command::new(program).args(words).current_dir(self.work.path()), input);
        assert_eq!(did.code, 0, "{program}: {}", did.err);
        did.out
    }
}

impl Did {
    /// The output of a command that must have ended with this exit code.
    #[track_caller]
    fn code(self, code: i32) -> Did {
        assert_eq!(self.code, code, "{}\n{}", String::from_utf8_lossy(&self.out), self.err);
        self
    }

    /// The output of a command that must have succeeded, in silence.
    #[track_caller]
    fn ok(self) -> Vec<u8> {
        assert_eq!(self.err, "");
        self.code(0).out
    }

    #[track_caller]
    fn text(self) -> String {
        String::from_utf8(self.ok()).expect("text")
    }

    /// Checks the exit code and that the message says this.
    #[track_caller]
    fn fails(self, code: i32, message: &str) {
        assert!(self.err.contains(message), "not about {message:?}: {}", self.err);
        self.code(code);
    }
}

fn run(command: &mut Command, input: &[u8]) -> Did {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()));
    let mut pipe = child.stdin.take().expect("a pipe to the program");
    thread::scope(|scope| {
        // It may not read all of it.
        scope.spawn(move || drop(pipe.write_all(input)));
        let output = child.wait_with_output().expect("wait for the program");
        Did {
            code: output.status.code().unwrap_or(-1),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    })
}

/// The tool, compiled by the first test that needs it.
fn tool() -> &'static Path {
    static TOOL: OnceLock<PathBuf> = OnceLock::new();
    TOOL.get_or_init(|| {
        let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kv");
        fs::create_dir_all(&work).expect("make a directory");
        let folder = fs::read_dir(build::root().join("examples/kv")).expect("read the folder of the tool");
        let names = folder.map(|entry| entry.expect("read the folder").file_name().into_string().expect("UTF-8"));
        let sources: Vec<String> =
            names.filter(|name| name.ends_with(".c")).map(|name| format!("examples/kv/{name}")).collect();
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        build::compile(&sources, "c99", build::Link::Static, &work)
    })
}

/// Every byte there is.
fn all_bytes() -> Vec<u8> {
    (0..=255).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Binary records that every store takes, in the order of their keys.
fn records() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut state = 1_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut records = std::collections::BTreeMap::new();
    for _ in 0..2000 {
        let mut bytes = |most| (0..random(most)).map(|_| random(256) as u8).collect::<Vec<u8>>();
        let mut key = bytes(40);
        key.push(b'k');
        records.insert(key, bytes(300));
    }
    records.insert(all_bytes(), all_bytes());
    records.insert(b"back\\slash \\5c".to_vec(), b" \\\\ ".to_vec());
    records.insert(b"empty".to_vec(), Vec::new());
    records.insert(b"large".to_vec(), all_bytes().repeat(1000));
    records.into_iter().collect()
}

/// A dump in the format bytevalue, as one would write it by hand.
fn dump_of(records: &[(Vec<u8>, Vec<u8>)]) -> String {
    let mut text = String::from("VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n");
    for (key, value) in records {
        text += &format!(" {}\n {}\n", hex(key), hex(value));
    }
    text + "DATA=END\n"
}
