#!/usr/bin/env bash
# Builds the Debian package of the server, with dpkg-deb alone, which every Debian has:
#
#     packaging/build-deb.sh                          target/raybox-server_VERSION_ARCHITECTURE.deb
#     packaging/build-deb.sh --static                 the same with a program that needs no libraries (musl)
#     packaging/build-deb.sh --program FILE           packs this program
#     packaging/build-deb.sh --version V --out DIR    instead of that of Cargo.toml, and target/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "build-deb.sh: $*" >&2
    exit 1
}

program='' version='' out=target is_static=''
while [ $# -gt 0 ]; do
    case $1 in
    --static) is_static=yes && shift && continue ;;
    --program | --version | --out) [ $# -ge 2 ] || fail "$1 needs a value" ;;
    *) fail "unknown option $1; use --static, --program, --version or --out" ;;
    esac
    case $1 in
    --program) program=$2 ;;
    --version) version=$2 ;;
    --out) out=$2 ;;
    esac
    shift 2
done
for tool in dpkg dpkg-deb; do
    type -P "$tool" >/dev/null || fail "$tool is needed: it is part of Debian (elsewhere: package dpkg)"
done
[ -n "$version" ] || version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)

# ---- The program ----

if [ -z "$program" ]; then
    if [ -n "$is_static" ]; then
        program=$(packaging/build-static.sh)
    else
        cargo build --release --locked --bin server
        program=${CARGO_TARGET_DIR:-target}/release/server
    fi
fi
[ -x "$program" ] || fail "$program is no program"

# The version of glibc that it needs is that of its newest symbol; a static program has none.
glibc=$({ grep -ao 'GLIBC_2\.[0-9.]*[0-9]' "$program" || true; } | sort -uV | tail -n 1)
depends="passwd"
[ -z "$glibc" ] || depends="libc6 (>= ${glibc#GLIBC_}), libgcc-s1, $depends"

# ---- The files ----

tree=$(mktemp -d "${TMPDIR:-/tmp}/raybox-deb-XXXXXXXX")
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
umask 022
put() { # put MODE FILE PATH
    install -D -m "$1" "$2" "$tree/$3"
}
doc=usr/share/doc/raybox-server

put 755 "$program" usr/bin/raybox-server
[ -z "$(type -P strip)" ] || strip "$tree/usr/bin/raybox-server"
# The name that the C++ server has, for scripts that start that one; not in the search path, where
# it would say nothing.
install -d "$tree/usr/lib/raybox"
ln -s ../../bin/raybox-server "$tree/usr/lib/raybox/server"
put 644 packaging/raybox.service usr/lib/systemd/system/raybox.service
put 644 packaging/listen etc/raybox/listen
# Short, because dpkg asks the operator who has changed a file of settings whenever the next version
# of it differs, which stops an unattended upgrade.
put 644 packaging/server.cnf etc/raybox/server.cnf
for example in server.cnf mysql.cnf redis.cnf; do
    put 644 "conf/$example" "$doc/examples/$example"
done
put 644 README.md "$doc/README.md"
put 644 README.zh-CN.md "$doc/README.zh-CN.md"
find docs conf/monitoring -type f | while read -r file; do
    put 644 "$file" "$doc/$file"
done
# In one file, because slim images leave out all other documents.
put 644 LICENSE "$doc/copyright"
printf '\n%s\n\n' "==== Of its parts ====" | cat - THIRD-PARTY-LICENSES >>"$tree/$doc/copyright"
ln -s copyright "$tree/$doc/LICENSE"
ln -s copyright "$tree/$doc/THIRD-PARTY-LICENSES"
put 644 CHANGELOG.md "$doc/changelog"
gzip -9n "$tree/$doc/changelog"

# ---- What dpkg reads ----

control=$tree/DEBIAN
install -d "$control"
for script in postinst prerm postrm; do
    install -m 755 "packaging/$script" "$control/$script"
done
printf '%s\n' /etc/raybox/listen /etc/raybox/server.cnf >"$control/conffiles"
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$control/md5sums"
cat >"$control/control" <<CONTROL
Package: raybox-server
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: The raybox developers <raybox@localhost>
Installed-Size: $(du -sk --apparent-size --exclude=DEBIAN "$tree" | cut -f1)
Depends: $depends
Recommends: ca-certificates
Section: net
Priority: optional
Description: clustered instant-messaging server
 JSON over TCP, WebSockets and TLS on one port, with a web client. It keeps
 everything in one SQLite file, or in MySQL or MariaDB with Redis as a cluster.
 .
 Settings are in /etc/raybox, data in /var/lib/raybox; the service is raybox.
CONTROL

# The same files give the same package.
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$out"
package=$out/raybox-server_${version}_$(dpkg --print-architecture).deb
dpkg-deb --root-owner-group "-Z${DPKG_DEB_COMPRESSOR_TYPE:-xz}" --build "$tree" "$package" >/dev/null
echo "$package"
