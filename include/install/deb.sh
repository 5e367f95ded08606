#!/bin/sh
# Splits what `make install` has put into STAGE/all into Debian packages.
# usage: deb.sh VERSION ARCHITECTURE STAGE OUTPUT; DEB_MAINTAINER and SOURCE_DATE_EPOCH are in the environment.
set -eu
version=$1 arch=$2 stage=$(cd "$3" && pwd) output=$4
all=$stage/all
triple=$(basename "$(ls -d "$all"/usr/lib/*/)")
revision=$version-1
summary="embedded, log-structured key-value store"

# take PACKAGE FILE...: moves files, named from the root, to a package.
take() {
    package=$1 && shift
    for file in "$@"; do
        mkdir -p "$stage/$package/$(dirname "$file")"
        mv "$all/$file" "$stage/$package/$file"
    done
}

documents() {
    doc=$stage/$1/usr/share/doc/$1
    mkdir -p "$doc"
    {
        echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
        echo "Upstream-Name: kvstore"
        echo
        echo "Files: *"
        sed -n 's/^Copyright /Copyright: /p' LICENSE-MIT
        echo "License: MIT or Apache-2.0"
        echo
        echo "License: MIT"
        sed -e '1,/^Copyright/d' -e 's/^$/./' -e 's/^/ /' LICENSE-MIT | sed '1{/^ \.$/d;}'
        echo
        echo "License: Apache-2.0"
        echo " See /usr/share/common-licenses/Apache-2.0"
    } > "$doc/copyright"
    {
        echo "kvstore ($revision) unstable; urgency=medium"
        echo
        echo "  * Version $version."
        echo
        echo " -- $DEB_MAINTAINER  $(date -u -R -d "@$SOURCE_DATE_EPOCH")"
    } | gzip -9n > "$doc/changelog.Debian.gz"
    chmod 644 "$doc"/*
}

# The shared libraries that a file needs, as packages; without versions if those are of a foreign architecture that is
# not installed here.
needs() {
    mkdir -p "$stage/shlibs/debian"
    printf 'Source: kvstore\n\nPackage: %s\nArchitecture: any\n' "$1" > "$stage/shlibs/debian/control"
    found=$(cd "$stage/shlibs" && dpkg-shlibdeps -O "$2" 2> /dev/null) || found="shlibs:Depends=libc6, libgcc-s1"
    echo "Depends: ${found#shlibs:Depends=}"
}

# build PACKAGE SECTION FIELDS DESCRIPTION
build() {
    root=$stage/$1
    documents "$1"
    mkdir -p "$root/DEBIAN"
    {
        echo "Package: $1"
        echo "Source: kvstore"
        echo "Version: $revision"
        echo "Architecture: $arch"
        echo "Maintainer: $DEB_MAINTAINER"
        echo "Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)"
        test -z "$3" || echo "$3"
        echo "Section: $2"
        echo "Priority: optional"
        echo "Description: $summary$4"
        echo " kvstore keeps keys and values in a directory. Every write is appended to a log,"
        echo " and an index in memory maps each key to the position of its newest record."
        echo " Reads are fast, and what a crash leaves is known."
    } > "$root/DEBIAN/control"
    (cd "$root" && find usr -type f | sort | xargs md5sum) > "$root/DEBIAN/md5sums"
    find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
    find "$root" -type d -exec chmod 755 {} +
    chmod 644 "$root"/DEBIAN/*
    dpkg-deb --root-owner-group --build "$root" "$output/$1_${revision}_$arch.deb"
}

lib=usr/lib/$triple
take libkvstore0 $(cd "$all" && ls "$lib"/libkvstore.so.*)
# Debian's rule. Nobody executes it.
chmod 644 "$stage/libkvstore0/$lib/libkvstore.so.$version"
mkdir -p "$stage/libkvstore0/DEBIAN"
echo "libkvstore 0 libkvstore0 (>= $version)" > "$stage/libkvstore0/DEBIAN/shlibs"
echo "activate-noawait ldconfig" > "$stage/libkvstore0/DEBIAN/triggers"
build libkvstore0 libs "$(needs libkvstore0 "$stage/libkvstore0/$lib/libkvstore.so.$version")
Multi-Arch: same" ""

if test -e "$all/usr/bin/kv"; then
    gzip -9n "$all/usr/share/man/man1/kv.1"
    take kvstore-tools usr/bin/kv usr/share/man/man1/kv.1.gz
    build kvstore-tools database "$(needs kvstore-tools "$stage/kvstore-tools/usr/bin/kv")" " (tool)"
fi

take libkvstore-dev $(cd "$all" && find usr ! -type d | sort)
build libkvstore-dev libdevel "Depends: libkvstore0 (= $revision)
Multi-Arch: same" " (development)"
