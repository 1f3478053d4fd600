#!/bin/bash
# Runs cargo. Under sudo as the person who called it, since root has neither that person's toolchain nor any business
# in that person's target directory; and also where ~/.cargo/bin is not in the PATH.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [[ $(id -u) == 0 && -n ${SUDO_USER:-} && $SUDO_USER != root && $(stat -c %U "$here") == "$SUDO_USER" ]]; then
    exec sudo -u "$SUDO_USER" -H "$here/cargo.sh" "$@"
fi
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
exec cargo "$@"
