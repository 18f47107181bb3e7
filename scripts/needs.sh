# Installs the packages that a script needs, if the user may do that (Debian). The script sources
# this file, defines `fail`, calls `need` for each program, and then install_missing. If it exits in
# between, it must run "${policy_remover[@]}" to clean up.

missing=()

# need PROGRAM PACKAGE...: notes the packages for installation if PROGRAM is not found.
need() {
    local program=$1
    shift
    type -P "$program" >/dev/null || missing+=("$@")
}

install_missing() {
    [ "${#missing[@]}" -gt 0 ] || return 0
    local as_root=() hint="install it yourself (Debian: apt-get install ${missing[*]})"
    if [ "$(id -u)" -ne 0 ]; then
        type -P sudo >/dev/null || fail "needed: ${missing[*]}: $hint"
        as_root=(sudo)
    fi
    type -P apt-get >/dev/null || fail "needed: ${missing[*]}: $hint"
    echo "${0##*/}: installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq || echo "${0##*/}: apt-get update failed, trying with what is known" >&2
    # Debian starts a service as soon as it is installed, unless this file forbids it. The tests
    # start services of their own.
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
        policy_remover=("${as_root[@]}" rm -f "$policy")
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" || fail "cannot install ${missing[*]}: $hint"
    "${policy_remover[@]}"
    policy_remover=(:)
}

policy=/usr/sbin/policy-rc.d
policy_remover=(:)
