# Debian's Rust, for scripts that source this after ci/packages.sh: it comes with the sources of its standard library, so
# that other targets can be built. `root` is the repository, `scratch` a folder for what is made.

# Prints the packages of it that are missing.
missing_rust() {
    local pair
    for pair in /usr/bin/cargo:cargo-web /usr/bin/rustc:rustc-web /usr/lib/rustlib/src/rust/library/std:rust-web-src \
        /usr/lib/rustlib/x86_64-unknown-linux-gnu/lib:libstd-rust-web-dev; do
        [[ -e ${pair%%:*} ]] || echo "${pair##*:}"
    done
}

# To compile the standard library, the stable compiler wants the second word.
use_debian_rust() {
    export PATH=/usr/bin:$PATH RUSTC_BOOTSTRAP=1
    unset RUSTUP_TOOLCHAIN
}

# The package in "$scratch/package" without its benches and what they depend on, which would take longer than all the rest.
make_package() {
    rm -rf "$scratch/package"
    mkdir -p "$scratch/package"
    local name
    for name in src tests loom_tests README.md; do ln -s "$root/$name" "$scratch/package/$name"; done
    cp "$root/Cargo.lock" "$scratch/package/"
    awk '/^\[/ { left_out = /^\[(\[bench\]\]|dev-dependencies\]|profile\.(release|bench)|target\..cfg\((loom|magalloc|not))/ }
        /^(default-)?members = / { next }
        !left_out' "$root/Cargo.toml" >"$scratch/package/Cargo.toml"
}
