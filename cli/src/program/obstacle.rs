//! Why the dynamic linker would not preload a library into a program.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid, getuid};

use crate::program::image::{Image, Machine};

/// As many scripts as the kernel follows to their interpreters.
const SCRIPTS_MAX: usize = 4;
/// As much of a script's first line as the kernel reads, in bytes.
const LINE_MAX: u64 = 256;

/// What keeps the library, which is for `machine`, out of the program at `path`; `None`: nothing that can be seen.
pub(crate) fn obstacle(path: &Path, machine: Option<Machine>) -> Option<String> {
    let mut path = path.to_path_buf();
    for _ in 0..SCRIPTS_MAX {
        let Some(interpreter) = interpreter(&path) else { break };
        path = interpreter;
    }
    let reason = extra_rights(&path).or_else(|| of_image(&path, machine))?;
    Some(format!("{} {reason}", path.display()))
}

/// The program that the kernel starts for a script.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut line = Vec::new();
    File::open(path).ok()?.take(LINE_MAX).read_to_end(&mut line).ok()?;
    let line = line.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let name = line.split(u8::is_ascii_whitespace).next()?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

/// A process that gains rights on its start does not listen to its caller's LD_PRELOAD.
fn extra_rights(path: &Path) -> Option<&'static str> {
    let file = fs::metadata(path).ok()?;
    if file.mode() & libc::S_ISUID != 0 && file.uid() != geteuid().as_raw() {
        return Some("is set-uid");
    }
    let set_gid = libc::S_ISGID | libc::S_IXGRP;
    if file.mode() & set_gid == set_gid && file.gid() != getegid().as_raw() {
        return Some("is set-gid");
    }
    let mut capabilities = [0u8; 64];
    let has_capabilities =
        rustix::fs::getxattr(path, "security.capability", &mut capabilities).is_ok_and(|length| length > 0);
    (has_capabilities && !getuid().is_root()).then_some("has file capabilities")
}

fn of_image(path: &Path, machine: Option<Machine>) -> Option<&'static str> {
    let image = Image::read(path)?;
    if machine.is_some_and(|machine| machine != image.machine) {
        return Some("is for another machine than the library");
    }
    // The dynamic linker can be started as a program, too.
    let is_linker = path
        .file_name()
        .is_some_and(|name| [&b"ld-"[..], b"ld.so", b"ld64.so"].iter().any(|start| name.as_bytes().starts_with(start)));
    (image.interpreter.is_none() && !is_linker).then_some("is statically linked")
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn script_is_its_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        for (text, name) in
            [("#!/bin/sh\n", Some("/bin/sh")), ("#! /a/b  -x y", Some("/a/b")), ("/bin/sh\n", None), ("", None)]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(interpreter(&path), name.map(PathBuf::from), "{text:?}");
        }
        fs::write(&path, format!("#!{}\n", path.display())).unwrap();
        assert_eq!(obstacle(&path, None), None, "a script that is its own interpreter does not hang this");
    }

    #[test]
    fn set_uid_matters_where_it_changes_something() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o4755)).unwrap();
        assert_eq!(extra_rights(&path), None, "of this user");
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o4755)).unwrap();
            assert_eq!(extra_rights(&path), Some("is set-uid"));
        }
    }

    #[test]
    fn other_machine_is_an_obstacle() {
        let own = std::env::current_exe().unwrap();
        let machine = Image::read(&own).unwrap().machine;
        assert_eq!(of_image(&own, Some(machine)), None);
        let path = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = fs::read(&own).unwrap();
        // The field `e_machine` of the header.
        bytes[18] ^= 1;
        fs::write(path.path(), bytes).unwrap();
        assert_eq!(of_image(path.path(), Some(machine)), Some("is for another machine than the library"));
    }
}
