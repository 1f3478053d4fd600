#!/bin/bash
# Installs the Debian package into a Debian 12 of its own, under a systemd of its own, and runs a cluster from it: two
# agents and a witness on three addresses, from the samples that the package brings.
#
#     scripts/test-deb.sh "$(scripts/deb.sh)"
#
# Needs root, namespaces and a cgroup hierarchy of version 2; touches nothing outside of a
# temporary directory.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $(id -u) != 0 ]]; then
    echo "scripts/test-deb.sh makes namespaces and mounts: run it as root" >&2
    exit 1
fi
package=$(realpath "${1:?which package?}")
base=$(scripts/debian-root.sh)

cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
work=$(mktemp -d)
root=$work/root
group=$cgroups/$(basename "$work")
mkdir "$work"/{upper,work,root} "$group"
machine=
end() {
    local code=$?
    if [[ $code != 0 && -n $machine ]]; then
        echo "--- what the machine said last" >&2
        inside journalctl --no-pager -q -n 60 >&2 || true
    fi
    if [[ -n $machine ]]; then
        kill -KILL "$machine" 2> /dev/null || true
        wait 2> /dev/null || true
    fi
    while ! find "$group" -depth -type d -exec rmdir {} + 2> /dev/null; do
        sleep 0.2
    done
    umount "$root" || true
    rm -rf --one-file-system "$work"
    exit "$code"
}
trap end EXIT
trap 'exit 1' INT TERM
mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/work" "$root"

# The mounts and the network of a machine, then "$@" as its first process.
enter='
root=$1
shift
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root"/dev/{shm,pts}
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ip link set lo up
for host in 11 12 13; do
    ip address add "10.0.0.$host/24" dev lo
done
cd "$root"
pivot_root . mnt
umount -l /mnt
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=primacy "$@"
'
# boot COMMAND...: a machine with that as its first process.
boot() {
    (
        echo "$BASHPID" > "$group/cgroup.procs"
        exec unshare --cgroup --pid --mount --uts --ipc --net --fork --kill-child bash -ec "$enter" bash "$root" "$@"
    ) < /dev/null > "$work/console" 2>&1 &
    unshare=$!
    until machine=$(pgrep -P "$unshare"); do
        sleep 0.1
    done
}
inside() {
    nsenter --target "$machine" --all "$@"
}
say() {
    echo "--- $*" >&2
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
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

say "a machine with systemd"
boot /lib/systemd/systemd
wait_for 60 "the system to run" inside systemctl is-system-running

say "the package is installed"
install -m 644 "$package" "$root/primacy.deb"
inside dpkg -i /primacy.deb
[[ $(inside primacy --version) == primacy\ * ]] || fail "primacy does not run"
[[ $(inside patroni --version) == patroni\ 4.1.* ]] || fail "patroni is not called by its name"
inside patronictl version > /dev/null
inside sh -ec 'for name in primacy patroni patronictl; do
    test -s /usr/share/man/man1/$name.1.gz
    bash -n /usr/share/bash-completion/completions/$name
done
systemd-analyze verify --man=no /usr/lib/systemd/system/pri*.service /usr/lib/systemd/system/patroni*.service
test -z "$(systemctl list-units --all --plain --no-legend "primacy*" "patroni*")"'

say "a cluster is started: one member by Patroni's names, one by ours"
# member NUMBER FILE
member() {
    sed -e "s/^name: .*/name: pg$1/" -e "s/CHANGE-ME[a-z-]*/secret/" -e "s|15/demo|15/pg$1|" -e "s|postgresql/primacy|postgresql/raft$1|" \
        -e "s/partner_addrs: .*/partner_addrs: [$3]/" -e '/partner_addrs\|host all\|host replication/!s/10\.0\.0\.11/10.0.0.1'"$1/" \
        -e '/listen:.*127/s/127.0.0.1/127.0.0.1'"$1/" "$root/usr/share/primacy/primacy.sample.yml" > "$root$2"
    # Two servers on one machine.
    echo "  parameters: {unix_socket_directories: /var/lib/postgresql/raft$1}" >> "$root$2"
    inside chown postgres:postgres "$2"
    inside chmod 600 "$2"
}
mkdir -p "$root/etc/patroni"
member 1 /etc/patroni/config.yml "10.0.0.12:2380, 10.0.0.13:2380"
member 2 /etc/primacy/two.yml "10.0.0.11:2380, 10.0.0.13:2380"
sed "s/CHANGE-ME[a-z-]*/secret/" "$root/usr/share/primacy/witness.sample.yml" > "$root/etc/primacy/witness.yml"
inside chown root:primacy /etc/primacy/witness.yml
inside chmod 640 /etc/primacy/witness.yml
# One after the other: the first waits for the others when it counts as started.
inside systemctl start patroni
inside systemctl start primacy-witness
inside systemctl start primacy@two

listed() {
    inside patronictl -c /etc/patroni/config.yml list -f tsv
}
healthy() {
    listed && [[ $(listed | grep -c $'\t\\(Leader\trunning\\|Sync Standby\tstreaming\\)\t') == 2 ]]
}
leader() {
    listed | awk -F '\t' '$4 == "Leader" { print $2 }'
}
unit() {
    case $1 in
        pg1) echo patroni ;;
        pg2) echo primacy@two ;;
    esac
}
main() {
    inside systemctl show --property MainPID --value "$(unit "$1")"
}
postmaster() {
    inside head -n 1 "/var/lib/postgresql/15/$1/postmaster.pid"
}
wait_for 120 "the cluster to be whole" healthy
first=$(leader)

say "an upgrade leaves everything running"
before="$(main pg1) $(main pg2) $(postmaster pg1) $(postmaster pg2)"
inside dpkg -i /primacy.deb
[[ "$(main pg1) $(main pg2) $(postmaster pg1) $(postmaster pg2)" == "$before" ]] || fail "something was restarted"

say "$first reloads, and tells systemd what it does"
inside systemctl reload "$(unit "$first")"
status=$(inside systemctl show --property StatusText --value "$(unit "$first")")
[[ $status == "no action. I am ($first), the leader with the lock" ]] || fail "systemctl status says: $status"

say "the agent of $first is killed: the server runs on, and is adopted"
server=$(postmaster "$first")
inside kill -KILL "$(main "$first")"
restarted() {
    [[ $(inside systemctl show --property NRestarts --value "$(unit "$first")") == 1 ]]
}
wait_for 30 "systemd to start it again" restarted
wait_for 60 "the cluster to be whole" healthy
[[ $(leader) == "$first" ]] || fail "the lead moved"
[[ $(postmaster "$first") == "$server" ]] || fail "the server was restarted"

say "the agent of $first hangs: the fence ends its server, the other takes over, and systemd starts it again"
inside kill -STOP "$(main "$first")"
moved() {
    local now
    now=$(leader) && [[ -n $now && $now != "$first" ]]
}
wait_for 120 "another leader" moved
wait_for 120 "the cluster to be whole" healthy

second=$(leader)
say "$second is stopped: the server stops in good order, and $first leads"
server=$(postmaster "$second")
inside systemctl stop "$(unit "$second")"
[[ ! -e $root/var/lib/postgresql/15/$second/postmaster.pid ]] || fail "the server outlived an orderly stop"
leads() {
    [[ $(leader) == "$1" ]]
}
wait_for 60 "$first to lead" leads "$first"
inside systemctl start "$(unit "$second")"
wait_for 120 "the cluster to be whole" healthy

say "the package is removed: everything is stopped, and what is the user's stays"
inside dpkg -r primacy
if inside ps -eo comm= | grep -xE 'postgres|primacy|patroni' > "$work/seen"; then
    fail "processes are left: $(cat "$work/seen")"
fi
[[ -e $root/var/lib/postgresql/15/pg1/PG_VERSION && -e $root/etc/patroni/config.yml ]] || fail "data is gone"

say "as the first process of a container"
inside dpkg -i /primacy.deb
kill -KILL "$machine"
wait "$unshare" || true
rm -rf "$root"/var/lib/postgresql/{15/pg1,raft1}
sed -i 's/partner_addrs: .*/partner_addrs: []/; s/ttl: 30/ttl: 8/; s/loop_wait: 10/loop_wait: 2/; s/retry_timeout: 10/retry_timeout: 2/' \
    "$root/etc/patroni/config.yml"
boot setpriv --reuid postgres --regid postgres --init-groups patroni /etc/patroni/config.yml
wait_for 60 "a primary" leads pg1
# An orphan, as archive commands leave them: process 1 is its parent now, and must collect it.
inside sh -c 'setsid sh -c "sleep 0.1 & exit" & wait'
collected() {
    ! inside ps -eo stat= | grep Z
}
wait_for 10 "orphans to be collected" collected
server=$(postmaster pg1)
kill -TERM "$machine"
code=0
wait "$unshare" || code=$?
machine=
[[ $code == 0 ]] || fail "it ended with $code"
[[ ! -e $root/var/lib/postgresql/15/pg1/postmaster.pid ]] || fail "the server outlived an orderly stop"
say "passed"
