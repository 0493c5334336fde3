#!/bin/sh
# Builds the Debian package from a program that is built already. Needs cargo-deb (cargo install cargo-deb).
#
#   packaging/deb/build.sh [PROGRAM] [DIR]     from target/release/keyward into target/debian, unless said otherwise
# DEB_FAST=1 compresses little, for trying; DEB_VERSION is another version than that of Cargo.toml.
set -eu

cd "$(dirname "$0")/../.."
program=$(realpath "${1:-target/release/keyward}")
out=${2:-target/debian}

# cargo-deb takes the program from here.
mkdir -p target/release "$out"
[ "$program" = "$(realpath -m target/release/keyward)" ] || cp "$program" target/release/keyward
packaging/stage.sh "$program" target/package
cargo deb --no-build --no-strip --quiet ${DEB_FAST:+--fast} --output "$out/" ${DEB_VERSION:+--deb-version "$DEB_VERSION"}
