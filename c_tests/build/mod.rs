//! What the tests that build and run programs share: the library that cargo has just built, a C compiler with strict
//! warnings, and running a program so that it cannot outlive its test.
//!
//! Environment: `CC`, `CFLAGS`, `CXX`, `CXXFLAGS`, the compilers and their flags, for sanitizers for instance.

// Each test uses a part.
#![allow(dead_code)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, io::Write, thread};

use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Clone, Copy)]
pub enum Link {
    Shared,
    Static,
}

/// The top folder of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An empty directory, gone when the test is.
pub fn work_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("make a directory")
}

/// Says past the test harness, which would swallow it, what this machine cannot do.
pub fn skipped(what: &str, why: &str) {
    let _ = writeln!(io::stderr(), "{what} SKIPPED: {why}");
}

/// Compiles the sources, paths below the top folder, to `program` in `work`. A `standard` with a plus is C++.
pub fn compile(sources: &[&str], standard: &str, link: Link, work: &Path) -> PathBuf {
    let compiler = cc::Build::new()
        .cargo_metadata(false)
        .cpp(standard.contains('+'))
        .host(env!("TARGET_TRIPLE"))
        .target(env!("TARGET_TRIPLE"))
        .opt_level(1)
        .debug(true)
        .out_dir(work)
        .get_compiler();
    let program = work.join("program");
    let mut command = compiler.to_command();
    command
        .arg(format!("-std={standard}"))
        .args(["-pedantic", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"])
        .arg(root().join("include"))
        .args(sources.iter().map(|source| root().join(source)))
        .arg("-o")
        .arg(&program)
        .args(library(link, work));
    let output = command.output().unwrap_or_else(|error| panic!("run {:?}: {error}", command.get_program()));
    assert!(
        output.status.success(),
        "{sources:?} do not compile as {standard}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    program
}

/// The directory in which cargo has put the library of this very build, next to the test.
pub fn built() -> PathBuf {
    let this_test = env::current_exe().expect("know the test's own path");
    this_test.parent().expect("the test is in a directory").to_path_buf()
}

/// The shared library's file, and the name of its ABI, by which programs ask for it.
pub fn shared_names() -> (&'static str, &'static str) {
    match cfg!(target_vendor = "apple") {
        true => ("libkvstore.dylib", "libkvstore.0.dylib"),
        false => ("libkvstore.so", "libkvstore.so.0"),
    }
}

/// The arguments that link with the library; the shared one is found in `work` when the program runs.
pub fn library(link: Link, work: &Path) -> Vec<String> {
    let text = |path: PathBuf| path.into_os_string().into_string().expect("a path in UTF-8");
    match link {
        Link::Shared => {
            let (file, name) = shared_names();
            if !work.join(name).exists() {
                symlink(built().join(file), work.join(name)).expect("make a link");
            }
            vec![text(built().join(file)), format!("-Wl,-rpath,{}", text(work.to_path_buf()))]
        }
        // What the standard library needs, where it is not part of libc.
        Link::Static => vec![text(built().join("libkvstore.a")), "-ldl".into(), "-lm".into()],
    }
}

/// Runs a command in a process group of its own, so that a timeout ends its children too. What it prints, to both
/// streams, is in the file `log` and in the result.
pub fn execute(command: &mut Command, log: &Path) -> (ExitStatus, String) {
    let output = File::create(log).expect("make a file");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("share the file"))
        .stderr(output)
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()));
    let status = wait(&mut child);
    let group = i32::try_from(child.id()).expect("a process id");
    // SAFETY: sends a signal to what may be left of the program's own group.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    (status, String::from_utf8_lossy(&fs::read(log).expect("read the output")).into_owned())
}

fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait for the program") {
            return status;
        }
        if start.elapsed() > TIMEOUT {
            eprintln!("killed after {TIMEOUT:?}");
            child.kill().expect("kill the program");
            return ExitStatus::from_raw(libc::SIGKILL);
        }
        thread::sleep(Duration::from_millis(2));
    }
}
