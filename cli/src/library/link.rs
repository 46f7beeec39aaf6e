//! Paths that LD_PRELOAD cannot hold: the dynamic linker splits it at spaces and colons, and expands `$`.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::failure::words;
use crate::library::private::private_folder;

/// Whether the dynamic linker takes the path as it is.
pub(crate) fn is_plain(path: &Path) -> bool {
    !path.as_os_str().as_bytes().iter().any(|byte| byte.is_ascii_whitespace() || matches!(byte, b':' | b'$' | 0x0b))
}

/// The library by a path that can be preloaded: its own, or that of a link in a folder of this user's.
pub(crate) fn preloadable(library: &Path) -> Result<PathBuf, String> {
    if is_plain(library) {
        return Ok(library.to_path_buf());
    }
    // The library knows itself in LD_PRELOAD by the beginning of its name.
    let name = format!("libmagalloc-link-{:016x}.so", hash(library.as_os_str().as_bytes()));
    let link = private_folder()?.join(name);
    if fs::read_link(&link).is_ok_and(|target| target == library) {
        return Ok(link);
    }
    make(library, &link).map_err(|error| format!("{}: {}", link.display(), words(&error)))?;
    Ok(link)
}

/// Made under another name first: whoever finds the link finds it whole.
fn make(library: &Path, link: &Path) -> io::Result<()> {
    let folder = link.parent().unwrap_or(Path::new("/"));
    let made = tempfile::Builder::new().prefix("link-").make_in(folder, |path| symlink(library, path))?;
    made.into_temp_path().persist(link).map_err(|error| error.error)
}

/// FNV-1a: only to give different paths different names.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_separators_and_dollars_are_in_the_way() {
        for plain in ["/a/b.so", "/ä/é", "/a=b,c;d"] {
            assert!(is_plain(Path::new(plain)), "{plain}");
        }
        for bad in ["/a b", "/a:b", "/a\tb", "/a\nb", "/$ORIGIN/b"] {
            assert!(!is_plain(Path::new(bad)), "{bad}");
        }
    }

    #[test]
    fn link_replaces_an_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link.so");
        for target in ["/a", "/b"] {
            make(Path::new(target), &link).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
