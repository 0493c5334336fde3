#!/bin/sh
# Makes what packages hold besides the program, by asking the program: completions and manual pages.
#
#   packaging/stage.sh PROGRAM DIR
set -eu

if [ $# -ne 2 ]; then
    echo "usage: packaging/stage.sh PROGRAM DIR" >&2
    exit 2
fi
program=$1
dir=$2

rm -rf "$dir/completions" "$dir/man"
mkdir -p "$dir/completions" "$dir/man"
"$program" completions bash >"$dir/completions/keyward"
"$program" completions zsh >"$dir/completions/_keyward"
"$program" completions fish >"$dir/completions/keyward.fish"
"$program" man --dir "$dir/man"
