#!/usr/bin/env bash
# Runs a cluster on this machine, to try it out: its own MariaDB and Redis, servers, and nginx in
# front of them, on loopback only, with all files under run/.
#
#     scripts/cluster.sh up [N]     starts what is not running of N servers (3) and their services; prints addresses
#     scripts/cluster.sh status     shows what runs where; exit code 0 if everything runs
#     scripts/cluster.sh restart N  stops server N and starts it again, with the binary as it is now
#     scripts/cluster.sh logs N     follows the log of server N until Ctrl-C
#     scripts/cluster.sh down       stops everything that `up` has started; the data stays in run/
#     scripts/cluster.sh clean      like down, and deletes run/ with all data
#
# `up` may be repeated. With another N it restarts the running servers one after the other, because
# the status page of each shows all of them. It builds the release binary, unless SERVER names
# another one. Clients connect to nginx, or directly to a server. nginx connects from 127.0.0.2, the
# only address whose PROXY headers the servers trust.
#
#     SERVER=target/debug/server    the server to run
#     RUN=run                       the folder for data, logs and configuration
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
RUN=$(realpath -m "${RUN:-$ROOT/run}")
NGINX_FROM=127.0.0.2 # the source address of nginx: all of 127.0.0.0/8 is this machine
PATIENCE=30          # the seconds that a part may take to start or to stop

say() { echo "cluster.sh: $*"; }
fail() {
    echo "cluster.sh: $*" >&2
    exit 1
}

# ---- Processes: a file run/NAME/process each, with the pid and the start time, so that a reused pid is noticed ----

started_at() { # started_at PID: prints clock ticks since boot, the 22nd field; the 2nd field may contain blanks
    local stat fields
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    read -r -a fields <<<"${stat##*) }"
    [ "${fields[0]}" != Z ] && echo "${fields[19]}"
}

pid_of() { # pid_of NAME: prints the pid if the process runs
    local pid began
    read -r pid began 2>/dev/null <"$RUN/$1/process" || return 1
    [ "$(started_at "$pid")" = "$began" ] && echo "$pid"
}

launch() { # launch NAME COMMAND...: runs it in run/NAME, in a new session, with its output in run/NAME/output
    local name=$1 pid
    shift
    (
        cd "$RUN/$name"
        exec setsid "$@" >output 2>&1 </dev/null 9>&-
    ) &
    pid=$!
    echo "$pid $(started_at "$pid")" >"$RUN/$name/process"
}

stop() { # stop NAME [SIGNAL]: sends the signal and waits; after PATIENCE seconds it kills
    local name=$1 signal=${2:-TERM} pid
    if pid=$(pid_of "$name"); then
        kill -s "$signal" "$pid" 2>/dev/null || true
        if ! wait_for gone "$name"; then
            say "$name (pid $pid) does not stop, killing it" >&2
            kill -KILL "$pid" 2>/dev/null || true
            wait_for gone "$name" || fail "$name (pid $pid) cannot be killed"
        fi
        say "$name stopped"
    fi
    rm -f "$RUN/$name/process"
}

gone() { ! pid_of "$1" >/dev/null; }

wait_for() { # wait_for CONDITION...: waits until it holds, at most PATIENCE seconds
    local deadline=$((SECONDS + PATIENCE))
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

ready_or_gone() { # ready_or_gone NAME CONDITION...
    gone "$1" || "${@:2}" >/dev/null 2>&1
}

wait_started() { # wait_started NAME CONDITION...: waits until it holds; fails if the process ends or takes too long
    local name=$1
    shift
    wait_for ready_or_gone "$name" "$@" || fail "$name does not answer after $PATIENCE s, see $RUN/$name"
    gone "$name" && fail "$name did not start: $(cat "$RUN/$name"/{output,error.log} 2>/dev/null | tail -n 3)"
    return 0
}

# ---- Ports: chosen once and stored in run/ports/NAME; chosen again only if another program has taken the port ----

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

port_of() { cat "$RUN/ports/$1" 2>/dev/null; }

choose_port() { # choose_port NAME WISH: takes the last one used, else WISH, else the next free one
    local name=$1 port
    port=$(port_of "$name") && ! is_taken "$port" && return
    port=$2
    while is_taken "$port" || grep -qsx "$port" "$RUN"/ports/*; do port=$((port + 1)); done
    echo "$port" >"$RUN/ports/$name"
}

# ---- The parts ----

need() { # need PROGRAM PACKAGE
    local found
    found=$(PATH=$PATH:/usr/sbin:/sbin type -P "$1") || fail "$1 is missing: install it (Debian: apt-get install $2)"
    echo "$found"
}

need_all() {
    MARIADBD=$(need mariadbd mariadb-server)
    MARIADB_INSTALL=$(need mariadb-install-db mariadb-server)
    MARIADB=$(need mariadb mariadb-client)
    REDIS=$(need redis-server redis-server)
    REDIS_CLI=$(need redis-cli redis-tools)
    NGINX=$(need nginx "nginx libnginx-mod-stream")
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || "$NGINX" -V 2>&1 | grep -q -- '--with-stream ' ||
        fail "nginx has no stream module: install it (Debian: apt-get install libnginx-mod-stream)"
}

need_server() {
    if [ -z "${SERVER:-}" ]; then
        command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.95 or later with rustup, or set SERVER"
        say "building the server"
        (cd "$ROOT" && cargo build --release --quiet --bin server)
        SERVER=${CARGO_TARGET_DIR:-$ROOT/target}/release/server
    fi
    SERVER=$(realpath "$SERVER")
    [ -x "$SERVER" ] || fail "$SERVER is not a program; SERVER must name the server's binary"
}

sql() { MYSQL_PWD=$PASSWORD "$MARIADB" --no-defaults -h 127.0.0.1 -P "$(port_of mariadb)" -u chat "$@" chat; }

up_mariadb() {
    pid_of mariadb >/dev/null && return
    local dir=$RUN/mariadb
    if [ ! -e "$dir/installed" ]; then
        # Remove the remains of an interrupted first attempt.
        rm -rf "$dir/data"
        "$MARIADB_INSTALL" --no-defaults --user="$(id -un)" --datadir="$dir/data" --skip-test-db \
            --auth-root-authentication-method=socket --auth-root-socket-user="$(id -un)" >"$dir/install.log" 2>&1 ||
            fail "mariadb-install-db failed, see $dir/install.log"
        touch "$dir/installed"
    fi
    choose_port mariadb 13306
    cat >"$dir/init.sql" <<SQL
CREATE DATABASE IF NOT EXISTS chat CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS chat@'127.0.0.1' IDENTIFIED BY '$PASSWORD';
GRANT ALL ON chat.* TO chat@'127.0.0.1';
SQL
    # The path of a socket may have at most 107 bytes, so the socket has a relative name, which
    # MariaDB resolves in the data folder.
    launch mariadb "$MARIADBD" --no-defaults --user="$(id -un)" --datadir="$dir/data" --socket=socket \
        --bind-address=127.0.0.1 --port="$(port_of mariadb)" --skip-name-resolve --max-connections=1000 \
        --pid-file="$dir/pid" --init-file="$dir/init.sql" --log-error="$dir/error.log"
    wait_started mariadb sql -e ''
    say "mariadb on 127.0.0.1:$(port_of mariadb)"
}

load_tables() {
    [ -z "$(sql -N -e "SHOW TABLES LIKE 'OfflineMessage'")" ] || return 0
    sql <"$ROOT/sql/chat.sql"
    say "database chat loaded from sql/chat.sql"
}

up_redis() {
    pid_of redis >/dev/null && return
    choose_port redis 16379
    # The password is in a file, because any user can read the arguments of a process.
    printf '%s\n' "bind 127.0.0.1" "port $(port_of redis)" "requirepass $PASSWORD" 'save ""' "appendonly no" \
        "dir $RUN/redis" >"$RUN/redis/redis.conf"
    launch redis "$REDIS" "$RUN/redis/redis.conf"
    wait_started redis redis_answers
    say "redis on 127.0.0.1:$(port_of redis)"
}

redis_answers() {
    [ "$(REDISCLI_AUTH=$PASSWORD "$REDIS_CLI" -h 127.0.0.1 -p "$(port_of redis)" PING 2>/dev/null)" = PONG ]
}

up_server() { # up_server N NODES: NODES are the admin ports of all servers
    local name=server$1 dir=$RUN/server$1
    if pid_of "$name" >/dev/null; then
        uses "$dir/mysql.cnf" mariadb && uses "$dir/redis.cnf" redis && shows "$dir/server.cnf" "$2" && return
        stop "$name" # a service has moved to another port, or the number of servers has changed
    fi
    mkdir -p "$dir"
    choose_port "$name" $((6000 + $1))
    choose_port "admin$1" $((9600 + $1))
    printf '%s\n' ip=127.0.0.1 "port=$(port_of mariadb)" username=chat "password=$PASSWORD" dbname=chat \
        charset=utf8mb4 maxSize=64 >"$dir/mysql.cnf"
    printf '%s\n' ip=127.0.0.1 "port=$(port_of redis)" "password=$PASSWORD" >"$dir/redis.cnf"
    printf '%s\n' log_dir=logs proxy_protocol=on "proxy_from=$NGINX_FROM" "admin=127.0.0.1:$(port_of "admin$1")" \
        "admin_nodes=$2" "node_name=$name" >"$dir/server.cnf"
    launch "$name" "$SERVER" 127.0.0.1 "$(port_of "$name")"
    wait_started "$name" is_ready "$1"
    say "$name on 127.0.0.1:$(port_of "$name"), log in $dir/logs"
}

admin_nodes() { # admin_nodes COUNT: prints the admin ports of COUNT servers, with commas; a server takes 32
    local n
    for ((n = 1; n <= $1 && n <= 32; n++)); do
        pid_of "server$n" >/dev/null || choose_port "admin$n" $((9600 + n))
        echo "127.0.0.1:$(port_of "admin$n")"
    done | paste -sd, -
}

shows() { grep -qx "admin_nodes=$2" "$1"; }

uses() { grep -qx "port=$(port_of "$2")" "$1"; }

is_ready() { "$SERVER" health "127.0.0.1:$(port_of "admin$1")"; }

servers() { # prints the numbers of all servers that were ever started, in order
    local dir
    for dir in "$RUN"/server*/; do
        [ ! -e "$dir/process" ] || basename "$dir" | tr -dc '0-9\n'
    done | sort -n
}

# Derives the settings from the files in conf/ and only changes servers and paths. So the settings
# tried here are those used elsewhere.
write_nginx_conf() {
    local dir=$RUN/nginx n
    mkdir -p "$dir/tcp.d"
    sed -e "s|^error_log .*|error_log $dir/error.log warn;|" -e "s|^pid .*|pid $dir/pid;|" \
        -e "s|^worker_processes .*|worker_processes 2;|" "$ROOT/conf/nginx.conf" >"$dir/nginx.conf"
    for n in $(servers); do
        echo "    server 127.0.0.1:$(port_of "server$n") max_fails=1 fail_timeout=5s;"
    done >"$dir/upstream"
    sed -e "/^    least_conn;/r $dir/upstream" -e "/^    server server[0-9]*:/d" \
        -e "s|^    listen 8003 |    listen 127.0.0.1:$(port_of nginx) |" \
        -e "s|^proxy_protocol on;|&\nproxy_bind $NGINX_FROM;|" \
        "$ROOT/conf/tcp.d/chat_server.conf" >"$dir/tcp.d/chat_server.conf"
}

up_nginx() {
    local pid
    if pid=$(pid_of nginx); then
        write_nginx_conf
        kill -HUP "$pid"
        return
    fi
    choose_port nginx 8003
    write_nginx_conf
    launch nginx "$NGINX" -c "$RUN/nginx/nginx.conf" -e "$RUN/nginx/error.log" -g "daemon off;"
    wait_started nginx is_taken "$(port_of nginx)"
    say "nginx on 127.0.0.1:$(port_of nginx)"
}

# ---- Commands ----

lock() { # two runs at once would start everything twice; started processes do not inherit the lock
    mkdir -p "$RUN"
    exec 9>"$RUN/lock"
    flock -n 9 || fail "another cluster.sh is at work in $RUN, try again when it is done"
}

up() {
    local count=${1:-3} n nodes
    [[ $count =~ ^[1-9][0-9]?$ ]] || fail "up $count: the number of servers is 1 to 99"
    need_all
    need_server
    umask 077
    lock
    mkdir -p "$RUN"/{ports,mariadb,redis,nginx}
    [ -s "$RUN/password" ] || od -An -tx1 -N16 /dev/urandom | tr -d ' \n' >"$RUN/password"
    PASSWORD=$(cat "$RUN/password")
    up_mariadb
    load_tables
    up_redis
    nodes=$(admin_nodes "$count")
    for ((n = 1; n <= count; n++)); do up_server "$n" "$nodes"; done
    for n in $(servers); do [ "$n" -le "$count" ] || stop "server$n"; done
    up_nginx
    say "clients may come to 127.0.0.1:$(port_of nginx); scripts/cluster.sh down stops it all"
}

status() {
    local name pid port all=0
    for name in mariadb redis $(servers | sed 's/^/server/') nginx; do
        port=$(port_of "$name") || port=-
        if ! pid=$(pid_of "$name"); then
            echo "$name  stopped"
            all=1
        elif is_taken "$port"; then
            echo "$name  127.0.0.1:$port  pid $pid"
        else
            echo "$name  127.0.0.1:$port  pid $pid, does not answer"
            all=1
        fi
    done
    [ -n "$(servers)" ] || all=1
    return $all
}

down() {
    local n
    [ -d "$RUN" ] || return 0
    lock
    stop nginx
    for n in $(servers); do stop "server$n"; done
    stop redis
    stop mariadb
}

# Fails unless N is a server that `up` has started before.
known_server() { # known_server COMMAND N
    [[ ${2:-} =~ ^[1-9][0-9]?$ ]] || fail "$1 ${2:-}: name a server by its number, as in: cluster.sh $1 2"
    [ -d "$RUN/server$2" ] || fail "there is no server$2 in $RUN; cluster.sh status shows those that there are"
}

restart() {
    local nodes
    known_server restart "$@"
    need_server
    umask 077
    lock
    if ! pid_of mariadb >/dev/null || ! pid_of redis >/dev/null; then
        fail "MariaDB or Redis does not run; cluster.sh up starts what is missing"
    fi
    PASSWORD=$(cat "$RUN/password")
    stop "server$1"
    nodes=$(sed -n 's/^admin_nodes=//p' "$RUN/server$1/server.cnf")
    up_server "$1" "${nodes:-off}"
}

logs() {
    known_server logs "$@"
    local newest
    newest=$(find "$RUN/server$1/logs" -type f -printf '%T@ %p\n' 2>/dev/null | sort -rn | head -n 1 | cut -d ' ' -f 2-)
    [ -n "$newest" ] || fail "server$1 has no log yet; its output is in $RUN/server$1/output"
    # A rotated log gets another name and a new file replaces it; -F follows the name.
    exec tail -n 50 -F "$newest"
}

clean() {
    [ -d "$RUN" ] || return 0
    # Delete only a folder that this script has made.
    [ -d "$RUN/ports" ] && [ -e "$RUN/lock" ] || fail "$RUN is not a folder of this script; delete it by hand"
    down
    rm -rf "$RUN"
    say "$RUN is deleted"
}

case ${1:-} in
up | status | restart | logs | down | clean) "$@" ;;
*)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    [ "${1:-}" = --help ] || exit 2
    ;;
esac
