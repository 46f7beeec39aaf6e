//! With the feature `embed`: builds the library, for the program to include.
//!
//! The cargo that runs this holds the lock of its target folder, so the inner one gets a target folder of its own.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the library is made of, seen from the folder of this package.
const SOURCES: [&str; 5] = ["../Cargo.toml", "../Cargo.lock", "../src", "../capi", "build.rs"];

/// What the outer cargo says of itself and of this package; the inner one shall find out by itself.
const OUTER: [&str; 4] =
    ["RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_EMBED").is_none() {
        return Ok(());
    }
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let library = build_library(&PathBuf::from(variable("OUT_DIR")?))?;
    let hash = fs::read(&library)?.iter().fold(0xcbf2_9ce4_8422_2325, fnv_1a);
    println!("cargo::rustc-env=EMBEDDED_MAGALLOC={}", library.display());
    println!("cargo::rustc-env=EMBEDDED_MAGALLOC_NAME=libmagalloc-{hash:016x}.so");
    Ok(())
}

/// Only to give different libraries different names.
fn fnv_1a(hash: u64, byte: &u8) -> u64 {
    (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo does not set {name}"))
}

/// Builds libmagalloc.so for the target of this package, optimised in any case.
fn build_library(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let target = variable("TARGET")?;
    let folder = folder.join("library");
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../Cargo.toml");
    let mut command = Command::new(variable("CARGO")?);
    command.args(["build", "--release", "--package", "magalloc-capi"]);
    command.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(&folder).arg("--target").arg(&target);
    for name in OUTER {
        command.env_remove(name);
    }
    if target.to_string_lossy().contains("musl") {
        // Else there are no dynamic libraries for it.
        let flags = env::var("RUSTFLAGS").unwrap_or_default();
        command.env("RUSTFLAGS", format!("{flags} -C target-feature=-crt-static"));
    }
    let status = command.status()?;
    if !status.success() {
        return Err(format!("the library cannot be built: {command:?} failed with {status}").into());
    }
    Ok(folder.join(target).join("release/libmagalloc.so"))
}
