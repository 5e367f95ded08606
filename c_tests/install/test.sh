#!/bin/sh
# Installs into a scratch directory and checks the files against a list, compiles programs by way of pkg-config, CMake
# and Clang's modules, moves the tree, removes everything again. `make check-install` calls this with the version.
set -eu
version=$1
here=$(dirname "$0")
work=$(mktemp -d "${TMPDIR:-/tmp}/kvstore-install.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
# Quiet unless it fails.
quiet() { "$@" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; }
to() { quiet "$MAKE" --no-print-directory "$@"; }
fail() { echo "check-install: $*" >&2; exit 1; }
skip() { echo "SKIPPED: no $1, so $2 is not tested" >&2; }
has() { command -v "$1" > /dev/null; }
run() { rm -rf "$work/data"; "$@" "$work/data" || fail "$1 failed with status $?"; }
listed() { (cd "$root" && find . ! -type d | sort); }

case $(uname -s) in
Darwin) names="libkvstore.dylib libkvstore.0.dylib libkvstore.$version.dylib"; loader=DYLD_LIBRARY_PATH ;;
*) names="libkvstore.so libkvstore.so.0 libkvstore.so.$version"; loader=LD_LIBRARY_PATH ;;
esac

# What there must be, in a layout as Debian has it, where the libraries are not next to the headers.
prefix=/opt/kv libdir=/opt/kv/lib/triple
expected() {
    for header in include/*.h include/*.hpp; do test ! -e "$header" || echo ".$prefix/$header"; done
    echo ".$prefix/include/kvstore/module.modulemap"
    for name in libkvstore.a $names pkgconfig/kvstore.pc; do echo ".$libdir/$name"; done
    for name in kvstoreConfig.cmake kvstoreConfigVersion.cmake; do echo ".$libdir/cmake/kvstore/$name"; done
    test ! -e examples/kv/kv.mk || printf '%s\n' ".$prefix/bin/kv" ".$prefix/share/man/man1/kv.1"
}
where="DESTDIR=$root PREFIX=$prefix LIBDIR=$libdir"
to install $where
expected | sort > "$work/expected"
listed > "$work/listed"
diff "$work/expected" "$work/listed" || fail "not what was to be installed"

# The debug information is apart, and found.
to install-debug $where
if has addr2line && has nm; then
    library=$root$libdir/libkvstore.so.$version
    address=$(nm -D "$library" | sed -n 's/ T kv_open$//p')
    addr2line -e "$library" "0x$address" | grep -q 'src/ffi/store.rs:' || fail "no line of kv_open is found"
else
    skip addr2line "the debug information"
fi

to uninstall $where
test -z "$(listed)" || fail "left over: $(listed)"
test -z "$(find "$root" -name '*kvstore*')" || fail "a folder is left over"

# Programs, from a place that differs from the one installed into: the packages must not depend on it.
to install DESTDIR="$work/stage" PREFIX=/usr
mv "$work/stage/usr" "$work/moved"
lib=$work/moved/lib

if has pkg-config; then
    pc() { PKG_CONFIG_PATH=$lib/pkgconfig pkg-config --define-variable=prefix="$work/moved" \
        --define-variable=libdir="$lib" --define-variable=includedir="$work/moved/include" "$@" kvstore; }
    pc --validate && test "$(pc --modversion)" = "$version" || fail "kvstore.pc is wrong"
    $CC "$here/program.c" -o "$work/shared" $(pc --cflags --libs)
    run env "$loader=$lib" "$work/shared"
    # Without the shared library, as a static program is linked.
    mkdir "$work/static-only" && ln -s "$lib/libkvstore.a" "$work/static-only/"
    static=$(pc --static --libs | sed "s|-L$lib|-L$work/static-only|")
    $CC "$here/program.c" -o "$work/static" $(pc --cflags) $static
    run "$work/static"
    if $CC -static -o "$work/none" -x c - 2> /dev/null << END
int main(void) { return 0; }
END
    then
        quiet $CC -static "$here/program.c" -o "$work/all-static" $(pc --cflags) $static
        run "$work/all-static"
    fi
else
    skip pkg-config kvstore.pc
fi

if has cmake; then
    quiet cmake -S "$here" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$work/moved" -DWANTED="$version" -DTOO_NEW=99.0
    quiet cmake --build "$work/cmake"
    run "$work/cmake/with-kvstore"
    run "$work/cmake/with-kvstore-static"
else
    skip cmake "the CMake package"
fi

if has clang; then
    printf '@import CKVStore;\nint main(void) { return kv_open(0, 0, 0) == KV_ERR_INVALID ? 0 : 1; }\n' > "$work/module.m"
    clang -fmodules -fmodules-cache-path="$work/modules" -I"$work/moved/include/kvstore" -Wall -Werror \
        "$work/module.m" -o "$work/module" -L"$lib" -lkvstore
    run env "$loader=$lib" "$work/module"
else
    skip clang "the module map"
fi
echo "check-install: ok"
