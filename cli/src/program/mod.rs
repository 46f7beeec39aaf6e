//! The program to start: where it is, and whether a library can be preloaded into it.

mod image;
mod obstacle;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::failure::{Failure, words};

pub(crate) use crate::program::image::Image;
pub(crate) use crate::program::obstacle::obstacle;

/// Where programs are looked for if PATH is not set.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// The executable file of the program `name`, as a shell would find it.
pub(crate) fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    find_in(name, &env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into()))
}

fn find_in(name: &OsStr, folders: &OsStr) -> Result<PathBuf, Failure> {
    let not_found = || Failure::not_found(name.display());
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_found()),
            Err(error) => Err(Failure::not_executable(name.display(), words(&error))),
        };
    }
    let mut refused = None;
    for folder in env::split_paths(folders).filter(|_| !name.is_empty()) {
        // An empty part of PATH is the current folder; the path needs a `/` to be taken as it is.
        let path = if folder.as_os_str().is_empty() { Path::new(".").join(name) } else { folder.join(name) };
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.is_file() => {
                refused.get_or_insert_with(|| Failure::not_executable(path.display(), words(&error)));
            }
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(not_found))
}

/// Whether this user may execute the file.
fn executable(path: &Path) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        let number = if found.is_dir() { libc::EISDIR } else { libc::EACCES };
        return Err(io::Error::from_raw_os_error(number));
    }
    Ok(accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?)
}

/// The arguments as text, for people.
pub(crate) fn texts(arguments: &[OsString]) -> Vec<String> {
    arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(path: &Path, mode: u32) {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn first_executable_in_the_path_is_found() {
        let base = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|name| base.path().join(name));
        for folder in [&one, &two, &three] {
            fs::create_dir(folder).unwrap();
        }
        let folders = env::join_paths([&one, &two, &three]).unwrap();
        let find = |name: &str| find_in(OsStr::new(name), &folders);
        assert_eq!(find("a").unwrap_err().code, 127);
        assert_eq!(find("").unwrap_err().code, 127);
        fs::create_dir(one.join("a")).unwrap();
        assert_eq!(find("a").unwrap_err().code, 127, "a folder is no program");
        write(&two.join("a"), 0o644);
        assert_eq!(find("a").unwrap_err().code, 126);
        write(&three.join("a"), 0o755);
        assert_eq!(find("a").unwrap(), three.join("a"));
    }

    #[test]
    fn path_is_taken_as_it_is() {
        let base = tempfile::tempdir().unwrap();
        let find = |name: &str| find_in(base.path().join(name).as_os_str(), OsStr::new(""));
        let failure = find("a").unwrap_err();
        assert_eq!(failure.code, 127);
        assert!(failure.reason.ends_with("/a: program not found"), "{}", failure.reason);
        write(&base.path().join("a"), 0o644);
        let failure = find("a").unwrap_err();
        assert_eq!(failure.code, 126);
        assert!(failure.reason.ends_with("/a: Permission denied"), "{}", failure.reason);
        assert_eq!(find("a/b").unwrap_err().code, 126);
        assert!(find(".").unwrap_err().reason.ends_with(": Is a directory"));
        write(&base.path().join("b"), 0o755);
        assert_eq!(find("b").unwrap(), base.path().join("b"));
    }
}
