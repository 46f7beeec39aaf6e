//! A folder that only this user can write to, for what has to lie in a file to be preloaded.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;

use crate::failure::words;
use crate::library::link::is_plain;
use crate::library::trust::{Whose, resolve};

/// In the user's cache, or else in the folder for temporary files; or why neither will do.
pub(crate) fn private_folder() -> Result<PathBuf, String> {
    let cache = cache_folder().map(|cache| cache.join("magalloc"));
    let temporary = env::temp_dir().join(format!("magalloc-{}", rustix::process::geteuid().as_raw()));
    let mut reasons = Vec::new();
    for folder in cache.into_iter().chain([temporary]) {
        match make(&folder) {
            Ok(folder) => return Ok(folder),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(format!("no folder to keep the library in: {}", reasons.join("; ")))
}

/// `$XDG_CACHE_HOME`, or `~/.cache`. Relative paths count as unset, as the specification has it; a home that is not
/// there is not made.
fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME").filter(|home| home.is_dir())?.join(".cache")))
}

/// The folder without links, made if need be.
fn make(folder: &Path) -> Result<PathBuf, String> {
    let failed = |error: io::Error| format!("{}: {}", folder.display(), words(&error));
    if let Some(parent) = folder.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let path = resolve(folder, Whose::Ours)?;
    let found = fs::symlink_metadata(&path).map_err(failed)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(format!("{}: not a folder of this user alone (mode 0700)", folder.display()));
    }
    if !is_plain(&path) {
        return Err(format!("{}: the path has a character that cannot be preloaded", folder.display()));
    }
    let mount = rustix::fs::statvfs(&path).map_err(|error| failed(error.into()))?;
    if mount.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(format!("{}: on a file system mounted noexec", folder.display()));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn folder_is_made_for_this_user_alone() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("a/b/magalloc");
        for _ in 0..2 {
            let made = make(&folder).unwrap();
            assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn folder_of_others_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("magalloc");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        assert!(make(&folder).unwrap_err().contains("not a folder of this user alone"));
        let open = base.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        assert!(make(&open.join("magalloc")).unwrap_err().contains("others may write"));
        fs::write(base.path().join("file"), "").unwrap();
        assert!(make(&base.path().join("file")).is_err());
        symlink("/usr", base.path().join("link")).unwrap();
        assert!(make(&base.path().join("link")).is_err());
        assert!(make(&base.path().join("with space")).unwrap_err().contains("character"));
    }
}
