//! Every C program in this folder is a test: compiled as a user would compile it, against the library that
//! cargo has just built, shared and static, and run in an empty directory of its own, which is its argument.
//!
//! Environment:
//! - `CC`, `CFLAGS`: the compiler and its flags, for sanitizers for instance
//! - `KV_C_WRAPPER`: a command to run the programs under, `valgrind -q --error-exitcode=9` for instance
//! - what the programs themselves look at, see check.h

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, io::Write, thread};

const TIMEOUT: Duration = Duration::from_secs(300);
/// A program that cannot do its work on this machine says why and exits with this.
const SKIPPED: i32 = 77;

#[derive(Clone, Copy)]
enum Link {
    Shared,
    Static,
}

// shared_NAME() and static_NAME() for every NAME.c, written by build.rs.
include!(concat!(env!("OUT_DIR"), "/c_tests.rs"));

fn run(source: &str, link: Link) {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("make a directory");
    let program = compile(source, link, work.path());
    let data = work.path().join("data");
    fs::create_dir(&data).expect("make the program's directory");
    let log = work.path().join("log");
    let status = execute(&program, &data, &log);
    let output = String::from_utf8_lossy(&fs::read(&log).expect("read the output")).into_owned();
    if status.code() == Some(SKIPPED) {
        // Past the test harness, which would swallow it.
        let _ = writeln!(io::stderr(), "{source} SKIPPED: {}", output.trim());
        return;
    }
    assert!(status.success(), "{source}: {status}\n{output}");
    print!("{output}");
}

fn compile(source: &str, link: Link, work: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cpp = source.ends_with(".cpp");
    let compiler = cc::Build::new()
        .cargo_metadata(false)
        .cpp(cpp)
        .host(env!("TARGET_TRIPLE"))
        .target(env!("TARGET_TRIPLE"))
        .opt_level(1)
        .debug(true)
        .out_dir(work)
        .get_compiler();
    let program = work.join("program");
    let mut command = compiler.to_command();
    command
        .arg(if cpp { "-std=c++11" } else { "-std=c99" })
        .args(["-pedantic", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"])
        .arg(root.join("include"))
        .arg(root.join("c_tests").join(source))
        .arg("-o")
        .arg(&program)
        .args(library(link, work));
    let output = command.output().unwrap_or_else(|error| panic!("run {:?}: {error}", command.get_program()));
    assert!(output.status.success(), "{source} does not compile:\n{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// The arguments that link with the library of this very build, which cargo has put next to the test.
fn library(link: Link, work: &Path) -> Vec<String> {
    let this_test = env::current_exe().expect("know the test's own path");
    let built = this_test.parent().expect("the test is in a directory");
    let text = |path: PathBuf| path.into_os_string().into_string().expect("a path in UTF-8");
    match link {
        Link::Shared => {
            let (file, name) = match cfg!(target_vendor = "apple") {
                true => ("libkvstore.dylib", "libkvstore.0.dylib"),
                false => ("libkvstore.so", "libkvstore.so.0"),
            };
            // Programs ask for the library by the name of its ABI.
            symlink(built.join(file), work.join(name)).expect("make a link");
            vec![text(built.join(file)), format!("-Wl,-rpath,{}", text(work.to_path_buf()))]
        }
        // What the standard library needs, where it is not part of libc.
        Link::Static => vec![text(built.join("libkvstore.a")), "-ldl".into(), "-lm".into()],
    }
}

/// Runs the program in a process group of its own, so that a timeout ends its children too.
fn execute(program: &Path, data: &Path, log: &Path) -> ExitStatus {
    let wrapper = env::var("KV_C_WRAPPER").unwrap_or_default();
    let mut words = wrapper.split_whitespace().map(Path::new).chain([program, data]);
    let output = File::create(log).expect("make a file");
    let mut child = Command::new(words.next().expect("there is the program at least"))
        .args(words)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("share the file"))
        .stderr(output)
        .process_group(0)
        .spawn()
        .expect("start the program");
    let status = wait(&mut child);
    let group = i32::try_from(child.id()).expect("a process id");
    // SAFETY: sends a signal to what may be left of the program's own group.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    status
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
