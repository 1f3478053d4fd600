#!/bin/bash
# Builds the image of packaging/Containerfile and runs a cluster of three containers from it: two agents and a witness.
#
#     scripts/test-container.sh TOOLCHAIN REGISTRY [DIRECTORY]
#
# Nothing is pulled: stand-ins for the two images that it begins with are made of Debian's packages and of a Rust TOOLCHAIN (rustc's
# sysroot); cargo finds what it needs in REGISTRY (`cargo fetch` puts it there). The images and what cargo built stay in DIRECTORY and are
# used again; remove it to be rid of them. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $(id -u) != 0 ]]; then
    echo "scripts/test-container.sh makes containers with a network of their own: run it as root" >&2
    exit 1
fi
toolchain=$(realpath "${1:?which Rust toolchain?}")
registry=$(realpath "${2:?where are the crates?}")
directory=${3:-/var/tmp/primacy-test-container}
mkdir -p "$directory"/{store,target}
exec 9> "$directory/lock"
if ! flock --nonblock 9; then
    echo "somebody else works in $directory" >&2
    exit 1
fi
# Podman remembers where it keeps what a reboot ends.
running=/run/$(basename "$directory")
work=$(mktemp -d)
network=$(basename "$work")
members=()
pod() {
    podman --root "$directory/store" --runroot "$running/store" --tmpdir "$running/libpod" --storage-driver overlay \
        --cgroup-manager cgroupfs --runtime runc "$@" 9>&-
}
clean() {
    pod rm --all --force --time 0 > /dev/null
    pod volume rm --all --force > /dev/null
}
end() {
    local code=$?
    if [[ $code != 0 ]]; then
        for member in "${members[@]}"; do
            echo "--- what $member said last" >&2
            pod logs --tail 40 "$member" >&2 || true
        done
    fi
    clean || true
    ip netns delete "$network" 2> /dev/null || true
    rm -rf --one-file-system "$work" "$running"
    exit "$code"
}
trap end EXIT
trap 'exit 1' INT TERM
say() {
    echo "--- $*" >&2
}
fail() {
    echo "FAILED: $*" >&2
    exit 1
}
# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" > "$work/seen" 2>&1; do
        if ((SECONDS > end)); then
            echo "waited in vain for $what; last seen:" >&2
            cat "$work/seen" >&2
            return 1
        fi
        sleep 0.5
    done
}

# Of a run that was killed.
clean
debian=$(awk '$1 == "FROM" && $2 ~ /debian/ { print $2 }' packaging/Containerfile)
rust=$(awk '$1 == "FROM" && $2 ~ /rust/ { print $2 }' packaging/Containerfile)
if ! pod image exists "$debian"; then
    say "a stand-in for $debian"
    debootstrap --variant=minbase bookworm "$work/debian" http://deb.debian.org/debian > "$work/seen" 2>&1 || {
        cat "$work/seen" >&2
        fail "debootstrap"
    }
    tar -C "$work/debian" -c . | pod import - "$debian" > /dev/null
    rm -rf --one-file-system "$work/debian"
fi
version=$("$toolchain/bin/rustc" --version)
if [[ $(pod image inspect --format '{{index .Config.Labels "rust"}}' "$rust" 2> /dev/null) != "$version" ]]; then
    say "a stand-in for $rust"
    pod build -q --isolation chroot --pull=never -t "$rust" -f - "$toolchain" > /dev/null << END
FROM $debian
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends build-essential ca-certificates git
COPY bin /usr/local/bin
COPY lib /usr/local/lib
ENV CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true
LABEL rust="$version"
END
fi

say "the image is built"
pod build --isolation chroot --pull=never --volume "$registry:/usr/local/cargo/registry" --volume "$directory/target:/source/target" \
    -f packaging/Containerfile -t primacy . > "$work/build" 2>&1 || {
    tail -n 40 "$work/build" >&2
    fail "the build"
}
# What it replaced.
pod image prune --force > /dev/null

# One network for all, and nothing else in it: the addresses are those of the samples.
ip netns add "$network"
ip -n "$network" link set lo up
for host in 11 12 13; do
    ip -n "$network" address add "10.0.0.$host/24" dev lo
done
# start NAME FILE [OPTION...] [-- WORD...]: a container with a volume of its name. Limits must not be above those of this machine.
start() {
    local name=$1 file=$2
    shift 2
    [[ " ${members[*]} " == *" $name "* ]] || members+=("$name")
    pod run --detach --name "$name" --network "ns:/run/netns/$network" --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
        --volume "$name:/var/lib/postgresql" --volume "$file:/etc/patroni/config.yml:ro" "$@" > /dev/null
}
# member NUMBER PARTNERS: the sample, for one of two.
member() {
    sed -e "s/^name: .*/name: pg$1/" -e "s/CHANGE-ME[a-z-]*/secret/" -e "s/partner_addrs: .*/partner_addrs: [$2]/" \
        -e '/partner_addrs\|host all\|host replication/!s/10\.0\.0\.11/10.0.0.1'"$1/" -e '/listen:.*127/s/127.0.0.1/127.0.0.1'"$1/" \
        packaging/primacy.sample.yml > "$work/pg$1.yml"
}
chmod 755 "$work"
member 1 "10.0.0.12:2380, 10.0.0.13:2380"
member 2 "10.0.0.11:2380, 10.0.0.13:2380"
sed -e "s/CHANGE-ME[a-z-]*/secret/" -e "s|data_dir: .*|data_dir: /var/lib/postgresql/witness|" packaging/witness.sample.yml > "$work/witness.yml"

say "a cluster is started"
start witness "$work/witness.yml" --entrypoint patroni_raft_controller primacy /etc/patroni/config.yml
start pg1 "$work/pg1.yml" primacy
start pg2 "$work/pg2.yml" primacy
[[ $(pod exec pg1 patroni --version) == patroni\ 4.1.* ]] || fail "patroni is not called by its name"
# listed MEMBER: what it sees.
listed() {
    pod exec "$1" patronictl -c /etc/patroni/config.yml list -f tsv
}
healthy() {
    local seen
    seen=$(listed pg1) || return
    echo "$seen"
    [[ $(grep -c $'\t\\(Leader\trunning\\|Sync Standby\tstreaming\\)\t' <<< "$seen") == 2 ]]
}
# leads MEMBER: by its own word.
leads() {
    local seen
    seen=$(listed "$1") || return
    echo "$seen"
    [[ $(awk -F '\t' '$4 == "Leader" { print $2 }' <<< "$seen") == "$1" ]]
}
query() {
    pod exec "$1" psql -h /var/run/postgresql -XAtc "$2" postgres
}
wait_for 180 "the cluster to be whole" healthy
if leads pg1 > /dev/null; then first=pg1 second=pg2; else first=pg2 second=pg1; fi
query "$first" "CREATE TABLE kept AS SELECT 'all' AS what" > /dev/null
pod exec "$second" patronictl -c /etc/patroni/config.yml list --extended | grep -q armed || fail "no fence is armed"

say "process 1 hands signals on, and collects orphans"
echo 'tags: {clonefrom: true}' >> "$work/$second.yml"
pod kill --signal HUP "$second" > /dev/null
tagged() {
    listed "$second" | grep 'clonefrom: true'
}
wait_for 60 "the tag" tagged
pod exec "$first" sh -c 'setsid sh -c "sleep 0.1 & exit" & wait'
collected() {
    ! pod exec "$first" sh -c 'cat /proc/[0-9]*/status 2> /dev/null' | grep 'State:.Z'
}
wait_for 10 "orphans to be collected" collected

say "$first is stopped in good order, and $second leads"
pod stop --time 120 "$first" > /dev/null
code=$(pod inspect --format '{{.State.ExitCode}}' "$first")
[[ $code == 0 ]] || fail "$first ended with $code"
[[ ! -e $(pod volume inspect --format '{{.Mountpoint}}' "$first")/15/demo/postmaster.pid ]] || fail "the server was not stopped"
wait_for 60 "$second to lead" leads "$second"

say "a new container takes the volume over"
pod rm "$first" > /dev/null
start "$first" "$work/$first.yml" primacy
wait_for 120 "the cluster to be whole" healthy
[[ $(query "$first" 'SELECT what FROM kept') == all ]] || fail "a row is lost"
say "passed"
