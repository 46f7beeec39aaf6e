//! Where libmagalloc.so is.

#[cfg(feature = "embed")]
mod embedded;
mod link;
mod private;
mod trust;

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::library::trust::{Whose, resolve};

/// The variable that says where the library is.
const VARIABLE: &str = "MAGALLOC_LIB";
/// The variable that the dynamic linker reads.
pub(crate) const PRELOAD: &str = "LD_PRELOAD";
/// Where to look, seen from the folder of this program.
const BESIDE: [&str; 2] = ["libmagalloc.so", "../lib/libmagalloc.so"];

/// A library that may be preloaded.
#[derive(Debug)]
pub(crate) struct Library {
    /// Its file, without links.
    pub(crate) file: PathBuf,
    /// A path of it that LD_PRELOAD can hold.
    pub(crate) path: PathBuf,
    /// What said where it is.
    pub(crate) source: &'static str,
}

impl Library {
    /// Finds the library. Whatever fails is the user's to mend: a usage error.
    pub(crate) fn find() -> Result<Self, Failure> {
        if is_secure() {
            return Err(Failure::usage("this program must not be set-uid or have capabilities: it trusts its caller"));
        }
        let (file, source) = match env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            Some(path) => (chosen(Path::new(&path))?, "MAGALLOC_LIB"),
            None => beside_or_embedded()?,
        };
        check(&file).map_err(|reason| Failure::usage(format!("{}: cannot be preloaded: {reason}", file.display())))?;
        let path = link::preloadable(&file)
            .map_err(|reason| Failure::usage(format!("{}: cannot be preloaded: {reason}", file.display())))?;
        Ok(Self { file, path, source })
    }

    /// What LD_PRELOAD has to be: the library, and behind it what is there already.
    pub(crate) fn preload(&self) -> OsString {
        preload(&self.path, env::var_os(PRELOAD).as_deref())
    }
}

/// What every build of the library has in it, and hardly another file.
const MARK: &[u8] = b"magalloc-stats";

/// Is the file one that the loader can read, and this library? The loader itself would go on without it.
fn check(file: &Path) -> Result<(), String> {
    let text = std::fs::read(file).map_err(|error| error.to_string())?;
    if !text.starts_with(b"\x7fELF") || !text.windows(MARK.len()).any(|window| window == MARK) {
        return Err("it is not libmagalloc.so".into());
    }
    Ok(())
}

/// Whether this process gained rights when it was started.
fn is_secure() -> bool {
    // SAFETY: reads what the kernel passed at the start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

fn preload(library: &Path, present: Option<&OsStr>) -> OsString {
    let mut value = OsString::from(library);
    let present = present.unwrap_or_default().as_bytes();
    for other in present.split(|byte| *byte == b':' || *byte == b' ').filter(|other| !other.is_empty()) {
        if other != library.as_os_str().as_bytes() {
            value.push(":");
            value.push(OsStr::from_bytes(other));
        }
    }
    value
}

fn chosen(path: &Path) -> Result<PathBuf, Failure> {
    let bad = |reason: String| Failure::usage(format!("{VARIABLE}={}: {reason}", path.display()));
    if !path.exists() {
        return Err(bad("there is no such file".into()));
    }
    let file = resolve(path, Whose::Chosen).map_err(|reason| bad(format!("not preloaded: {reason}")))?;
    if file.is_file() { Ok(file) } else { Err(bad("not a file".into())) }
}

fn beside_or_embedded() -> Result<(PathBuf, &'static str), Failure> {
    let program = env::current_exe().unwrap_or_default();
    let folder = program.parent().unwrap_or(Path::new("/"));
    let candidates = BESIDE.map(|name| folder.join(name));
    if let Some(path) = candidates.iter().find(|path| path.is_file()) {
        let bad = |reason| Failure::usage(format!("{} is not preloaded: {reason}", path.display()));
        return Ok((resolve(path, Whose::Chosen).map_err(bad)?, "beside this program"));
    }
    embedded(&candidates)
}

#[cfg(feature = "embed")]
fn embedded(_candidates: &[PathBuf]) -> Result<(PathBuf, &'static str), Failure> {
    Ok((embedded::unpack().map_err(Failure::usage)?, "inside this program"))
}

#[cfg(not(feature = "embed"))]
fn embedded(candidates: &[PathBuf]) -> Result<(PathBuf, &'static str), Failure> {
    let candidates: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(Failure::usage(format!("no libmagalloc.so: looked for {}; or set {VARIABLE}", candidates.join(" and "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_comes_first_and_once() {
        let value = |present: Option<&str>| preload(Path::new("/m.so"), present.map(OsStr::new));
        assert_eq!(value(None), "/m.so");
        assert_eq!(value(Some("")), "/m.so");
        assert_eq!(value(Some("/a.so")), "/m.so:/a.so");
        assert_eq!(value(Some("/a.so /m.so::/b.so")), "/m.so:/a.so:/b.so");
    }
}
