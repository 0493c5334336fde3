#!/bin/bash
# Tries the Debian package on a fresh Debian: install, first verified key, upgrade that keeps the data, removal, purge.
#
#   packaging/deb/check.sh [PROGRAM [PREVIOUS]]     needs root, cargo-deb, debootstrap, python3 and a mirror of Debian's packages
#
# PREVIOUS is the program of the version before, which is upgraded from; without it the same program stands for it.
#
# The fresh Debian is a directory made by debootstrap, kept in target/deb-root for the next time. No systemd runs in it: the
# service's command is taken from the unit and started as the unit's user, by hand. What only a booted machine shows is
# left out, and said at the end.
set -euo pipefail

cd "$(dirname "$0")/../.."
program=$(realpath "${1:-target/release/keyward}")
previous=$(realpath "${2:-$program}")
root=$PWD/target/deb-root
suite=${DEB_SUITE:-bookworm}
port=17070
server=

say() { printf '== %s\n' "$*"; }
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }

stop_server() {
    if [[ -n $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}

leave() {
    stop_server
    [[ -z ${programs:-} ]] || rm -rf "$programs"
    for mount in dev proc; do
        mountpoint -q "$root/$mount" && umount "$root/$mount"
    done
    return 0
}
trap leave EXIT

# Runs the unit's command as the unit's user, on a port of this test, until it is ready.
start_server() {
    local line
    line=$(sed -n 's/^ExecStart=//p' "$root/usr/lib/systemd/system/keyward.service")
    # shellcheck disable=SC2086
    chroot --userspec=keyward:keyward "$root" /usr/bin/env -i PATH=/usr/bin $line --listen 127.0.0.1:$port \
        >"$root/tmp/keyward.log" 2>&1 &
    server=$!
    for _ in $(seq 200); do
        if curl --silent --fail --output /dev/null "http://127.0.0.1:$port/health/ready"; then
            return 0
        fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$root/tmp/keyward.log" >&2
    return 1
}

unkey() {
    curl --silent --show-error "http://127.0.0.1:$port/v2/$1" -H "Authorization: Bearer $(cat "$root/var/lib/keyward/root.key")" \
        -H "Content-Type: application/json" -d "$2"
}

verify() { unkey keys.verifyKey "{\"key\": \"$1\"}" | grep -q '"code":"VALID"'; }

say "the packages"
rm -rf target/deb-check
export DEB_FAST=1
# The builds put a program where cargo-deb takes it from: neither of the two may be that file.
programs=$(mktemp -d)
install -m 0755 "$program" "$programs/program"
install -m 0755 "$previous" "$programs/previous"
DEB_VERSION=0.0.1-1 packaging/deb/build.sh "$programs/previous" target/deb-check
packaging/deb/build.sh "$programs/program" target/deb-check
older=$(ls target/deb-check/keyward_0.0.1-1_*.deb)
newer=$(ls target/deb-check/keyward_*.deb | grep -v 0.0.1-1)
dpkg-deb --info "$newer" | sed 's/^/   /'
if command -v lintian >/dev/null; then
    lintian --no-tag-display-limit "$newer" || true
fi

say "a fresh Debian"
if [[ ! -e $root/usr/bin/dpkg ]]; then
    debootstrap --variant=minbase --include=adduser "$suite" "$root" >/dev/null
fi
mkdir -p "$root/proc" "$root/dev"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
mountpoint -q "$root/dev" || mount --bind /dev "$root/dev"
inside dpkg --purge keyward >/dev/null 2>&1 || true
rm -rf "$root/var/lib/keyward"

say "install, first verified key"
began=$(date +%s%N)
cp "$older" "$root/tmp/older.deb"
cp "$newer" "$root/tmp/newer.deb"
inside dpkg --install /tmp/older.deb >/dev/null
[[ $(inside stat -c '%a %U' /var/lib/keyward) == "700 keyward" ]]
inside keyward --version
inside test -e /etc/keyward/keyward.toml
start_server
api=$(unkey apis.createApi '{"name": "first api"}' | grep -o 'api_[A-Za-z0-9]*')
key=$(unkey keys.createKey "{\"apiId\": \"$api\", \"prefix\": \"demo\"}" | grep -o 'demo_[A-Za-z0-9]*')
verify "$key"
say "from dpkg to the first verified key: $((($(date +%s%N) - began) / 1000000)) ms"

say "upgrade: the data stays, changed settings stay"
sed -i '1i region = "test"' "$root/etc/keyward/keyward.toml"
inside dpkg --install --force-confold /tmp/newer.deb >/dev/null
grep -q '^region = "test"' "$root/etc/keyward/keyward.toml"
stop_server
start_server
verify "$key"

say "upgrade under load: no request is lost, behind a socket that lives on as keyward.socket does"
dpkg-deb --fsys-tarfile "$older" | tar -x -O ./usr/bin/keyward >"$programs/older"
chmod 0755 "$programs/older"
packaging/deb/restart_under_load.py --data "$programs/data" "$programs/older" "$root/usr/bin/keyward" "$root/usr/bin/keyward" |
    sed 's/^/   /'

say "removal keeps the data, a purge takes it"
stop_server
inside dpkg --remove keyward >/dev/null
[[ -e $root/var/lib/keyward/FORMAT && ! -e $root/usr/bin/keyward ]]
inside dpkg --install /tmp/newer.deb >/dev/null
start_server
verify "$key"
stop_server
inside dpkg --purge keyward >/dev/null
for gone in /var/lib/keyward /etc/keyward /usr/bin/keyward /usr/lib/systemd/system/keyward.service; do
    [[ ! -e $root$gone ]] || { echo "$gone is still there" >&2; exit 1; }
done
if inside getent passwd keyward >/dev/null; then
    echo "the user is still there" >&2
    exit 1
fi

say "all of it held. Not tried here: systemd itself (enable, socket activation, sandbox), which wants a booted machine"
