//! `magalloc run`: starts a program under the library.
//!
//! Without `--stats` and `--json` this process becomes the program. With them it stays its parent.

mod ending;
mod process;
mod stats_file;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::arguments::RunArguments;
use crate::failure::{Failure, complain, words};
use crate::inherited::Inherited;
use crate::library::{Library, PRELOAD};
use crate::program::{Image, find, obstacle, texts};
use crate::report::{Report, SCHEMA, SCHEMA_VERSION, Units, Usage, text};
use crate::run::process::Ended;
use crate::run::stats_file::{OPTION as STATS_FILE, StatsFile};
use crate::setting::{Setting, variable};

pub(crate) use crate::run::ending::{Ending, signal_name};

/// The option that has statistics written where SIGTERM ends the program.
const ON_SIGTERM: &str = "STATS_ON_SIGTERM";

/// What is known before the program starts.
struct Plan<'a> {
    arguments: &'a RunArguments,
    settings: Vec<Setting>,
    library: Library,
    obstacle: Option<String>,
    command: Command,
}

/// Starts the program that the arguments name, and ends as it does.
pub(crate) fn run(arguments: &RunArguments, inherited: Inherited) -> Result<ExitCode, Failure> {
    let mut plan = plan(arguments)?;
    if let Some(obstacle) = &plan.obstacle {
        complain(format_args!("warning: {obstacle}: it runs without the library"));
    }
    if arguments.stats || arguments.json.is_some() {
        return watch(plan, inherited).map(Ending::repeat);
    }
    inherited.pass_on(&mut plan.command);
    let error = plan.command.exec();
    Err(not_started(&plan, &error))
}

fn plan(arguments: &RunArguments) -> Result<Plan<'_>, Failure> {
    // What an option says holds.
    let check = arguments.check.then(|| OsStr::new("CHECK_FREES=1"));
    let options = check.into_iter().chain(arguments.options.iter().map(OsString::as_os_str));
    let settings = options.map(Setting::parse).collect::<Result<Vec<_>, _>>()?;
    let library = Library::find()?;
    let (name, rest) =
        arguments.command.split_first().ok_or_else(|| Failure::usage("run needs the program to start"))?;
    let path = find(name)?;
    let obstacle = obstacle(&path, Image::read(&library.file).map(|image| image.machine));
    let mut command = Command::new(path);
    command.arg0(name).args(rest).env(PRELOAD, library.preload());
    for setting in &settings {
        command.env(setting.variable(), &setting.value);
    }
    if arguments.no_children {
        command.env(variable("CHILDREN"), "0");
    }
    Ok(Plan { arguments, settings, library, obstacle, command })
}

fn not_started(plan: &Plan, error: &io::Error) -> Failure {
    let program = Path::new(plan.command.get_program()).display();
    if error.kind() == io::ErrorKind::NotFound {
        return Failure::not_executable(program, "its interpreter is missing");
    }
    Failure::not_executable(program, words(error))
}

/// Runs the program as a child, and tells what became of it.
fn watch(mut plan: Plan, inherited: Inherited) -> Result<Ending, Failure> {
    let mut json = plan.arguments.json.as_deref().map(Output::open).transpose()?;
    let file = StatsFile::new(&plan.settings)?;
    plan.command.env(variable(STATS_FILE), file.path());
    // What the user says of it holds.
    if !plan.settings.iter().any(|setting| setting.name == ON_SIGTERM) && env::var_os(variable(ON_SIGTERM)).is_none() {
        plan.command.env(variable(ON_SIGTERM), "1");
    }
    let command = std::mem::replace(&mut plan.command, Command::new(""));
    plan.command = Command::new(command.get_program());
    let ended = process::run(command, inherited).map_err(|error| not_started(&plan, &error))?;
    let report = report(&plan, &ended, &file);
    drop(file);
    if plan.arguments.stats {
        // If nobody reads it, there is nobody to tell.
        let _ = io::stderr().write_all(text(&report).as_bytes());
    }
    if let Some(json) = &mut json
        && let Err(error) = json.write(&report)
    {
        complain(format_args!("cannot write the statistics: {}", words(&error)));
    }
    Ok(ended.ending)
}

fn report(plan: &Plan, ended: &Ended, file: &StatsFile) -> Report {
    let mut records = file.read();
    // The last: a process has one end, and numbers of processes come again.
    let own = records.whole.iter().rposition(|record| record.pid == ended.pid);
    let record = own.map(|index| records.whole.remove(index));
    let no_record = record.is_none().then(|| no_record(plan, ended.ending));
    Report {
        schema: SCHEMA,
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION"),
        units: Units::all(),
        program: plan.command.get_program().to_string_lossy().into_owned(),
        command: texts(&plan.arguments.command),
        library: plan.library.file.to_string_lossy().into_owned(),
        pid: ended.pid,
        ending: ended.ending,
        usage: Usage::new(ended.wall, &ended.usage),
        record,
        no_record,
        children: records.whole,
        broken_records: records.broken,
    }
}

/// Why the program left no record, as far as one can tell.
fn no_record(plan: &Plan, ending: Ending) -> String {
    match (&plan.obstacle, ending) {
        (Some(obstacle), _) => obstacle.clone(),
        (None, Ending::Signal(_)) => format!("{ending} killed it"),
        (None, Ending::Code(_)) => {
            "it allocated nothing, ended by _exit, or did not load the library (see magalloc doctor)".into()
        }
    }
}

/// Where JSON goes.
enum Output {
    Standard,
    File(File),
}

impl Output {
    /// Before the program starts, so that it does not run in vain.
    fn open(path: &Path) -> Result<Self, Failure> {
        if path == "-" {
            return Ok(Self::Standard);
        }
        let bad = |error| Failure::usage(format!("--json {}: {}", path.display(), words(&error)));
        File::create(path).map(Self::File).map_err(bad)
    }

    fn write(&mut self, report: &Report) -> io::Result<()> {
        let mut json = serde_json::to_string_pretty(report)?;
        json.push('\n');
        match self {
            Self::Standard => {
                let mut out = io::stdout().lock();
                out.write_all(json.as_bytes())?;
                out.flush()
            }
            Self::File(file) => file.write_all(json.as_bytes()),
        }
    }
}
