#!/bin/sh
# Installs keyward from an unpacked bundle on a system with systemd, as its packages do: program, units, settings, manual
# pages, the user and its directory. Run again with a newer bundle it upgrades; data and settings stay.
#
#   sudo ./install.sh [--root DIR]      into another root than /, without starting anything
set -eu

cd "$(dirname "$0")"
root=
if [ "${1:-}" = --root ]; then
    root=${2:?a directory is wanted behind --root}
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "install.sh: run it as root" >&2
    exit 1
fi

sha256sum --check --quiet SHA256SUMS
if [ -z "$root" ] && ! getent passwd keyward >/dev/null; then
    useradd --system --user-group --home-dir /var/lib/keyward --no-create-home --shell /usr/sbin/nologin keyward
fi
install -D -m 0755 keyward "$root/usr/bin/keyward.new"
# A running program's file cannot be written; another one can take its name.
mv -f "$root/usr/bin/keyward.new" "$root/usr/bin/keyward"
for unit in keyward.service keyward.socket; do
    install -D -m 0644 "systemd/$unit" "$root/etc/systemd/system/$unit"
done
if [ ! -e "$root/etc/keyward/keyward.toml" ]; then
    install -D -m 0644 config/keyward.toml "$root/etc/keyward/keyward.toml"
fi
install -d "$root/usr/local/share/man/man1" "$root/usr/local/share/doc/keyward"
install -m 0644 man/*.1 "$root/usr/local/share/man/man1/"
install -m 0644 docs/*.md "$root/usr/local/share/doc/keyward/"
install -D -m 0644 completions/keyward "$root/usr/share/bash-completion/completions/keyward"
install -D -m 0644 completions/_keyward "$root/usr/local/share/zsh/site-functions/_keyward"
install -D -m 0644 completions/keyward.fish "$root/usr/share/fish/vendor_completions.d/keyward.fish"
install -d -m 0700 "$root/var/lib/keyward"
if [ -n "$root" ]; then
    exit 0
fi
chown keyward:keyward /var/lib/keyward

if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if systemctl is-active --quiet keyward.service; then
        systemctl restart keyward.service
    else
        systemctl enable --quiet keyward.socket keyward.service
        systemctl start keyward.socket keyward.service
    fi
    echo "keyward runs; the first root key is in /var/lib/keyward/root.key"
else
    echo "systemd does not run here; start it with: keyward serve --config /etc/keyward/keyward.toml --data-dir /var/lib/keyward"
fi
