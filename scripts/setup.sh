#!/bin/bash
# Installs what building, testing and the demo need, and only what is missing. Quick when nothing is.
#
# As root it installs Debian packages itself, as anybody else through sudo. The Rust toolchain is not among them where
# Debian's is too old: then this says what to install.
set -euo pipefail
cd "$(dirname "$0")/.."

# What must be there, and the Debian package that brings it.
needed=(
    "command gcc build-essential"
    "command make make"
    "command curl curl"
    "file /etc/ssl/certs/ca-certificates.crt ca-certificates"
    "postgresql bin/postgres postgresql"
    "postgresql share pg_stat_statements postgresql-contrib"
    "command openssl openssl"
    "command etcd etcd-server"
    "command haproxy haproxy"
    "command ip iproute2"
    "command nft nftables"
    "command mkfs.ext4 e2fsprogs"
    "command fsfreeze util-linux"
    "command script bsdutils"
    "command dpkg-shlibdeps dpkg-dev"
    "file /usr/share/doc/python3-venv python3-venv"
)
# The clients that the end-to-end tests put in front of a cluster, and what tests the packages.
if [[ ${1:-} == --with-tests ]]; then
    needed+=(
        "command pgbouncer pgbouncer"
        "command pgbackrest pgbackrest"
        "command barman barman"
        "command keepalived keepalived"
        "command promtool prometheus"
        "command systemd-analyze systemd"
        "command debootstrap debootstrap"
    )
fi
if [[ ${1:-} == --with-containers ]]; then
    needed+=(
        "command debootstrap debootstrap"
        "command podman podman"
        "command runc runc"
    )
fi

present() {
    case "$1" in
        command) PATH="$PATH:/usr/sbin:/sbin" command -v "$2" >/dev/null ;;
        file) test -e "$2" ;;
        postgresql)
            case "$2" in
                bin/*) compgen -G "/usr/lib/postgresql/*/$2" >/dev/null ;;
                share) compgen -G "/usr/share/postgresql/*/extension/$3.control" >/dev/null ;;
            esac
            ;;
    esac
}

missing=()
for need in "${needed[@]}"; do
    read -r -a words <<<"$need"
    present "${words[@]}" || missing+=("${words[-1]}")
done

if ((${#missing[@]})); then
    if ! command -v apt-get >/dev/null; then
        echo "Missing: ${missing[*]} (as Debian names them). Install them, then try again." >&2
        exit 1
    fi
    as_root=()
    if [[ $(id -u) != 0 ]]; then
        if ! command -v sudo >/dev/null; then
            echo "Missing: ${missing[*]}. Run \`make setup\` as root, or install sudo." >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "Installing: ${missing[*]}"
    # Only the programs are needed: without this, Debian would create and start a server of its own.
    if [[ " ${missing[*]} " == *" postgresql "* ]]; then
        "${as_root[@]}" mkdir -p /etc/postgresql-common/createcluster.d
        echo "create_main_cluster = false" |
            "${as_root[@]}" tee /etc/postgresql-common/createcluster.d/primacy.conf >/dev/null
    fi
    "${as_root[@]}" apt-get update -q
    # Services that come with a package stay off, now and after the next boot: the tests start their own, on their own
    # ports. Debian's scripts ask this file whether they may start one.
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap '"${as_root[@]}" rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
    fi
    services=()
    for service in etcd haproxy nftables pgbouncer keepalived prometheus; do
        [[ " ${missing[*]} " == *" $service"* ]] && services+=("$service")
    done
    [[ " ${missing[*]} " == *" podman "* ]] && services+=(podman{,-restart}.service podman.socket podman-auto-update.timer)
    # Nor does Barman's job of each minute come with it.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        -o Dpkg::Options::=--path-exclude=/etc/cron.d/barman "${missing[@]}"
    if ((${#services[@]})) && command -v systemctl >/dev/null; then
        "${as_root[@]}" systemctl disable -q "${services[@]}"
    fi
fi

if [[ ${1:-} == --with-tests ]]; then
    scripts/vip-manager.sh >/dev/null
fi

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! found=$(scripts/cargo.sh --version 2>/dev/null | awk '{print $2}') || [[ -z $found ]]; then
    echo "Rust is missing: install version $wanted or newer (https://www.rust-lang.org/tools/install), then try again." >&2
    exit 1
fi
if [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) != "$wanted" ]]; then
    echo "Rust $found is too old: install version $wanted or newer (\`rustup update stable\`), then try again." >&2
    exit 1
fi
for component in fmt clippy; do
    if ! scripts/cargo.sh "$component" --version >/dev/null 2>&1; then
        echo "\`cargo $component\` is missing: \`rustup component add rustfmt clippy\`, then try again." >&2
        exit 1
    fi
done
if [[ ${1:-} == --with-tests ]] && ! scripts/cargo.sh nextest --version >/dev/null 2>&1; then
    echo "Installing: cargo-nextest"
    scripts/cargo.sh install --locked cargo-nextest
fi
