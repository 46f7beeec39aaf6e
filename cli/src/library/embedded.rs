//! The library inside this program, unpacked where it is needed (feature `embed`).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::words;
use crate::library::private::private_folder;

/// The library; build.rs built it.
static BYTES: &[u8] = include_bytes!(env!("EMBEDDED_MAGALLOC"));
/// A name for it that another build does not have.
const NAME: &str = env!("EMBEDDED_MAGALLOC_NAME");

/// The path of the unpacked library.
pub(crate) fn unpack() -> Result<PathBuf, String> {
    unpack_into(&private_folder()?)
}

fn unpack_into(folder: &Path) -> Result<PathBuf, String> {
    let path = folder.join(NAME);
    if !is_unpacked(&path) {
        write(folder, &path).map_err(|error| format!("{}: {}", path.display(), words(&error)))?;
    }
    Ok(path)
}

/// Whether the file is this user's own and holds exactly the library.
fn is_unpacked(path: &Path) -> bool {
    let read = || -> io::Result<bool> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        Ok(is_own(&file)? && is_same(&mut file)?)
    };
    read().unwrap_or(false)
}

fn is_own(file: &File) -> io::Result<bool> {
    let found = file.metadata()?;
    let is_own = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    Ok(found.is_file() && is_own && found.len() == BYTES.len() as u64)
}

fn is_same(file: &mut File) -> io::Result<bool> {
    let mut bytes = Vec::with_capacity(BYTES.len());
    file.take(BYTES.len() as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes == BYTES)
}

/// Written under another name first: whoever finds the file finds all of it.
fn write(folder: &Path, path: &Path) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix("unpacking-").tempfile_in(folder)?;
    file.write_all(BYTES)?;
    fs::set_permissions(file.path(), Permissions::from_mode(0o500))?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_is_not_the_library_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = unpack_into(folder.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), BYTES);
        let number = fs::metadata(&path).unwrap().ino();
        assert_eq!(unpack_into(folder.path()).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().ino(), number, "it is not written twice");

        let mut wrong = BYTES.to_vec();
        wrong[BYTES.len() / 2] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, wrong).unwrap();
        assert_eq!(fs::read(unpack_into(folder.path()).unwrap()).unwrap(), BYTES);

        fs::set_permissions(&path, Permissions::from_mode(0o722)).unwrap();
        unpack_into(folder.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o500);
    }
}
