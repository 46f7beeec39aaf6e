//! Starts programs, unchanged, under the library of magalloc; says whether that works here; lists the options.
//!
//! ```text
//! # Modules     arguments, failure, setting: what the user says and is told
//!               library: where libmagalloc.so is, and may it be preloaded
//!               program: where the program is, and will it be
//!               inherited: what the program has of this process's signals
//!               run, record, report: a program under the library, and what it did
//!               doctor: what of this machine matters
//! # Exit codes  the program's; 127 not found, 126 not executable, 125 the system refused something, 2 the arguments
//!               are wrong or the library is missing; `doctor` 1 when preloading does not work
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("the program magalloc preloads libraries, as Linux has it");

mod arguments;
mod doctor;
mod failure;
mod inherited;
mod library;
mod program;
mod record;
mod report;
mod run;
mod setting;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::arguments::{Action, Arguments, one_line};
use crate::failure::{Failure, USAGE, complain, words};
use crate::inherited::Inherited;

fn main() -> ExitCode {
    let inherited = Inherited::now();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            complain(one_line(&error));
            return ExitCode::from(USAGE);
        }
        Err(help) => {
            // If nobody reads it, there is nobody to tell.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    act(&arguments.action, inherited).unwrap_or_else(|failure| {
        complain(&failure.reason);
        ExitCode::from(failure.code)
    })
}

fn act(action: &Action, inherited: Inherited) -> Result<ExitCode, Failure> {
    match action {
        Action::Run(arguments) => run::run(arguments, inherited),
        Action::Doctor { json } => doctor::doctor(*json, inherited),
        Action::Options => print(setting::table().as_bytes()).map(|()| ExitCode::SUCCESS),
        Action::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "magalloc", &mut script);
            print(&script).map(|()| ExitCode::SUCCESS)
        }
        Action::Man => manual().and_then(|page| print(&page)).map(|()| ExitCode::SUCCESS),
        Action::Probe => doctor::probe().map(|()| ExitCode::SUCCESS),
    }
}

/// The manual page: this program, and what each of its commands takes.
fn manual() -> Result<Vec<u8>, Failure> {
    let mut command = Arguments::command();
    command.build();
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command.clone()).render(&mut page).and_then(|()| {
        command.get_subcommands().filter(|action| !action.is_hide_set() && action.get_name() != "help").try_for_each(
            |action| {
                writeln!(page, ".SH \"{}\"", action.get_bin_name().unwrap_or_default().to_uppercase())?;
                let man = clap_mangen::Man::new(action.clone());
                man.render_synopsis_section(&mut page)?;
                man.render_description_section(&mut page)?;
                man.render_options_section(&mut page)?;
                man.render_extra_section(&mut page)
            },
        )
    });
    rendered.map(|()| page).map_err(|error| Failure::system(format!("cannot write the manual page: {error}")))
}

/// Unlike `print!` this does not panic when nobody reads.
fn print(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text).and_then(|()| out.flush());
    written.map_err(|error| Failure::system(format!("cannot write to standard output: {}", words(&error))))
}
