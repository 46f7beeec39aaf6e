//! Measures magalloc beside the allocators that a user could pick instead, and says who is ahead by how much.
//!
//! ```text
//! arguments -> plan -> allocators (built, and checked to be release builds)
//!                   -> measuring (who runs when) -> process (one run) -> results
//!                                                   results -> statistics -> table, page
//! ```
//!
//! The workloads are in the crate `magalloc-compare-subject`, the program that is started for each run.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use magalloc_compare_subject::WORKLOADS;

use allocators::{About, COUNTED, Packages, SUBJECTS, Subject};
use arguments::Arguments;
use measuring::Watch;
use plan::Plan;
use results::{Allocator, Results};

mod allocators;
mod arguments;
mod machine;
mod measuring;
mod page;
mod plan;
mod process;
mod results;
mod statistics;
mod table;

/// Nanoseconds that malloc and free of 64 bytes take at most in any allocator's release build. Debug builds take 100.
const PAIR_LIMIT: f64 = 25.0;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        list();
        return ExitCode::SUCCESS;
    }
    match compare(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("magalloc-compare: {reason}");
            ExitCode::from(2)
        }
    }
}

fn list() {
    println!("Workloads:");
    WORKLOADS.iter().for_each(|workload| println!("  {:16} {}", workload.name, workload.stands_for));
    println!("\nAllocators:");
    SUBJECTS.iter().for_each(|subject| println!("  {:16} {}", subject.name, subject.flags()));
}

/// Measures, and writes everything that is wanted. True if no run failed and every allocator took part.
fn compare(arguments: &Arguments) -> Result<bool, String> {
    // A file that cannot be written is to be known before half an hour has passed.
    let mut json = create(arguments.json.as_deref())?;
    let mut html = create(arguments.html.as_deref())?;
    let start = Instant::now();
    let plan = Plan::new(arguments);
    // First: the files may change while it measures.
    let machine = machine::describe();
    let (allocators, programs) = prepare(&plan);
    let counted = COUNTED.build();
    let watch = Progress::new(plan.runs(programs.iter().flatten().count()));
    let counting = counted.as_ref().ok();
    let results = Results {
        rows: measuring::rows(&plan, &programs, counting, &watch),
        by_threads: measuring::by_threads(&plan, &programs, &watch),
        by_blocks: measuring::by_blocks(&plan, &programs, &watch),
        command: command(),
        ended: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        seconds: start.elapsed().as_secs(),
        machine,
        scale: plan.scale,
        passes: plan.passes,
        allocators,
    };
    watch.0.finish_and_clear();
    println!("{}", table::render(&results));
    if let Err(reason) = &counted {
        println!("What the workloads ask for could not be counted: the program that counts {reason}");
    }
    if let Some((path, file)) = &mut json {
        let text = serde_json::to_vec(&results).map_err(|error| error.to_string())?;
        write(path, file, &text)?;
        println!("{} is all that was measured", path.display());
    }
    if let Some((path, file)) = &mut html {
        let text = page::render(&results).map_err(|error| error.to_string())?;
        write(path, file, text.as_bytes())?;
        println!("{} is the page with charts", path.display());
    }
    let all_took_part = counted.is_ok() && results.allocators.iter().all(|allocator| allocator.refused.is_none());
    let rows_well = results.rows.iter().flat_map(|row| &row.cells).all(|cell| cell.failure.is_none());
    // None is a failure, but for all of an allocator that took no part.
    let mut series = results.by_threads.iter().chain(&results.by_blocks).flat_map(|series| &series.nanoseconds);
    Ok(all_took_part && rows_well && series.all(|points| points.iter().all(Option::is_some)))
}

fn create(path: Option<&Path>) -> Result<Option<(PathBuf, File)>, String> {
    let Some(path) = path else { return Ok(None) };
    // What is there already stays until there is something to take its place.
    let file = File::options().write(true).create(true).truncate(false).open(path);
    Ok(Some((path.to_owned(), file.map_err(|error| format!("{}: {error}", path.display()))?)))
}

/// Makes `text` all that is in the file.
fn write(path: &Path, file: &mut File, text: &[u8]) -> Result<(), String> {
    // Not so a pipe or a terminal.
    let is_file = file.metadata().is_ok_and(|about| about.is_file());
    let emptied = if is_file { file.set_len(0) } else { Ok(()) };
    emptied.and_then(|()| file.write_all(text)).map_err(|error| format!("{}: {error}", path.display()))
}

/// The command as it was called; through cargo, as that is how it is called again.
fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let separator = if arguments.is_empty() { "" } else { " -- " };
    format!("cargo run --release -p magalloc-compare{separator}{}", arguments.join(" "))
}

/// Builds the program on each allocator and looks whether it is a release build.
fn prepare(plan: &Plan) -> (Vec<Allocator>, Vec<Option<PathBuf>>) {
    let packages = Packages::read();
    let bar = bar(plan.subjects.len(), "building {msg} [{wide_bar}] {pos}/{len} {elapsed}");
    let prepared = plan.subjects.iter().map(|subject| {
        bar.set_message(subject.name);
        if bar.is_hidden() {
            eprintln!("building {}", subject.name);
        }
        let prepared = prepare_one(subject, &packages);
        bar.inc(1);
        prepared
    });
    let prepared = prepared.collect();
    bar.finish_and_clear();
    prepared
}

fn prepare_one(subject: &Subject, packages: &Packages) -> (Allocator, Option<PathBuf>) {
    let built = subject.build();
    let about = built.as_ref().map_err(Clone::clone).and_then(|program| asked(program));
    let pair = about.as_ref().ok().map(|about| about.pair);
    let refused = match &about {
        Err(reason) => Some(reason.clone()),
        Ok(about) => refusal(about.pair),
    };
    let program = if refused.is_none() { built.ok() } else { None };
    let version = subject.version(about.as_ref().ok(), packages);
    (Allocator { name: subject.name, version, flags: subject.flags().into(), pair, refused }, program)
}

/// What a program says of its allocator: asked again where that is too slow for a release build, as the machine may have
/// had other work. A debug build is too slow each time.
fn asked(program: &Path) -> Result<About, String> {
    const TRIES: usize = 5;
    const PAUSE: Duration = Duration::from_millis(300);
    let mut about = allocators::about(program)?;
    for _ in 1..TRIES {
        if refusal(about.pair).is_none() {
            break;
        }
        thread::sleep(PAUSE);
        let again = allocators::about(program)?;
        about.pair = about.pair.min(again.pair);
    }
    Ok(about)
}

/// Why an allocator takes no part whose malloc and free of 64 B take so many nanoseconds; None if it does.
fn refusal(pair: f64) -> Option<String> {
    (pair > PAIR_LIMIT)
        .then(|| format!("malloc and free of 64 B take {pair:.0} ns: a debug build, or a very busy machine"))
}

/// A bar that says what is running; where standard error is no terminal, a line for each workload.
struct Progress(ProgressBar);

impl Progress {
    fn new(runs: usize) -> Self {
        Self(bar(runs, "{msg:36!} [{wide_bar}] {pos}/{len}, {eta} left"))
    }
}

impl Watch for Progress {
    fn workload(&self, name: &str) {
        if self.0.is_hidden() {
            eprintln!("run {} of {}: {name}", self.0.position() + 1, self.0.length().unwrap_or_default());
        }
    }

    fn begins(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    fn ended(&self) {
        self.0.inc(1);
    }
}

/// A progress bar on standard error; nothing where that is no terminal.
fn bar(length: usize, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(length as u64), ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template(template).expect("a valid template");
    ProgressBar::new(length as u64).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::{PAIR_LIMIT, refusal};

    #[test]
    fn slow_builds_are_refused() {
        assert_eq!(refusal(PAIR_LIMIT), None);
        assert!(refusal(PAIR_LIMIT + 1.0).is_some_and(|reason| reason.contains("26 ns")));
    }
}
