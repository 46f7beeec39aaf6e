//! May a file be preloaded: could somebody else have put it there?
//!
//! ```text
//! # Role        `resolve`: follows a path link by link and looks at every folder and file on the way
//! # Rules       T1 a name in a folder that everybody may write to proves nothing
//!               T2 in such a folder with the sticky bit (/tmp), it does if its owner is this user or root
//!               T3 a file that everybody may write to is refused
//!               T4 in a place of our own (`Whose::Ours`) all owners are this user or root, and no group may write
//! # Why         the resolved path is what is preloaded, so that a link that is changed later changes nothing
//! ```

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::failure::words;

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;
/// A mode's bit: what is in this folder belongs to its owner.
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;

/// Who may have made a file and the folders on the way to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The user chose the place: anyone whom it takes an effort to let in.
    Chosen,
    /// This program makes it: only this user, and root.
    Ours,
}

/// The file or folder at `path` without links, or why it is not to be trusted.
pub(crate) fn resolve(path: &Path, whose: Whose) -> Result<PathBuf, String> {
    let failed = |path: &Path, error: &io::Error| format!("{}: {}", path.display(), words(error));
    let path = std::path::absolute(path).map_err(|error| failed(path, &error))?;
    let mut pending = parts(&path);
    let mut done = PathBuf::from("/");
    let mut folder = fs::symlink_metadata(&done).map_err(|error| failed(&done, &error))?;
    let mut links = 0;
    while let Some(part) = pending.pop_front() {
        let next = if part == ".." { parent(&done) } else { done.join(&part) };
        let entry = fs::symlink_metadata(&next).map_err(|error| failed(&path, &error))?;
        check_entry(&done, &folder, &next, &entry, whose)?;
        if entry.is_symlink() {
            links += 1;
            let target = fs::read_link(&next).map_err(|error| failed(&next, &error))?;
            if links > LINKS_MAX {
                return Err(format!("{}: too many links", path.display()));
            }
            for part in parts(&target).into_iter().rev() {
                pending.push_front(part);
            }
            if target.is_absolute() {
                done = PathBuf::from("/");
                folder = fs::symlink_metadata(&done).map_err(|error| failed(&done, &error))?;
            }
            continue;
        }
        (done, folder) = (next, entry);
    }
    Ok(done)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component: Component| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(part).collect()
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_path_buf()
}

/// Whether `entry`, found in `folder`, is what those who may say so made it.
fn check_entry(
    folder_path: &Path,
    folder: &Metadata,
    entry_path: &Path,
    entry: &Metadata,
    whose: Whose,
) -> Result<(), String> {
    let open = OTHERS_WRITE | if whose == Whose::Ours { GROUP_WRITES } else { 0 };
    let is_open = folder.is_dir() && folder.mode() & open != 0;
    if is_open && folder.mode() & STICKY == 0 {
        return Err(format!("{}: others may write to this folder", folder_path.display()));
    }
    let owner_matters = is_open || whose == Whose::Ours;
    if owner_matters && ![rustix::process::geteuid().as_raw(), 0].contains(&entry.uid()) {
        return Err(format!("{}: somebody else made it", entry_path.display()));
    }
    if entry.is_file() && entry.mode() & open != 0 {
        return Err(format!("{}: others may write to this file", entry_path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn own_file_is_trusted_and_resolved() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        set_mode(&file, 0o600);
        symlink("file", folder.path().join("link")).unwrap();
        symlink(folder.path().join("x/../link"), folder.path().join("far")).unwrap();
        fs::create_dir(folder.path().join("x")).unwrap();
        let file = file.canonicalize().unwrap();
        for name in ["file", "link", "far", "x/../file", "./file"] {
            for whose in [Whose::Chosen, Whose::Ours] {
                assert_eq!(resolve(&folder.path().join(name), whose), Ok(file.clone()), "{name}");
            }
        }
    }

    #[test]
    fn open_folder_and_open_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("file");
        fs::write(&file, "").unwrap();
        set_mode(&file, 0o644);
        for (folder_mode, file_mode, expected) in [
            (0o755, 0o644, (true, true)),
            (0o777, 0o644, (false, false)),
            (0o1777, 0o644, (true, true)),
            (0o755, 0o646, (false, false)),
            (0o775, 0o644, (true, false)),
            (0o755, 0o664, (true, false)),
        ] {
            set_mode(&inner, folder_mode);
            set_mode(&file, file_mode);
            let is_trusted = |whose| resolve(&file, whose).is_ok();
            let found = (is_trusted(Whose::Chosen), is_trusted(Whose::Ours));
            assert_eq!(found, expected, "{folder_mode:o} {file_mode:o}");
        }
    }

    #[test]
    fn link_through_an_open_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        set_mode(&open, 0o777);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        symlink(&file, open.join("inner")).unwrap();
        symlink("open/inner", folder.path().join("outer")).unwrap();
        let error = resolve(&folder.path().join("outer"), Whose::Chosen).unwrap_err();
        assert!(error.ends_with("open: others may write to this folder"), "{error}");
        set_mode(&open, 0o755);
        assert!(resolve(&folder.path().join("outer"), Whose::Chosen).is_ok());
    }

    #[test]
    fn loop_and_missing_file_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        symlink("loop", folder.path().join("loop")).unwrap();
        let error = resolve(&folder.path().join("loop"), Whose::Chosen).unwrap_err();
        assert!(error.ends_with("too many links"), "{error}");
        let error = resolve(&folder.path().join("missing"), Whose::Chosen).unwrap_err();
        assert!(error.ends_with("missing: No such file or directory"), "{error}");
    }
}
