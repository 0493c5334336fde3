#!/bin/sh
# Makes one archive with everything that a room without the internet needs, from a program that is built already.
#
#   packaging/bundle.sh [--vendor] [PROGRAM] [DIR]    from target/release/keyward into target/bundle, unless said otherwise
#
# With --vendor the sources of every dependency are in it, too (cargo vendor; needs a registry once). The same input gives
# the same bytes: names are sorted, and the time of every file is SOURCE_DATE_EPOCH, or that of the last commit.
set -eu

cd "$(dirname "$0")/.."
vendor=
if [ "${1:-}" = --vendor ]; then
    vendor=yes
    shift
fi
program=$(realpath "${1:-target/release/keyward}")
mkdir -p "${2:-target/bundle}"
out=$(realpath "${2:-target/bundle}")
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
export LC_ALL=C TZ=UTC

version=$("$program" --version | cut -d' ' -f2)
name=keyward-$version-$(uname -m)-$(uname -s | tr '[:upper:]' '[:lower:]')
rm -rf "${out:?}/$name"
mkdir -p "$out/$name/systemd" "$out/$name/docs" "$out/$name/config"

install -m 0755 "$program" "$out/$name/keyward"
packaging/stage.sh "$program" "$out/$name"
install -m 0644 packaging/systemd/keyward.service packaging/systemd/keyward.socket "$out/$name/systemd/"
install -m 0644 packaging/docs/*.md packaging/CHANGELOG.md "$out/$name/docs/"
install -m 0644 config/keyward.toml "$out/$name/config/"
install -m 0644 LICENSE "$out/$name/"
install -m 0755 packaging/install.sh "$out/$name/"
packaging/sbom.py "$out/$name/sbom.cdx.json"

if [ -n "$vendor" ]; then
    mkdir "$out/$name/source"
    git archive HEAD | tar -x -C "$out/$name/source"
    (
        cd "$out/$name/source"
        mkdir -p .cargo
        cargo vendor --locked --versioned-dirs vendor >.cargo/config.toml
    )
    cat >"$out/$name/README.vendor" <<'README'
Sources of keyward and of every dependency are in source/ and source/vendor/. With the toolchain that
source/rust-toolchain.toml names, and a C compiler, this builds the program with no network:

    cd source && cargo build --profile dist --locked --offline --package keyward
README
fi

(cd "$out/$name" && find . -type f ! -name SHA256SUMS | sort | xargs -d '\n' sha256sum >SHA256SUMS)
tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
    --directory "$out" "$name" | gzip -n -9 >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
rm -rf "${out:?}/$name"
echo "$out/$name.tar.gz"
