# Debian's packages, for scripts that source this.

# install_packages PACKAGE...: installs them, if there are any; it takes root. Silent but for what fails.
install_packages() {
    local said
    if (($# == 0)); then return; fi
    if ((EUID != 0)); then
        echo "missing: $*; install them, or run this as root" >&2
        exit 1
    fi
    echo "-- installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    if ! said=$(apt-get install -y -qq --no-install-recommends "$@" </dev/null 2>&1); then
        echo "$said" >&2
        exit 1
    fi
}
