//! The trial: programs are started under the library, have to have it, and to leave a record.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::doctor::{Finding, Level};
use crate::failure::{Failure, words};
use crate::inherited::Inherited;
use crate::library::{Library, PRELOAD};
use crate::program::{Image, find, obstacle};
use crate::record::{Record, parse};
use crate::setting::variable;

/// Far longer than either program takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// As much of what a program writes to standard error as is looked at, in bytes.
const COMPLAINT_MAX: u64 = 4096;
/// What a process has mapped.
const MAPS: &str = "/proc/self/maps";

/// Starts this program and one of the system's, both of which tell what they have mapped.
pub(super) fn findings(library: &Library, inherited: Inherited) -> Vec<Finding> {
    let mut findings = vec![finding("preload", itself(library, inherited))];
    if let Ok(path) = find(OsStr::new("cat")) {
        findings.push(finding("preload, system", system(&path, library, inherited)));
    }
    findings
}

fn finding(name: &'static str, outcome: Result<(String, String), String>) -> Finding {
    match outcome {
        Ok((program, meaning)) => Finding::new(name, Level::Ok, program, meaning),
        Err(reason) => Finding::new(name, Level::Error, "failed", reason),
    }
}

/// This program's path and what it did, or what went wrong.
fn itself(library: &Library, inherited: Inherited) -> Result<(String, String), String> {
    let path = env::current_exe().map_err(|error| format!("this program does not find itself: {}", words(&error)))?;
    let mut command = Command::new(&path);
    command.arg("probe");
    let record = attempt(command, library, inherited)?.ok_or("it has the library, but left no record of its end")?;
    let meaning = format!("started with the library, version {}, and left a record", record.version);
    Ok((path.display().to_string(), meaning))
}

/// Likewise for a program of the system, which may have nothing to record.
fn system(path: &Path, library: &Library, inherited: Inherited) -> Result<(String, String), String> {
    if let Some(obstacle) = obstacle(path, Image::read(&library.file).map(|image| image.machine)) {
        return Err(obstacle);
    }
    let mut command = Command::new(path);
    command.arg(MAPS);
    attempt(command, library, inherited)?;
    Ok((path.display().to_string(), "started with the library".into()))
}

/// The record of a program that had the library, or what went wrong.
fn attempt(mut command: Command, library: &Library, inherited: Inherited) -> Result<Option<Record>, String> {
    let folder = TempDir::with_prefix("magalloc-").map_err(|error| format!("no folder: {}", words(&error)))?;
    let (records, maps) = (folder.path().join("records"), folder.path().join("maps"));
    let out = File::create(&maps).map_err(|error| format!("{}: {}", maps.display(), words(&error)))?;
    command.env(PRELOAD, library.preload()).env(variable("STATS_FILE"), &records);
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    inherited.pass_on(&mut command);
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {}", words(&error)))?;
    let pid = child.id();
    let status = wait(&mut child).ok_or_else(|| format!("still running after {} s", PATIENCE.as_secs()))?;
    let complaint = complaint(child).map_or_else(String::new, |line| format!(": {line}"));
    if !status.success() {
        return Err(format!("the program failed with {status}{complaint}"));
    }
    if !is_mapped(&fs::read(&maps).unwrap_or_default(), &library.file) {
        return Err(format!("the library was not loaded{complaint}"));
    }
    let records = parse(&fs::read(&records).unwrap_or_default());
    Ok(records.whole.into_iter().find(|record| record.pid == pid))
}

/// How the program ended; killed if it does not.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    // It may have ended just now.
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// The first line that it wrote to standard error.
fn complaint(mut child: Child) -> Option<String> {
    let mut bytes = Vec::new();
    child.stderr.take()?.take(COMPLAINT_MAX).read_to_end(&mut bytes).ok()?;
    String::from_utf8_lossy(&bytes).lines().next().map(str::to_string)
}

/// Writes what this process has mapped to standard output: what `doctor` starts.
pub(crate) fn probe() -> Result<(), Failure> {
    let copy = || io::copy(&mut File::open(MAPS)?, &mut io::stdout().lock());
    copy().map(drop).map_err(|error| Failure::system(format!("{MAPS}: {}", words(&error))))
}

/// Whether the list of mappings has the file.
fn is_mapped(maps: &[u8], file: &Path) -> bool {
    // The kernel writes an end of line in a path as `\012`.
    let file = file.as_os_str().as_bytes().split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\\012"[..]);
    let path = |line: &[u8]| line.iter().position(|byte| *byte == b'/').map(|start| line[start..].to_vec());
    maps.split(|byte| *byte == b'\n').any(|line| path(line).is_some_and(|path| path == file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_file_is_recognised() {
        let maps = b"55-56 r-xp 00000000 08:01 12   /usr/bin/true\n7f-80 r--p 00 08:01 1   /a b/lib.so\n\
            7ff-800 rw-p 00 00:00 0 [stack]\n";
        for (path, expected) in
            [("/a b/lib.so", true), ("/usr/bin/true", true), ("/lib.so", false), ("/a b/lib", false)]
        {
            assert_eq!(is_mapped(maps, Path::new(path)), expected, "{path}");
        }
    }
}
