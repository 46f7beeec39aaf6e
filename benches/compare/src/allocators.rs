//! The allocators, and how the program to be measured is built on each of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// An allocator as it is known before anything is built.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Its name on the command line and in the tables.
    pub(crate) name: &'static str,
    /// The feature of `magalloc-compare-subject`; none for the system's.
    feature: Option<&'static str>,
    /// The package that is named, with its version, in the report.
    package: Option<&'static str>,
    /// How that package builds it in a release build.
    flags: &'static str,
}

/// All of them, in the order of the columns.
pub(crate) const SUBJECTS: [Subject; 8] = [
    Subject { name: "magalloc", feature: Some("magalloc"), package: Some("magalloc"), flags: "Rust, opt-level 3" },
    Subject { name: "system", feature: None, package: None, flags: "as installed" },
    Subject {
        name: "mimalloc-v2",
        feature: Some("mimalloc-v2"),
        package: Some("libmimalloc-sys"),
        flags: "cc -O3, features v2, not secure",
    },
    Subject {
        name: "mimalloc-v3",
        feature: Some("mimalloc-v3"),
        package: Some("libmimalloc-sys"),
        flags: "cc -O3, not secure",
    },
    Subject {
        name: "jemalloc",
        feature: Some("jemalloc"),
        package: Some("tikv-jemalloc-sys"),
        flags: "configure and make, -O3, without profiling and statistics",
    },
    Subject {
        name: "snmalloc",
        feature: Some("snmalloc"),
        package: Some("snmalloc-sys"),
        flags: "cmake, build type Release, without checks",
    },
    Subject {
        name: "rpmalloc",
        feature: Some("rpmalloc"),
        package: Some("rpmalloc-sys"),
        flags: "cc -O2, as its crate wants it, default features; the crate's realloc copies",
    },
    Subject {
        name: "tcmalloc",
        feature: Some("tcmalloc"),
        package: Some("libtcmalloc-sys"),
        flags: "c++ -O3, Google's, pages of 8 KiB, caches by rseq per processor",
    },
];

/// Counts what the workloads ask for, so that resident memory can be set beside it. No column.
pub(crate) const COUNTED: Subject =
    Subject { name: "counted", feature: Some("counted"), package: None, flags: "the system's, counted" };

/// The names that the command line takes.
pub(crate) fn names() -> [&'static str; SUBJECTS.len()] {
    std::array::from_fn(|index| SUBJECTS[index].name)
}

/// What a subject's program says of itself (see its `about`).
#[derive(Debug)]
pub(crate) struct About {
    /// The version that the allocator itself reports, if it can.
    pub(crate) version: Option<String>,
    /// Nanoseconds for malloc and free of 64 bytes.
    pub(crate) pair: f64,
}

impl Subject {
    /// Builds the program and gives its path, or why it could not be built. The last lines of the compiler's words go
    /// with the reason.
    pub(crate) fn build(&self) -> Result<PathBuf, String> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("subject/Cargo.toml");
        let mut cargo = Command::new(cargo());
        cargo.arg("build").args(["--release", "--locked", "--message-format=json", "--manifest-path"]).arg(manifest);
        if let Some(feature) = self.feature {
            cargo.args(["--features", feature]);
        }
        let output = cargo
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot be built, as cargo cannot be started: {error}"))?;
        if !output.status.success() {
            return Err(format!("does not build: {}", why(&output.stdout, &output.stderr)));
        }
        let built = executable(&output.stdout).ok_or("cargo built no program")?;
        // The next allocator's program is built in the same place.
        let own = built.with_file_name(format!("magalloc-compare-{}", self.name));
        // Not overwritten in place: an older run may still be using it.
        let new = own.with_extension("new");
        fs::copy(&built, &new)
            .and_then(|_| fs::rename(&new, &own))
            .map_err(|error| format!("{}: {error}", own.display()))?;
        Ok(own)
    }

    /// The version to be shown: what the allocator says of itself, and its crate's.
    pub(crate) fn version(&self, about: Option<&About>, packages: &Packages) -> String {
        let own = about.and_then(|about| about.version.clone());
        let package = self.package.and_then(|name| packages.version(name).map(|version| format!("{name} {version}")));
        match (own, package) {
            (Some(own), Some(package)) => format!("{own} ({package})"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => "unknown".into(),
        }
    }

    /// How it is built.
    pub(crate) fn flags(&self) -> &'static str {
        self.flags
    }
}

/// Asks a program about its allocator.
pub(crate) fn about(program: &Path) -> Result<About, String> {
    let output = Command::new(program)
        .arg("about")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("crashed at its first allocations: {}", output.status));
    }
    let about: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("says no JSON: {error}"))?;
    Ok(About {
        version: about["version"].as_str().map(str::to_owned),
        pair: about["pair"].as_f64().ok_or("does not say how long a pair takes")?,
    })
}

/// Cargo, as it was called, or from the path.
fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The program's path from cargo's messages.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

/// The end of what the compilers said.
fn why(messages: &[u8], diagnostics: &[u8]) -> String {
    const LINES: usize = 6;
    let rendered: String = messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter_map(|message| message["message"]["rendered"].as_str().map(str::to_owned))
        .collect();
    let text = format!("{rendered}{}", String::from_utf8_lossy(diagnostics));
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// The packages of the lock file.
#[derive(Debug)]
pub(crate) struct Packages(Vec<(String, String)>);

impl Packages {
    /// Reads them by `cargo metadata`; none if that fails.
    pub(crate) fn read() -> Self {
        let output = Command::new(cargo())
            .args(["metadata", "--locked", "--all-features", "--format-version", "1", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .stderr(Stdio::null())
            .output();
        let metadata: Value =
            output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default();
        let package =
            |package: &Value| Some((package["name"].as_str()?.to_owned(), package["version"].as_str()?.to_owned()));
        Self(metadata["packages"].as_array().into_iter().flatten().filter_map(package).collect())
    }

    fn version(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|package| package.0 == name).map(|package| package.1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_is_found_in_the_messages() {
        let messages =
            b"{\"reason\":\"x\",\"executable\":null}\n{\"executable\":\"/a/b\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/a/b")));
        assert_eq!(executable(b"no json\n"), None);
    }

    #[test]
    fn reason_is_the_end_of_the_words() {
        let said = (1..=20).map(|line| format!("line {line}\n\n")).collect::<String>();
        assert_eq!(why(b"", said.as_bytes()), "line 15\nline 16\nline 17\nline 18\nline 19\nline 20");
    }

    #[test]
    fn versions_are_read_from_the_lock_file() {
        let packages = Packages::read();
        assert_eq!(packages.version("magalloc"), Some(env!("CARGO_PKG_VERSION")));
        assert!(packages.version("libmimalloc-sys").is_some());
    }
}
