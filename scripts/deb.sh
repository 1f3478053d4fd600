#!/bin/bash
# Builds the Debian package:
#
#     scripts/deb.sh [DIRECTORY]
#
# It is for the Debian, or a later one, that it is built on. Prints the package's path, by default below target/deb. The same
# sources and tools give the same package.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=${1:-target/deb}

scripts/cargo.sh build --release --locked --bin primacy >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
root=$work/root
install -d "$root"/usr/{bin,lib/systemd/system} "$root"/usr/share/{man/man1,doc/primacy,primacy,fish/vendor_completions.d} \
    "$root"/usr/share/{bash-completion/completions,zsh/vendor-completions} "$root/etc/primacy" "$root/DEBIAN"

install --strip target/release/primacy "$root/usr/bin/primacy"
primacy=$root/usr/bin/primacy
"$primacy" man "$root/usr/share/man/man1"
# A name has a manual page of its own, and its commands have one each, with a dash.
programs=()
for page in "$root"/usr/share/man/man1/*.1; do
    program=$(basename "$page" .1)
    [[ $program == *-* || $program == primacy ]] || programs+=("$program")
done
for program in "${programs[@]}"; do
    ln -s primacy "$root/usr/bin/$program"
done
gzip -9n "$root"/usr/share/man/man1/*
for program in primacy "${programs[@]}"; do
    "$primacy" completions bash "$program" > "$root/usr/share/bash-completion/completions/$program"
    "$primacy" completions zsh "$program" > "$root/usr/share/zsh/vendor-completions/_$program"
    "$primacy" completions fish "$program" > "$root/usr/share/fish/vendor_completions.d/$program.fish"
done

scripts/units.sh "$root/usr/lib/systemd/system"
install -D -m 644 packaging/systemd/primacy.sysusers "$root/usr/lib/sysusers.d/primacy.conf"
install -m 644 packaging/primacy.sample.yml packaging/witness.sample.yml "$root/usr/share/primacy"
cp -r packaging/samples "$root/usr/share/primacy/samples"
install -m 644 packaging/debian/copyright "$root/usr/share/doc/primacy/copyright"
gzip -9nc CHANGELOG.md > "$root/usr/share/doc/primacy/CHANGELOG.md.gz"

SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)
export SOURCE_DATE_EPOCH
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# Debian's tools read a changelog of this form only.
maintainer=$(sed -n 's/^Maintainer: //p' packaging/debian/control.in)
printf 'primacy (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n -- %s  %s\n' "$version" "$maintainer" \
    "$(LC_ALL=C date --utc --rfc-email --date "@$SOURCE_DATE_EPOCH")" |
    gzip -9n > "$root/usr/share/doc/primacy/changelog.gz"
architecture=$(dpkg --print-architecture)
# It wants to see the sources of a package.
mkdir "$work/debian"
printf 'Source: primacy\n\nPackage: primacy\nArchitecture: any\n' > "$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O "$primacy" | sed -n 's/^shlibs:Depends=//p')
size=$(du -sk --exclude DEBIAN "$root" | cut -f 1)
sed -e "s|@VERSION@|$version|" -e "s|@ARCHITECTURE@|$architecture|" -e "s|@DEPENDS@|$depends|" -e "s|@SIZE@|$size|" \
    packaging/debian/control.in > "$root/DEBIAN/control"
install -m 755 packaging/debian/{postinst,prerm,postrm} "$root/DEBIAN"
chmod -R u=rwX,go=rX "$root"

mkdir -p "$directory"
package=$directory/primacy_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >&2
echo "$package"
