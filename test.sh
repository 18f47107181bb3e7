#!/usr/bin/env bash
# Runs all tests. Arguments are passed on to `cargo test`:
#
#     ./test.sh                       everything
#     ./test.sh --release             the same on an optimised build
#     ./test.sh --test offline        one suite
#
# It installs what the tests need, if the user may, and starts a MariaDB for them; its address is in
# TEST_MYSQL. A test that stops or kills servers, or needs a Redis or an nginx, starts its own. All
# of them listen on the loopback interface, on free ports, store their data in temporary folders,
# and stop when the tests end.
#
# The default is the dev profile: only that checks overflow, and after every change the invariants
# of buffers, timers and sessions. From a cold cache it compiles in a fraction of the time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
    echo "test.sh: $*" >&2
    exit 1
}

# ---- What the tests need ----

. scripts/needs.sh

# Whether there is an nginx that forwards TCP; in Debian that part is a separate package.
has_stream() {
    local built
    built=$(nginx -V 2>&1) || return 1
    [[ $built == *--with-stream* ]] || return 1
    [[ $built != *--with-stream=dynamic* || -e /usr/lib/nginx/modules/ngx_stream_module.so ]]
}

# Whether python3 can make a folder of packages of its own; in Debian that part is a separate
# package.
has_venv() {
    python3 -c 'import ensurepip, venv' 2>/dev/null
}

# Debian's folder for servers; the search path of an ordinary user may lack it.
PATH=$PATH:/usr/sbin:/sbin

type -P cargo >/dev/null || fail "cargo is needed: install Rust 1.95 or later with rustup"
need cc gcc            # compiles the embedded SQLite
need curl curl         # asks the server over TLS
need openssl openssl   # chats with it
# The authorities with which the server checks the hook's certificate, where distributions keep them.
[ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] || missing+=(ca-certificates)
need python3 python3   # plays the recorded exchanges of tests/conformance
need kill procps
need dpkg-deb dpkg     # builds and installs the package
need systemd-analyze systemd # judges its unit
need useradd passwd
need prlimit util-linux
need setpriv util-linux
need ip iproute2       # gives clients a network of their own, to be cut off, where we are root
need mariadbd mariadb-server
need mariadb-install-db mariadb-server
need redis-server redis-server
has_stream || missing+=(nginx libnginx-mod-stream)
need node nodejs       # checks and tests the web client
need npm npm
has_venv || missing+=(python3-venv)  # for schemathesis
need chromium chromium
need promtool prometheus # judges the alert rules

# ---- A MariaDB for all tests of this run ----

# The tests create their own databases in it. It listens on the loopback interface only, stores its
# data in a folder of its own and stops when this script exits for any reason.
start_mariadb() {
    local password as_user=() attempt
    password=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
    [ "$(id -u)" -ne 0 ] || as_user=(--user=root)
    mariadb-install-db --defaults-file="$PWD/testkit/mariadb.cnf" "${as_user[@]}" --datadir="$run/mariadb" --tmpdir="$run" \
        --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve >"$run/mariadb-install.log" 2>&1 ||
        fail "mariadb-install-db failed: $(tail -n 5 "$run/mariadb-install.log")"
    printf '%s\n' "CREATE OR REPLACE USER test@'%' IDENTIFIED BY '$password';" \
        "GRANT ALL PRIVILEGES ON *.* TO test@'%' WITH GRANT OPTION;" >"$run/mariadb.sql"
    # Another process may take a port that was free a moment ago, so there are several attempts.
    for attempt in 1 2 3 4 5; do
        # Below the port range of outgoing connections.
        local port=$((20000 + RANDOM % 12000))
        setpriv --pdeathsig KILL mariadbd --defaults-file="$PWD/testkit/mariadb.cnf" "${as_user[@]}" \
            --datadir="$run/mariadb" --tmpdir="$run" --port="$port" --socket="$run/mariadb.sock" --pid-file="$run/mariadb.pid" \
            --init-file="$run/mariadb.sql" >"$run/mariadb.log" 2>&1 &
        mariadb_pid=$!
        wait_for_mariadb && break
        wait "$mariadb_pid" || true
        mariadb_pid=
        grep -q "already in use" "$run/mariadb.log" || fail "MariaDB does not start: $(tail -n 5 "$run/mariadb.log")"
        [ "$attempt" -lt 5 ] || fail "MariaDB finds no free port"
    done
    export TEST_MYSQL="test:$password@127.0.0.1:$port"
}

# Succeeds when MariaDB takes connections, fails when it has ended.
wait_for_mariadb() {
    local tenth
    for tenth in {1..600}; do
        ! grep -qs "ready for connections" "$run/mariadb.log" || return 0
        kill -0 "$mariadb_pid" 2>/dev/null || return 1
        sleep 0.1
    done
    fail "MariaDB did not start within a minute: $(tail -n 5 "$run/mariadb.log")"
}

clean_up() {
    "${policy_remover[@]}"
    if [ -n "$mariadb_pid" ]; then
        # Its data are deleted, so it need not shut down gracefully.
        kill -9 "$mariadb_pid" 2>/dev/null || true
        wait "$mariadb_pid" 2>/dev/null || true
    fi
    [ -z "$run" ] || rm -rf "$run"
}

run=
mariadb_pid=
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The packages that the tests of the web client use, as the lock file names them; only if it has
# changed.
install_packages() {
    local folder=tests/browser
    [ "$folder/package-lock.json" -nt "$folder/node_modules/.package-lock.json" ] || return 0
    echo "test.sh: installing the packages of $folder"
    npm ci --prefix "$folder" --no-audit --no-fund --loglevel=error || fail "npm ci fails in $folder"
    touch "$folder/node_modules/.package-lock.json"
}

# Schemathesis, which asks the administration for everything that its description allows, and for
# what it does not.
install_schemathesis() {
    local folder=target/schemathesis version=4.32.5
    TEST_SCHEMATHESIS=$PWD/$folder/bin/schemathesis
    export TEST_SCHEMATHESIS
    [ ! -e "$folder/$version" ] || return 0
    echo "test.sh: installing schemathesis in $folder"
    rm -rf "$folder"
    python3 -m venv "$folder" || fail "python3 -m venv fails: install python3-venv"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version" || fail "pip cannot install schemathesis"
    touch "$folder/$version"
}

install_missing
install_packages
install_schemathesis
run=$(mktemp -d "${TMPDIR:-/tmp}/raybox-test-run-XXXXXXXX")
start_mariadb

# ---- The tests ----

# Every suite runs even if one fails or hangs; the failed ones are named at the end.
if [ $# -eq 0 ]; then
    scripts/suites.py || fail "tests failed, see above"
else
    deadline="target.'cfg(unix)'.runner = ['$PWD/scripts/deadline.sh', '900']"
    cargo test --config "$deadline" --workspace --no-fail-fast "$@" || fail "tests failed, see above"
fi
echo "test.sh: all tests passed"
