#!/bin/bash
# vip-manager of a later Debian, to test with, without installing it:
#
#     scripts/vip-manager.sh [DIRECTORY]
#
# Debian 12's own speaks etcd's second API only, and knows nothing of the agents' REST API. The program needs nothing but the C library
# of any Debian since 12. Prints its path. What is there already is used again; remove DIRECTORY to be rid of it.
set -euo pipefail

suite=trixie
root=${1:-/var/tmp/primacy-test-vip-manager-3}
program=$root/usr/bin/vip-manager
if [[ ! -x $program ]]; then
    work=$(mktemp -d -p "$(dirname "$root")")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work"/lists/partial
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" > "$work/sources"
    : > "$work/status"
    # An apt of its own, which leaves this system's lists alone.
    apt=(apt-get -q -o "Dir::State::Lists=$work/lists" -o "Dir::State::Status=$work/status"
        -o "Dir::Etc::SourceList=$work/sources" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root -o Debug::NoLocking=1)
    (cd "$work" && "${apt[@]}" update && "${apt[@]}" download vip-manager2) >&2
    dpkg-deb --extract "$work"/vip-manager2_*.deb "$work/root"
    chmod -R a+rX "$work/root"
    # In one step, so that what is in place is whole.
    rm -rf "$root"
    mv "$work/root" "$root"
fi
echo "$program"
