//! The tour that the folders of examples/ make, each in its language, built and run where this machine has the tools
//! for it, and skipped out loud where it has not. All must print what examples/expected.txt says.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use tempfile::TempDir;

mod build;

/// The library of this very build as if it were installed, and a directory to work in.
struct Stage {
    work: TempDir,
}

impl Stage {
    fn new() -> Stage {
        let stage = Stage { work: build::work_dir() };
        let (lib, built) = (stage.lib(), build::built());
        fs::create_dir_all(lib.join("cmake/kvstore")).expect("make a directory");
        fs::create_dir(lib.join("pkgconfig")).expect("make a directory");
        symlink(build::root().join("include"), stage.prefix().join("include")).expect("make a link");
        let (file, name) = build::shared_names();
        for (file, name) in [(file, file), (file, name), ("libkvstore.a", "libkvstore.a")] {
            symlink(built.join(file), lib.join(name)).expect("make a link");
        }
        stage.fill("kvstore.pc", "pkgconfig");
        stage.fill("kvstoreConfig.cmake", "cmake/kvstore");
        stage.fill("kvstoreConfigVersion.cmake", "cmake/kvstore");
        stage
    }

    fn prefix(&self) -> PathBuf {
        self.work.path().join("prefix")
    }

    fn lib(&self) -> PathBuf {
        self.prefix().join("lib")
    }

    /// What `make install` does with its templates.
    fn fill(&self, template: &str, folder: &str) {
        let (_, name) = build::shared_names();
        let path = build::root().join(format!("include/install/{template}.in"));
        let mut text = fs::read_to_string(path).expect("read a template");
        let prefix = self.prefix();
        for (placeholder, value) in [
            ("@PREFIX@", text_of(&prefix)),
            ("@LIBDIR@", text_of(&prefix.join("lib"))),
            ("@INCLUDEDIR@", text_of(&prefix.join("include"))),
            ("@INCLUDEDIR_FROM_LIBDIR@", "../include"),
            ("@VERSION@", env!("CARGO_PKG_VERSION")),
            ("@VERSION_MAJOR@", env!("CARGO_PKG_VERSION_MAJOR")),
            ("@REALNAME@", name),
            ("@INSTALL_NAME@", name),
            ("@NATIVE_LIBS@", "-ldl -lm"),
            ("@POINTER_SIZE@", if cfg!(target_pointer_width = "64") { "8" } else { "4" }),
        ] {
            text = text.replace(placeholder, value);
        }
        fs::write(self.lib().join(folder).join(template), text).expect("write a file");
    }

    /// A command that finds the library, to be run in the directory to work in.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let loader = if cfg!(target_vendor = "apple") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(self.work.path())
            .env(loader, self.lib())
            .env("KVSTORE_LIBRARY", self.lib().join(build::shared_names().1))
            .env("PKG_CONFIG_PATH", self.lib().join("pkgconfig"));
        command
    }

    fn must(&self, command: &mut Command) -> String {
        let (status, output) = build::execute(command, &self.work.path().join("log"));
        assert!(status.success(), "{:?}: {status}\n{output}", command.get_program());
        output
    }

    /// Runs a tour, which must be the same in all languages, and the same again in a database that is there already.
    fn tour(&self, command: &mut Command) {
        let expected = fs::read_to_string(example("expected.txt")).expect("read what is expected");
        assert_eq!(self.must(command), expected);
        assert_eq!(self.must(command), expected);
        fs::remove_dir_all(self.work.path().join("demo.db")).expect("remove the database");
    }

    /// The words with which pkg-config answers.
    fn pkg_config(&self) -> Vec<String> {
        let output = self.must(self.command("pkg-config").args(["--cflags", "--libs", "kvstore"]));
        output.split_whitespace().map(String::from).collect()
    }

    fn compile(&self, compiler: &str, standard: &str, source: &str) -> PathBuf {
        let program = self.work.path().join("demo");
        let flags = ["-pedantic", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-o"];
        let mut command = self.command(compiler);
        command.arg(format!("-std={standard}")).args(flags).arg(&program).arg(example(source));
        self.must(command.args(self.pkg_config()));
        program
    }

    fn cmake(&self, folder: &str) -> PathBuf {
        let built = self.work.path().join("cmake");
        let prefix = format!("-DCMAKE_PREFIX_PATH={}", text_of(&self.prefix()));
        self.must(self.command("cmake").arg("-S").arg(example(folder)).arg("-B").arg(&built).arg(prefix));
        self.must(self.command("cmake").arg("--build").arg(&built));
        built
    }
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn example(path: &str) -> PathBuf {
    build::root().join("examples").join(path)
}

/// Whether all these commands work, each by one that tells its version; says so if not.
fn have(language: &str, commands: &[&str]) -> bool {
    if ["CFLAGS", "RUSTFLAGS"].iter().any(|name| env::var(name).is_ok_and(|flags| flags.contains("sanitize"))) {
        build::skipped(language, "a library with sanitizers can only be loaded by programs that have them");
        return false;
    }
    for command in commands {
        let mut words = command.split(' ');
        let mut program = Command::new(words.next().expect("a command has a name"));
        if !program.args(words).output().is_ok_and(|output| output.status.success()) {
            build::skipped(language, &format!("`{command}` does not work here"));
            return false;
        }
    }
    true
}

/// What README.md shows under `<!-- from examples/... -->` stands so in that file, but for indentation.
#[test]
fn what_the_readme_shows_is_from_the_examples() {
    let readme = fs::read_to_string(build::root().join("README.md")).expect("read README.md");
    for part in readme.split("\n<!-- from examples/").skip(1) {
        let (path, rest) = part.split_once(" -->").expect("the comment ends");
        let shown = rest.split("```").nth(1).expect("there is a block of code");
        let (_, shown) = shown.split_once('\n').expect("the block has lines");
        let file = fs::read_to_string(example(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(unindented(&file).contains(&unindented(shown)), "{path} does not contain:\n{shown}");
    }
}

fn unindented(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn c_by_pkg_config() {
    for compiler in ["cc", "gcc", "clang"] {
        if have(&format!("C with {compiler}"), &[&format!("{compiler} --version"), "pkg-config --version"]) {
            let stage = Stage::new();
            stage.tour(&mut stage.command(stage.compile(compiler, "c99", "c/demo.c")));
        }
    }
}

#[test]
fn c_by_cmake_shared_and_static() {
    if have("C with CMake", &["cmake --version", "cc --version"]) {
        let stage = Stage::new();
        let built = stage.cmake("c");
        stage.tour(&mut stage.command(built.join("demo")));
        stage.tour(stage.command(built.join("demo-static")).env_remove("LD_LIBRARY_PATH"));
    }
}

#[test]
fn cpp_by_pkg_config() {
    for compiler in ["c++", "g++", "clang++"] {
        if have(&format!("C++ with {compiler}"), &[&format!("{compiler} --version"), "pkg-config --version"]) {
            for standard in ["c++17", "c++20", "c++2b"] {
                let stage = Stage::new();
                stage.tour(&mut stage.command(stage.compile(compiler, standard, "cpp/demo.cpp")));
            }
        }
    }
}

#[test]
fn cpp_by_cmake() {
    if have("C++ with CMake", &["cmake --version", "c++ --version"]) {
        let stage = Stage::new();
        stage.tour(&mut stage.command(stage.cmake("cpp").join("demo")));
    }
}

#[test]
fn go() {
    if have("Go", &["go version", "pkg-config --version", "cc --version"]) {
        let stage = Stage::new();
        let program = stage.work.path().join("demo");
        let go = |arguments: &[&str]| {
            let mut command = stage.command("go");
            command.current_dir(example("go")).env("CGO_ENABLED", "1").env("GOFLAGS", "-buildvcs=false");
            // Go does not notice that pkg-config answers otherwise than for the build in its cache.
            command.env("CGO_LDFLAGS", format!("-L{}", text_of(&stage.lib())));
            stage.must(command.args(arguments));
        };
        go(&["vet", "./..."]);
        go(&["build", "-o", text_of(&program), "."]);
        // Have the rules for pointers passed to C checked as far as they can be.
        stage.tour(stage.command(&program).env("GODEBUG", "cgocheck=2"));
    }
}

#[test]
fn python() {
    if have("Python", &["python3 --version"]) {
        let stage = Stage::new();
        let python = |script: &str| {
            let mut command = stage.command("python3");
            command.args(["-B", "-W", "error"]).arg(example("python").join(script));
            command
        };
        stage.must(python("generate.py").arg("--check"));
        stage.tour(&mut python("demo.py"));
    }
}

#[test]
fn node() {
    if !have("Node", &["node --version", "npm --version"]) {
        return;
    }
    let stage = Stage::new();
    for file in ["package.json", "kvstore.js", "demo.js"] {
        fs::copy(example("node").join(file), stage.work.path().join(file)).expect("copy a file");
    }
    let mut npm = stage.command("npm");
    npm.args(["install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]);
    let (status, output) = build::execute(&mut npm, &stage.work.path().join("log"));
    if !status.success() {
        return build::skipped("Node", &format!("npm cannot install koffi: {output}"));
    }
    stage.tour(stage.command("node").arg("demo.js"));
}

#[test]
fn swift() {
    let stage = Stage::new();
    if have("Swift", &["swift --version"]) {
        let scratch = stage.work.path().join("swift");
        let mut swift = stage.command("swift");
        swift.args(["build", "--package-path"]).arg(example("swift")).arg("--scratch-path").arg(&scratch);
        stage.must(&mut swift);
        stage.tour(&mut stage.command(scratch.join("debug/demo")));
    } else if have("The module of Swift", &["clang --version"]) {
        // What Swift does with the module map, as far as Clang does it for Swift.
        let source = stage.work.path().join("module.m");
        let program = stage.work.path().join("module");
        let map = example("swift/Sources/CKVStore/module.modulemap");
        fs::write(&source, "@import CKVStore;\nint main(void) { return kv_abi_version() != KV_ABI_VERSION; }\n")
            .expect("write a program");
        let mut clang = stage.command("clang");
        clang.args(["-fmodules", "-fmodules-cache-path=modules", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program);
        clang.arg(format!("-fmodule-map-file={}", text_of(&map))).arg(source).args(stage.pkg_config());
        stage.must(&mut clang);
        stage.must(&mut stage.command(program));
    }
}

#[test]
fn java() {
    if !have("Java", &["javac --version", "java --version"]) {
        return;
    }
    let named = env::var_os("JNA_JAR").map(PathBuf::from);
    let Some(jna) = named.or_else(|| Some("/usr/share/java/jna.jar".into())).filter(|jar| jar.exists()) else {
        return build::skipped("Java", "there is no jna.jar; the environment variable JNA_JAR may say where it is");
    };
    let stage = Stage::new();
    let classes = stage.work.path().join("classes");
    fs::create_dir(&classes).expect("make a directory");
    let sources = ["java/KVStore.java", "java/Demo.java"].map(example);
    let path = format!("{}:{}", text_of(&jna), text_of(&classes));
    stage.must(stage.command("javac").args(["-Xlint:all", "-Werror", "-cp", &path, "-d"]).arg(&classes).args(sources));
    let library = format!("-Djna.library.path={}", text_of(&stage.lib()));
    stage.tour(stage.command("java").args([&library, "-cp", &path, "Demo"]));
}

#[test]
fn csharp() {
    let stage = Stage::new();
    let program = stage.work.path().join("demo.exe");
    if have("C# with .NET", &["dotnet --version"]) {
        let built = stage.work.path().join("dotnet");
        let mut dotnet = stage.command("dotnet");
        dotnet.args(["build", "--artifacts-path"]).arg(&built).arg(example("csharp"));
        stage.must(&mut dotnet);
        stage.tour(&mut stage.command(built.join("bin/demo/debug/demo")));
    } else if have("C# with Mono", &["mcs --version", "mono --version"]) {
        let sources = ["csharp/KVStore.cs", "csharp/Demo.cs"].map(example);
        stage.must(stage.command("mcs").arg("-warnaserror").arg(format!("-out:{}", text_of(&program))).args(sources));
        stage.tour(stage.command("mono").arg(&program));
    }
}
