# Helpers of the scripts in ci/. Sourced by them, never run.
# shellcheck shell=bash disable=SC2034 # what the scripts use

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=$(cd "$ROOT" && realpath -m "${CARGO_TARGET_DIR:-target}")
# From whichever folder cargo is run.
[ -z "${CARGO_TARGET_DIR:-}" ] || export CARGO_TARGET_DIR=$TARGET
export GIT_TERMINAL_PROMPT=0

# What it takes to build the module, and to run httpd for a test. apache2-bin
# is httpd with all its modules but without the service: nothing gets started
# on port 80, and no running Apache is touched.
BUILD_PACKAGES=(apache2-dev libclang-dev clang gcc libc6-dev make pkg-config)
HTTPD_PACKAGES=(apache2-bin media-types openssl ca-certificates)
TEST_PACKAGES=(apache2-utils ethtool iproute2 libssl-dev python3 python3-venv rpm strace)
# Installed by need_servers.
FLEET_PACKAGES=(haproxy)
BROWSER_PACKAGES=(chromium chromium-driver tigervnc-standalone-server xterm fonts-dejavu-core)

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# step COMMAND...: says what runs, and how long it took.
step() {
    local begun=$SECONDS
    say "$*"
    "$@"
    echo "   ($((SECONDS - begun)) s)"
}

can_be_root() { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        can_be_root || die "needs root for: $* (run it as root, or install sudo)"
        sudo "$@"
    fi
}

is_installed() {
    dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

# apt without questions; it waits for another apt rather than failing.
apt_quiet() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

# need_packages NAME...: install those that are missing, and only those.
need_packages() {
    local name log missing=()
    for name; do
        is_installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "no apt here; please install what Debian calls: ${missing[*]}"
    # Said here, since what apt says goes into a file.
    can_be_root || die "needs root (or sudo) once, for: apt-get install ${missing[*]}"
    say "Installing ${missing[*]}"
    log=$(mktemp)
    # The package lists may be absent or stale: fetch them and try once more.
    # A third-party source that does not answer is not our business.
    if ! apt_quiet install --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
        apt_quiet update >"$log" 2>&1 || true
        apt_quiet install --no-install-recommends "${missing[@]}" >>"$log" 2>&1 ||
            { tail -n 30 "$log" >&2; rm -f "$log"; die "apt could not install ${missing[*]}"; }
    fi
    rm -f "$log"
}

# missing_of NAME...: those that are not installed, in $MISSING.
missing_of() {
    local name
    MISSING=()
    for name; do
        is_installed "$name" || MISSING+=("$name")
    done
}

# need_servers NAME...: need_packages for those whose services are not to run: invoke-rc.d(8)
# asks policy-rc.d, and systemd is told not to start at boot what was not here before.
need_servers() {
    local name policy=/usr/sbin/policy-rc.d
    missing_of "$@"
    [ ${#MISSING[@]} -gt 0 ] || return 0
    set -- "${MISSING[@]}"
    if [ ! -e "$policy" ]; then
        trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    need_packages "$@"
    if command -v systemctl >/dev/null; then
        # One by one: strace has no service, and one that is unknown ends the command.
        for name; do
            as_root systemctl disable --quiet "$name" 2>/dev/null || true
        done
    fi
    if [ -n "$(trap -p EXIT)" ]; then
        as_root rm -f "$policy"
        trap - EXIT
    fi
}

# rust_wanted: the oldest Rust that Cargo.toml allows.
rust_wanted() { sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml" | head -n 1; }

# rust_found: the version of the rustc in the path, if cargo is there too.
rust_found() {
    command -v cargo >/dev/null || return 0
    rustc --version 2>/dev/null | sed 's/^rustc \([0-9.]*\).*/\1/'
}

is_new_enough() { [ -n "$1" ] && [ "$(printf '%s\n' "$(rust_wanted)" "$1" | sort -V | head -n 1)" = "$(rust_wanted)" ]; }

# need_rust: cargo and rustc, as new as Cargo.toml asks for. Those of rustup
# come in where the path has none, or older ones of the distribution.
need_rust() {
    local found
    found=$(rust_found || true)
    is_new_enough "$found" && return
    PATH=$HOME/.cargo/bin:$PATH
    hash -r
    found=$(rust_found || true)
    is_new_enough "$found" ||
        die "needs Rust $(rust_wanted) or later (cargo and rustc), found ${found:-none}: see https://rustup.rs, or run 'rustup update'"
}

# need_lints: what formats and lints, which not every Rust brings along.
need_lints() {
    local tool
    for tool in fmt clippy; do
        cargo $tool --version >/dev/null 2>&1 ||
            die "needs cargo $tool: run 'rustup component add rustfmt clippy', or install what your distribution calls so"
    done
}

# build_module [dev]: the release .so, or cargo's for developers, from the lock file;
# its path is in $MODULE.
build_module() {
    need_rust
    need_packages "${BUILD_PACKAGES[@]}"
    say "Building the module"
    local profile=${1:-release}
    (cd "$ROOT" && cargo build --profile "$profile" --locked --quiet)
    MODULE=$TARGET/${profile/#dev/debug}/libmod_wsforward.so
    [ -f "$MODULE" ] || die "cargo built no $MODULE"
}

# build_revision REVISION: the release .so of another revision, by the same compiler and
# profile; its path is in $BEFORE, what git calls it in $BEFORE_VERSION.
build_revision() {
    local commit source build=$TARGET/before/build
    commit=$(git_of_root rev-parse --verify --quiet "$1^{commit}") || die "git knows no revision $1"
    BEFORE_VERSION=$(git_of_root describe --always "$commit")
    say "Building $1 ($BEFORE_VERSION)"
    # A folder for each: git gives files the time of their commit, by which cargo would take
    # those of an older one for built.
    source=$TARGET/before/$commit
    rm -rf "$source"
    mkdir -p "$source"
    git_of_root archive "$commit" | tar -x -C "$source"
    (cd "$source" && CARGO_TARGET_DIR=$build cargo build --release --locked --quiet) ||
        die "$1 does not build"
    BEFORE=$build/$commit.so
    rm -f "$build"/*.so
    cp "$build/release/libmod_wsforward.so" "$BEFORE"
    rm -rf "$source"
}

# need_novnc: noVNC's page, unpacked from Debian's package without installing
# it (the package brings a service and Node.js along); its path is in $NOVNC.
need_novnc() {
    NOVNC=/usr/share/novnc
    [ -f "$NOVNC/vnc.html" ] && return
    NOVNC=$TARGET/novnc/usr/share/novnc
    [ -f "$NOVNC/vnc.html" ] && return
    say "Fetching noVNC's page"
    command -v apt-get >/dev/null || die "no apt here; please unpack noVNC's page into $NOVNC"
    mkdir -p "$TARGET/novnc"
    (
        cd "$TARGET/novnc"
        rm -f novnc_*.deb
        if ! apt-get -qq download novnc >/dev/null 2>&1; then
            # As in need_packages: the lists may be absent or stale.
            can_be_root || die "apt has no package novnc to download; its lists need root (or sudo) once: apt-get update"
            apt_quiet update >/dev/null 2>&1 || true
            apt-get -qq download novnc >/dev/null 2>&1 || die "apt could not fetch the package novnc"
        fi
        dpkg-deb -x novnc_*.deb .
    )
    [ -f "$NOVNC/vnc.html" ] || die "the package novnc has no vnc.html"
}

# need_unpacked NAME...: these packages, with what they depend on and is not
# installed, below $UNPACKED. Nothing is installed: no service starts.
need_unpacked() {
    UNPACKED=$TARGET/unpacked
    local stamp=$UNPACKED/packages.stamp wanted=()
    [ "$(cat "$stamp" 2>/dev/null)" != "$*" ] || return 0
    say "Fetching $*"
    command -v apt-get >/dev/null || die "no apt here; please unpack what Debian calls $* into $UNPACKED, and write '$*' into $stamp"
    rm -rf "$UNPACKED"
    mkdir -p "$UNPACKED/archives"
    (
        cd "$UNPACKED/archives"
        names() { apt-get -qq --print-uris --no-install-recommends install "$@" | sed -n "s/^'[^']*' \([^_ ]*\)_.*/\1/p"; }
        if ! mapfile -t wanted < <(names "$@") || ! apt-get -qq download "${wanted[@]:-$1}" >/dev/null 2>&1; then
            # As in need_packages: the lists may be absent or stale.
            can_be_root || die "apt has no packages $* to download; its lists need root (or sudo) once: apt-get update"
            apt_quiet update >/dev/null 2>&1 || true
            mapfile -t wanted < <(names "$@")
            apt-get -qq download "${wanted[@]:-$1}" >/dev/null 2>&1 || die "apt could not fetch the packages $*"
        fi
        for file in *.deb; do dpkg-deb -x "$file" "$UNPACKED"; done
    )
    rm -rf "$UNPACKED/archives"
    printf '%s\n' "$*" >"$stamp"
}

# git_of_root ARGUMENT...: git in the checkout, whoever owns it.
git_of_root() { git -C "$ROOT" -c safe.directory="$ROOT" "$@"; }

# list_sources: the files that git does not ignore and that are there, each ended
# by NUL. One in conflict has several entries, and git before 2.31 no --deduplicate.
list_sources() {
    git_of_root ls-files -z --cached --others --exclude-standard | LC_ALL=C sort -zu |
        while IFS= read -r -d '' file; do
            [ ! -e "$ROOT/$file" ] || printf '%s\0' "$file"
        done
}

# make_venv REQUIREMENTS...: $ROOT/.venv with all that these files pin. One that
# was made for more files than these does.
make_venv() { make_venv_at "$ROOT/.venv" "$@"; }

# make_venv_at FOLDER REQUIREMENTS...: the same elsewhere; its Python is in $PYTHON.
make_venv_at() {
    local venv=$1 stamp file args=()
    shift
    stamp=$venv/requirements.stamp
    PYTHON=$venv/bin/python
    # Not grep -q: it would end the pipe before cat has written all.
    # shellcheck disable=SC2143
    if [ -f "$stamp" ] && [ -z "$(cat "$@" | grep -vxF -f "$stamp")" ] && "$PYTHON" -c '' 2>/dev/null; then
        return
    fi
    say "Making ${venv#"$ROOT"/} for ${*#"$ROOT"/}"
    for file; do args+=(-r "$file"); done
    # A python3 of one's own on the path may lack ensurepip, Debian's has it
    # by python3-venv.
    rm -rf "$venv"
    python3 -m venv "$venv" >/dev/null 2>&1 || /usr/bin/python3 -m venv --clear "$venv"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "${args[@]}" </dev/null
    cat "$@" >"$stamp"
}

# need_node_red: Node-RED as tests/recipes pins it, by the npm of .venv; its folder is in $NODE_RED.
need_node_red() {
    local pinned=$ROOT/tests/recipes/node-red folder=$TARGET/node-red
    NODE_RED=$folder/node_modules/node-red
    ! cmp -s "$pinned/package-lock.json" "$folder/installed.stamp" || return 0
    say "Fetching Node-RED"
    mkdir -p "$folder"
    cp "$pinned"/package*.json "$folder"
    (
        cd "$folder"
        PATH=$ROOT/.venv/bin:$PATH npm ci --silent --ignore-scripts --omit=optional --no-audit --no-fund
    ) || die "npm could not fetch Node-RED"
    cp "$pinned/package-lock.json" "$folder/installed.stamp"
}
