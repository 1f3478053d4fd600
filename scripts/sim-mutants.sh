#!/bin/bash
# Breaks one rule at a time, as the patches in crates/sim/mutants say, and has the simulator find each of them:
#
#     scripts/sim-mutants.sh [NAME...]
#
# The first line of a patch says which invariants must find the mutant, and from which seed on if not from 1. It is found when a seed violates one of them with it,
# and nothing without it. One that no seed finds within so many cluster-hours (PRIMACY_MUTANT_HOURS, 2000), that does not
# compile, or whose patch does not apply, fails the run. Prints the table of docs/mutants.md.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
mutants=$root/crates/sim/mutants
hours=${PRIMACY_MUTANT_HOURS:-2000}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/source"
cd "$root"
# Touched, because cargo would take what an earlier run has built from a mutant for up to date.
git ls-files -z --cached --others --exclude-standard |
    tar --create --null --ignore-failed-read --files-from=- 2> /dev/null | tar --extract --touch --directory="$work/source"
cd "$work/source"

# One target directory for all, and for nothing else: a mutant costs two crates. Whole-program optimization would cost more than it gains.
export CARGO_TARGET_DIR=$root/target/mutants
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_INCREMENTAL=true CARGO_PROFILE_RELEASE_DEBUG=0
build() {
    "$root/scripts/cargo.sh" build --release --locked --quiet --package primacy-sim &&
        cp "$CARGO_TARGET_DIR/release/primacy-sim" "$work/$1"
}

# The first seed from $1 on, within $2 cluster-hours, that fails with the mutant, and the violated invariant's number; nothing if none does.
first_failure() {
    local code=0
    "$work/mutant" run --seed "$1" --hours "$2" > "$work/output" 2>&1 || code=$?
    if [[ $code -gt 1 ]]; then
        tail -5 "$work/output" >&2
    fi
    # Seeds run side by side and are begun in their order: of those that failed, the lowest is the first.
    sed -n 's/^seed \([0-9]*\): \(I[1-7]\) .*/\1 \2/p' "$work/output" | sort -n | head -1
}

# The table's row for the mutant that the sources have.
row() {
    # A seed is two hours of faults and a quarter of an hour to heal.
    local expected rule before=0 seed invariant failure left
    IFS=: read -r expected rule <<< "$(sed -n '1s/^# //p' "$mutants/$1.patch")"
    [[ $expected != *' from '* ]] || before=$((${expected##* } - 1))
    seed=$before
    build mutant || { echo "$1 does not compile" >&2; return 1; }
    while true; do
        left=$((hours - (seed - before) * 9 / 4))
        failure=
        [[ $left -le 0 ]] || failure=$(first_failure $((seed + 1)) $left)
        if [[ -z $failure ]]; then
            echo "$1 was not found in $hours cluster-hours" >&2
            return 1
        fi
        read -r seed invariant <<< "$failure"
        # What fails without the mutant as well says nothing about it.
        if [[ $expected == *$invariant* ]] && "$work/original" replay "$seed" > /dev/null 2>&1; then
            break
        fi
    done
    echo "| \`$1\` |$rule | $seed | $(((seed - before) * 9 / 4)) | $invariant |"
}

build original
echo '| mutant | what is wrong with it | seeds | cluster-hours | found by |'
echo '|---|---|---|---|---|'
if [[ $# == 0 ]]; then
    mapfile -t names < <(cd "$mutants" && printf '%s\n' *.patch)
    set -- "${names[@]%.patch}"
fi
failed=0
for name; do
    if ! git apply "$mutants/$name.patch"; then
        echo "$name does not apply to the sources any more" >&2
        failed=1
        continue
    fi
    row "$name" || failed=1
    git apply --reverse "$mutants/$name.patch"
done
exit $failed
