//! The binary interface, watched: the library exports what the header declares, a C compiler sees what
//! `include/kvstore.abi.json` says, and nothing that was released changes or goes away.
//!
//! Environment:
//! - `KV_LIBRARY`: the shared library to look at, in place of the one built with this test
//! - `KV_ABI_BASE`: the commit to compare with, in place of the latest release

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs};

#[path = "../src/ffi/build/abi.rs"]
mod abi;
#[path = "../src/ffi/build/json.rs"]
mod json;
#[path = "../src/ffi/build/ownership.rs"]
mod ownership;

use abi::{Abi, Constant, FIELD_SIZE, Function};

const HEADER: &str = "include/kvstore.h";

#[test]
fn the_library_exports_the_functions_of_the_header_and_nothing_else() {
    let library = env::var_os("KV_LIBRARY").map_or_else(built_library, PathBuf::from);
    let flags: &[&str] = if cfg!(target_vendor = "apple") { &["-gU"] } else { &["-D", "--defined-only"] };
    let symbols = output(Command::new("nm").args(flags).arg(&library)).expect("nm lists the symbols");
    let exported = symbols.lines().filter_map(|line| line.rsplit(' ').next());
    let exported: BTreeSet<&str> =
        exported.map(|name| if cfg!(target_vendor = "apple") { &name[1..] } else { name }).collect();
    let abi = here();
    let declared: BTreeSet<&str> = abi.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(exported, declared, "{} and {HEADER}", library.display());
}

#[test]
fn a_compiler_sees_the_layouts_numbers_and_signatures_that_are_listed() {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("make a directory");
    let source = work.path().join("abi.c");
    fs::write(&source, assertions(&here()).to_string()).expect("write the program");
    let compiler = cc::Build::new()
        .cargo_metadata(false)
        .host(env!("TARGET_TRIPLE"))
        .target(env!("TARGET_TRIPLE"))
        .opt_level(0)
        .out_dir(work.path())
        .get_compiler();
    let mut command = compiler.to_command();
    command.args(["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-c", "-I"]).arg(root().join("include"));
    output(command.arg(&source).arg("-o").arg(work.path().join("abi.o"))).expect("the header is as it is listed");
}

#[test]
fn the_list_for_programs_is_that_of_the_header() {
    let listed = fs::read_to_string(root().join("include/kvstore.abi.json")).expect("there is a list");
    assert_eq!(listed, json::write(&here(), env!("CARGO_PKG_VERSION")).expect("the header can be listed"));
}

#[test]
fn the_header_has_the_version_of_the_package() {
    let abi = here();
    let part = |name: &str| abi.constant(&format!("KVSTORE_VERSION{name}")).unwrap_or_default().to_owned();
    assert_eq!(part(""), format!("\"{}\"", env!("CARGO_PKG_VERSION")));
    assert_eq!(part("_MAJOR"), env!("CARGO_PKG_VERSION_MAJOR"));
    assert_eq!(part("_MINOR"), env!("CARGO_PKG_VERSION_MINOR"));
    assert_eq!(part("_PATCH"), env!("CARGO_PKG_VERSION_PATCH"));
}

#[test]
fn nothing_released_has_changed() {
    let git = |arguments: &[&str]| output(Command::new("git").arg("-C").arg(root()).args(arguments));
    // An unpacked archive may lie in the repository of something else.
    let latest = || match root().join(".git").exists() {
        true => git(&["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]),
        false => Err("this is no repository".into()),
    };
    let base = match env::var("KV_ABI_BASE").or_else(|_| latest()) {
        Ok(base) => base.trim().to_owned(),
        Err(reason) => {
            // Past the test harness, which would swallow it.
            let _ = writeln!(io::stderr(), "SKIPPED: no release to compare the interface with: {}", reason.trim());
            return;
        }
    };
    let released = git(&["show", &format!("{base}:{HEADER}")]).expect("the release has a header");
    let released = Abi::parse(&released).expect("the header of the release can be read");
    let broken = changes(&released, &here());
    assert!(broken.is_empty(), "the interface of {base} is broken:\n{}", broken.join("\n"));
}

#[test]
fn additions_pass_and_every_kind_of_change_is_found() {
    let old = "#define KV_ABI_VERSION 1\n#define KV_MAX 5\ntypedef enum { KV_OK = 0, KV_DONE = 2, } kv_status;\n\
        typedef struct kv_store kv_store;\ntypedef int32_t (*kv_progress)(void *ctx, uint64_t done);\n\
        struct kv_stats { uint64_t keys; uint64_t bytes; };\n\
        int32_t kv_close(kv_store *store);\nint32_t kv_set(kv_store *store, const uint8_t *key, size_t key_len);\n";
    let compare = |new: &str| changes(&Abi::parse(old).expect("the old one"), &Abi::parse(new).expect("the new one"));
    assert!(compare(old).is_empty());

    let grown = old.replace("KV_ABI_VERSION 1", "KV_ABI_VERSION 2").replace("KV_DONE = 2", "KV_DONE = 2, KV_NEW = 3");
    let grown = grown.replace("bytes; }", "bytes; uint64_t more; }") + "int32_t kv_del(kv_store *store);\n";
    assert_eq!(compare(&grown), Vec::<String>::new());
    assert_eq!(compare(&grown.replace("KV_ABI_VERSION 2", "KV_ABI_VERSION 1")).len(), 1, "grown, and does not say so");

    for (from, to) in [
        ("KV_MAX 5", "KV_MAX 6"),
        ("KV_DONE = 2", "KV_DONE = 3"),
        ("KV_DONE = 2", "KV_OVER = 2"),
        ("KV_DONE = 2", "KV_DONE = 2, KV_TWIN = 2"),
        ("void *ctx, uint64_t done", "uint64_t done"),
        ("uint64_t keys; uint64_t bytes;", "uint64_t bytes; uint64_t keys;"),
        ("uint64_t bytes;", ""),
        ("const uint8_t *key", "uint8_t *key"),
        ("int32_t kv_set", "void kv_set"),
        ("kv_set", "kv_put"),
    ] {
        let changed = old.replace("KV_ABI_VERSION 1", "KV_ABI_VERSION 2").replace(from, to);
        assert!(!compare(&changed).is_empty(), "{from} -> {to}");
    }
}

/// What a program that was compiled with `old` would miss or misunderstand.
fn changes(old: &Abi, new: &Abi) -> Vec<String> {
    let mut found = Vec::new();
    let versions = |constant: &&Constant| constant.name.contains("_VERSION");
    let constants = |abi: &Abi| names_and_values(abi.constants.iter().filter(|constant| !versions(constant)));
    missing(&mut found, "constant", &constants(old), &constants(new));
    let values = |abi: &Abi| names_and_values(abi.enums.iter().flat_map(|found| &found.values));
    missing(&mut found, "value", &values(old), &values(new));
    for list in &new.enums {
        let numbers: BTreeSet<&str> = list.values.iter().map(|value| value.value.as_str()).collect();
        if numbers.len() < list.values.len() {
            found.push(format!("{} has a number twice", list.name));
        }
    }
    let handles = |abi: &Abi| abi.handles.iter().map(|handle| handle.name.clone()).collect::<Vec<_>>();
    missing(&mut found, "handle", &handles(old), &handles(new));
    let callbacks = |abi: &Abi| abi.callbacks.iter().map(signature).collect::<Vec<_>>();
    missing(&mut found, "callback", &callbacks(old), &callbacks(new));
    let functions = |abi: &Abi| abi.functions.iter().map(signature).collect::<Vec<_>>();
    missing(&mut found, "function", &functions(old), &functions(new));
    // A field that is at its place is a field that has its number.
    let fields = |abi: &Abi| {
        let fields =
            abi.structs.iter().flat_map(|found| found.fields.iter().enumerate().map(move |field| (found, field)));
        fields.map(|(of, (index, name))| format!("{} of {}, number {index}", name, of.name)).collect::<Vec<_>>()
    };
    missing(&mut found, "field", &fields(old), &fields(new));

    let size = |abi: &Abi| functions(abi).len() + values(abi).len() + fields(abi).len() + constants(abi).len();
    let number = |abi: &Abi| abi.constant("KV_ABI_VERSION").and_then(|number| number.parse::<u32>().ok());
    if size(new) > size(old) && number(new) <= number(old) {
        found.push("it has grown since, so KV_ABI_VERSION must grow too".into());
    }
    found
}

fn missing(found: &mut Vec<String>, what: &str, old: &[String], new: &[String]) {
    let gone = old.iter().filter(|entry| !new.contains(entry));
    found.extend(gone.map(|entry| format!("{what} changed or gone: {entry}")));
}

fn names_and_values<'a>(constants: impl Iterator<Item = &'a Constant>) -> Vec<String> {
    constants.map(|constant| format!("{} = {}", constant.name, constant.value)).collect()
}

/// Without the names of the parameters, which no caller depends on.
fn signature(function: &Function) -> String {
    let types: Vec<&str> = function.parameters.iter().map(|parameter| parameter.ctype.as_str()).collect();
    format!("{} {}({})", function.returns, function.name, types.join(", "))
}

/// A program that does not compile unless all is as it is listed.
fn assertions(abi: &Abi) -> impl fmt::Display {
    let mut program = String::from("#include <kvstore.h>\n");
    let mut check = |what: String| program += &format!("_Static_assert({what}, \"as it is listed\");\n");
    for constant in abi.enums.iter().flat_map(|list| &list.values) {
        check(format!("{} == {}", constant.name, constant.value));
    }
    for structure in &abi.structs {
        check(format!("sizeof(struct {}) == {}", structure.name, structure.fields.len() * FIELD_SIZE));
        for (index, field) in structure.fields.iter().enumerate() {
            check(format!("offsetof(struct {}, {field}) == {}", structure.name, index * FIELD_SIZE));
            check(format!("sizeof(((struct {} *)0)->{field}) == {FIELD_SIZE}", structure.name));
        }
    }
    // A pointer to a function takes the address of no other type.
    for function in &abi.functions {
        let pointer =
            signature(function).replace(&format!("{}(", function.name), &format!("(*const is_{})(", function.name));
        let pointer = pointer.replace("()", "(void)");
        program += &format!("extern {pointer};\n{pointer} = {};\n", function.name);
    }
    program
}

fn here() -> Abi {
    Abi::parse(&fs::read_to_string(root().join(HEADER)).expect("there is a header")).expect("the header can be read")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo has put it next to the test.
fn built_library() -> PathBuf {
    let this_test = env::current_exe().expect("know the test's own path");
    this_test.with_file_name(if cfg!(target_vendor = "apple") { "libkvstore.dylib" } else { "libkvstore.so" })
}

/// What a command prints, or what it complains of.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
