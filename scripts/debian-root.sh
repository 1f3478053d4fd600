#!/bin/bash
# A Debian 12 of its own, with PostgreSQL and systemd, to install packages into:
#
#     scripts/debian-root.sh [DIRECTORY]
#
# Prints the directory. What is there already is used again, and must not be written to; remove it to be rid of it. Needs root.
set -euo pipefail

root=${1:-/var/tmp/primacy-test-debian-12}
if [[ -e $root.complete ]]; then
    echo "$root"
    exit
fi
if [[ -e $root ]]; then
    echo "$root is there, but incomplete: remove it, then try again" >&2
    exit 1
fi
work=$(mktemp -d "$root.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
{
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps,iproute2,postgresql-common \
        bookworm "$work" http://deb.debian.org/debian
    # Debian's own cluster would be in the way.
    mkdir -p "$work/etc/postgresql-common/createcluster.d"
    echo 'create_main_cluster = false' > "$work/etc/postgresql-common/createcluster.d/primacy.conf"
    chroot "$work" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql-15
    rm -rf "$work"/var/cache/apt/archives/*.deb
} >&2
chmod 755 "$work"
mv "$work" "$root"
touch "$root.complete"
echo "$root"
