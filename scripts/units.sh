#!/bin/bash
# Makes the unit files from packaging/systemd:
#
#     scripts/units.sh DIRECTORY [BIN]
#
# BIN is where the programs are, /usr/bin unless something else is to be checked than what is installed.
set -euo pipefail
cd "$(dirname "$0")/../packaging/systemd"
directory=${1:?into which directory?}
bin=${2:-/usr/bin}

# agent NAME COMMAND CONFIGURATION ENVIRONMENT HARDENING
agent() {
    sed -e "s|@NAME@|$1|" -e "s|@COMMAND@|$bin/$2|" -e "s|@CONFIGURATION@|$3|" -e "s|@ENVIRONMENT@|$4|" \
        -e "/@HARDENING@/{r $5" -e 'd}' agent.service.in > "$directory/$1"
}
agent primacy.service "primacy agent" /etc/primacy/primacy.yml /etc/primacy/env.conf hardening.conf
agent primacy@.service "primacy agent" /etc/primacy/%i.yml /etc/primacy/env.conf hardening.conf
# Who comes from Patroni has scripts that nobody tried with less than all rights of their user.
agent patroni.service patroni /etc/patroni/config.yml /etc/patroni/env.conf /dev/null
agent patroni@.service patroni /etc/patroni/%i.yml /etc/patroni/env.conf /dev/null
sed "s|/usr/bin/|$bin/|" primacy-witness.service > "$directory/primacy-witness.service"
chmod 644 "$directory"/*.service
