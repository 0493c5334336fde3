#!/bin/sh
# Builds what a release consists of: the program, the same bytes wherever it is built with the same toolchain, the bundle, the
# Debian package where cargo-deb is to be had, and the formula with the source archive's checksum.
#
#   packaging/release.sh [--twice]      --twice builds in two directories and compares the programs
set -eu

cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
out=$PWD/target/release-$version
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
export LC_ALL=C TZ=UTC CARGO_INCREMENTAL=0
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS

# No path of this machine is in the program: neither of Rust's sources nor of C's.
build() {
    source=$1
    target=$2
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    sysroot=$(rustc --print sysroot)
    maps="-ffile-prefix-map=$source=/keyward -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$target=/target"
    (
        cd "$source"
        CFLAGS="$maps" CARGO_TARGET_DIR="$target" \
            RUSTFLAGS="--remap-path-prefix=$source=/keyward --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$sysroot=/rust --remap-path-prefix=$target=/target -C link-arg=-Wl,--build-id=none" \
            cargo build --profile dist --locked --package keyward
    )
}

if [ -n "$(git status --porcelain --untracked-files=no)" ]; then
    echo "release.sh: there are changes that are in no commit; a release is a commit" >&2
    exit 1
fi

mkdir -p "$out"
build "$PWD" "$PWD/target"
install -m 0755 target/dist/keyward "$out/keyward"

if [ "${1:-}" = --twice ]; then
    again=$(mktemp -d)
    trap 'rm -rf "$again"' EXIT
    git archive HEAD | (mkdir "$again/source" && tar -x -C "$again/source")
    build "$again/source" "$again/target"
    cmp "$out/keyward" "$again/target/dist/keyward"
    echo "two builds in two directories are the same"
fi

packaging/bundle.sh "$out/keyward" "$out"
if command -v cargo-deb >/dev/null; then
    packaging/deb/build.sh "$out/keyward" "$out"
else
    echo "release.sh: cargo-deb is not installed; there is no Debian package" >&2
fi

git archive --format=tar --prefix="keyward-$version/" HEAD | gzip -n -9 >"$out/keyward-$version.tar.gz"
sum=$(sha256sum "$out/keyward-$version.tar.gz" | cut -d' ' -f1)
url="https://github.com/keyward/keyward/releases/download/v$version/keyward-$version.tar.gz"
sed "s|^  head |  url \"$url\"\n  sha256 \"$sum\"\n  head |" packaging/homebrew/keyward.rb >"$out/keyward.rb"
(cd "$out" && sha256sum keyward keyward-*.tar.gz *.deb 2>/dev/null >SHA256SUMS || true)
cat "$out/SHA256SUMS"
