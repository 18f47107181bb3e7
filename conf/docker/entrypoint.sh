#!/bin/sh
# Starts the server in /var/lib/raybox. The servers of a cluster (there is a mysql.cnf) start in a
# subfolder named after their host, and so do their logs, so that all of them can share the volumes.
#
# *.cnf in /etc/raybox are its settings. Passwords come from the environment instead: MYSQL_PASSWORD
# and REDIS_PASSWORD are added to the copies of mysql.cnf and redis.cnf that the server reads.
set -eu
settings=/etc/raybox
work=/var/lib/raybox
log=/var/log/raybox
if [ -e "$settings/mysql.cnf" ]; then
    work=$work/$(hostname)
    log=$log/$(hostname)
fi
umask 027
mkdir -p "$work" "$log"
cd "$work"

# A file that was removed from the settings must not stay in effect.
rm -f server.cnf mysql.cnf redis.cnf
for file in server.cnf mysql.cnf redis.cnf; do
    if [ -e "$settings/$file" ]; then cat "$settings/$file" >"$file"; fi
done
add_password() { # add_password FILE PASSWORD
    if [ -e "$1" ] && [ -n "$2" ]; then
        chmod 600 "$1"
        printf '\npassword=%s\n' "$2" >>"$1"
    fi
}
add_password mysql.cnf "${MYSQL_PASSWORD-}"
add_password redis.cnf "${REDIS_PASSWORD-}"
unset MYSQL_PASSWORD REDIS_PASSWORD

export RAYBOX_LOG_DIR="${RAYBOX_LOG_DIR-$log}"
# No other server has its log there.
export RAYBOX_LOG_SIZE="${RAYBOX_LOG_SIZE-1024m}"
exec raybox-server "$@"
