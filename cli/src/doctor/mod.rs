//! `magalloc doctor`: does preloading work here, and what of this machine matters to the allocator?

mod control_group;
mod machine;
mod memory;
mod trial;

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::failure::{Failure, USAGE};
use crate::inherited::Inherited;
use crate::library::Library;
use crate::print;

pub(crate) use crate::doctor::trial::probe;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// Costs something.
    Warning,
    /// Preloading does not work.
    Error,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What.
    name: &'static str,
    level: Level,
    /// What there is.
    value: String,
    /// What that means for the allocator.
    meaning: String,
}

impl Finding {
    fn new(name: &'static str, level: Level, value: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { name, level, value: value.into(), meaning: meaning.into() }
    }
}

#[derive(Serialize)]
struct Findings {
    /// Whether preloading works.
    preload: bool,
    findings: Vec<Finding>,
}

/// Prints the findings; exit code 1 if preloading does not work.
pub(crate) fn doctor(json: bool, inherited: Inherited) -> Result<ExitCode, Failure> {
    let mut findings = of_library(inherited);
    findings.extend(machine::findings());
    findings.extend(memory::findings());
    let findings = Findings { preload: findings.iter().all(|finding| finding.level != Level::Error), findings };
    let text = if json { as_json(&findings)? } else { as_text(&findings) };
    print(text.as_bytes())?;
    Ok(if findings.preload { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn of_library(inherited: Inherited) -> Vec<Finding> {
    let library = match Library::find() {
        Ok(library) => library,
        Err(failure) => {
            debug_assert_eq!(failure.code, USAGE);
            return vec![Finding::new("library", Level::Error, "none", failure.reason)];
        }
    };
    let found =
        Finding::new("library", Level::Ok, library.file.display().to_string(), format!("found: {}", library.source));
    [found].into_iter().chain(trial::findings(&library, inherited)).collect()
}

fn as_json(findings: &Findings) -> Result<String, Failure> {
    let mut json = serde_json::to_string_pretty(findings).map_err(|error| Failure::system(error.to_string()))?;
    json.push('\n');
    Ok(json)
}

fn as_text(findings: &Findings) -> String {
    let mut text = String::new();
    for Finding { name, level, value, meaning } in &findings.findings {
        let mark = match level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "ERROR",
        };
        text.push_str(&format!("{mark:<8} {name:<18} {value}: {meaning}\n"));
    }
    let end = if findings.preload { "preloading works here" } else { "preloading does not work here" };
    text.push_str(&format!("\n{end}\n"));
    text
}

/// A file's text without the white space around it; `None` if it cannot be read.
fn read(path: impl AsRef<Path>) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_string())
}

/// A file's number.
fn read_number(path: impl AsRef<Path>) -> Option<u64> {
    read(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines() {
        let finding = |level| Finding::new("thing", level, "5", "as it should be");
        let text = as_text(&Findings { preload: true, findings: vec![finding(Level::Ok), finding(Level::Warning)] });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ok       thing              5: as it should be");
        assert_eq!(lines[1], "warning  thing              5: as it should be");
        assert_eq!(lines[3], "preloading works here");
    }

    #[test]
    fn this_machine_has_findings() {
        let names: Vec<&str> =
            machine::findings().iter().chain(&memory::findings()).map(|finding| finding.name).collect();
        for name in ["kernel", "C library", "processors", "page size", "overcommit", "ulimit -v", "max_map_count"] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
    }
}
