//! Every C program in this folder is a test: compiled as a user would compile it, against the library that
//! cargo has just built, shared and static, and run in an empty directory of its own, which is its argument.
//!
//! A `.cpp` program is compiled once for each standard that its first line names, as in `// c++17 c++20`, or as C++11;
//! for the first one only if it is linked statically, since that makes no difference to the language.
//!
//! Environment:
//! - what the module `build` looks at
//! - `KV_C_WRAPPER`: a command to run the programs under, `valgrind -q --error-exitcode=9` for instance
//! - what the programs themselves look at, see check.h

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use build::Link;

mod build;

/// A program that cannot do its work on this machine says why and exits with this.
const SKIPPED: i32 = 77;

// shared_NAME() and static_NAME() for every NAME.c, written by build.rs.
include!(concat!(env!("OUT_DIR"), "/c_tests.rs"));

fn run(source: &str, link: Link) {
    let standards = standards(source);
    let tried = if matches!(link, Link::Static) { 1 } else { standards.len() };
    for standard in &standards[..tried] {
        let work = build::work_dir();
        let program = build::compile(&[&format!("c_tests/{source}")], standard, link, work.path());
        let data = work.path().join("data");
        fs::create_dir(&data).expect("make the program's directory");
        let wrapper = env::var("KV_C_WRAPPER").unwrap_or_default();
        let mut words = wrapper.split_whitespace().map(Path::new).chain([program.as_path(), &data]);
        let mut command = Command::new(words.next().expect("there is the program at least"));
        let (status, output) = build::execute(command.args(words), &work.path().join("log"));
        if status.code() == Some(SKIPPED) {
            return build::skipped(source, output.trim());
        }
        assert!(status.success(), "{source}, {standard}: {status}\n{output}");
        print!("{output}");
    }
}

fn standards(source: &str) -> Vec<String> {
    if !source.ends_with(".cpp") {
        return vec!["c99".into()];
    }
    let text = fs::read_to_string(build::root().join("c_tests").join(source)).expect("read the program");
    match text.lines().next().and_then(|line| line.strip_prefix("// c++")) {
        Some(named) => format!("c++{named}").split_whitespace().map(String::from).collect(),
        None => vec!["c++11".into()],
    }
}
