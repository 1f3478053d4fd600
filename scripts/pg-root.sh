#!/bin/bash
# PostgreSQL of a later Debian, to test with, beside this system's and without touching it:
#
#     scripts/pg-root.sh 17 [DIRECTORY]
#
# downloads the packages with all that they need, down to the C library, unpacks them into DIRECTORY, and makes the
# programs use what lies there. Prints the directory of the programs, for PRIMACY_TEST_PG_BIN. What is there already
# is used again; remove DIRECTORY to be rid of it.
set -euo pipefail

major=${1:?which major version?}
root=${2:-/var/tmp/primacy-test-pg-$major}
case $major in
    17) suite=trixie ;;
    18) suite=forky ;;
    *) echo "no Debian suite is known to have PostgreSQL $major" >&2; exit 1 ;;
esac
bin=$root/usr/lib/postgresql/$major/bin
if [[ -e $root/complete ]]; then
    echo "$bin"
    exit
fi
if [[ -e $root ]]; then
    echo "$root is there, but incomplete: remove it, then try again" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,archives/partial,own}
: > "$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" > "$work/sources"
# An apt of its own, to which nothing is installed yet.
apt=(apt-get -q -o "Dir::State::Lists=$work/lists" -o "Dir::State::Status=$work/status"
    -o "Dir::Etc::SourceList=$work/sources" -o Dir::Etc::SourceParts=- -o Dir::Etc::Preferences=- -o Dir::Etc::PreferencesParts=-
    -o "Dir::Cache::Archives=$work/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o APT::Sandbox::User=root -o Debug::NoLocking=1)
{
    "${apt[@]}" update
    "${apt[@]}" --yes --no-install-recommends --download-only install "postgresql-$major"
    # The tool that edits the programs must run on this system: it is taken from its own release.
    (cd "$work/own" && apt-get -q -o APT::Sandbox::User=root download patchelf)
} >&2

# Beside its place, so that what is in place is whole.
mkdir -p "$work/root"
for package in "$work"/archives/*.deb; do
    # Debian's / has lib as a link into usr; some packages still ship files below lib.
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$work/root" --keep-directory-symlink
done
dpkg-deb --extract "$work"/own/patchelf_*.deb "$work/own"

libraries=$root/usr/lib/x86_64-linux-gnu
for program in "$work/root/usr/lib/postgresql/$major/bin"/*; do
    if "$work/own/usr/bin/patchelf" --print-interpreter "$program" >/dev/null 2>&1; then
        "$work/own/usr/bin/patchelf" --set-interpreter "$libraries/ld-linux-x86-64.so.2" \
            --force-rpath --set-rpath "$libraries" "$program"
    fi
done
chmod -R a+rX "$work/root"
mkdir -p "$(dirname "$root")"
mv "$work/root" "$root"
"$bin/postgres" --version >&2
touch "$root/complete"
echo "$bin"
