//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use magalloc_compare_subject::WORKLOADS;

use crate::allocators;

/// Measures magalloc beside the allocators that a user could pick instead.
///
/// Every run is a process of its own, with the allocator as its global one. The allocators take turns, so that what
/// else the machine does falls on all of them. The others are built from their current crates: that wants a C and a C++
/// compiler and cmake, and takes some minutes the first time.
#[derive(Debug, Parser)]
#[command(name = "magalloc-compare", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Less of each workload, fewer runs, no series: under 5 minutes once everything is built
    #[arg(long)]
    pub(crate) quick: bool,

    /// Only these workloads
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = workloads())]
    pub(crate) only: Vec<String>,

    /// Only these allocators
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = subjects())]
    pub(crate) allocators: Vec<String>,

    /// Timed runs of each workload on each allocator [default: 5, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) runs: Option<u32>,

    /// Threads of the workloads that have several; some have twice as many [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,

    /// Threads at which throughput is compared [default: 1,2,4,16,64, with --quick none]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) by_threads: Vec<u32>,

    /// Write all that was measured as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write a page with charts, which needs no other file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// List the workloads and the allocators
    #[arg(long)]
    pub(crate) list: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p magalloc-compare                                everything, with the table at the end
  cargo run --release -p magalloc-compare -- --quick --html report.html
  cargo run --release -p magalloc-compare -- --only larson,json --allocators magalloc,mimalloc-v3 --runs 9
  cargo run --release -p magalloc-compare -- --list

Exit codes: 0 everything was measured, 1 a run failed or an allocator could not be built (the table says which),
2 the arguments are wrong, or a file cannot be written.";

fn workloads() -> PossibleValuesParser {
    WORKLOADS.iter().map(|workload| workload.name).into()
}

fn subjects() -> PossibleValuesParser {
    allocators::names().into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["magalloc-compare"], arguments].concat())
    }

    #[test]
    fn command_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn bad_names_list_the_valid_ones() {
        for (option, valid) in [("--only", "larson"), ("--allocators", "mimalloc-v3")] {
            let error = parse(&[option, "nope"]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            assert!(text.contains("nope") && text.contains(valid), "{text}");
        }
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let arguments = parse(&["--only", "pair,larson", "--by-threads", "1,8"]).unwrap();
        assert_eq!(arguments.only, ["pair", "larson"]);
        assert_eq!(arguments.by_threads, [1, 8]);
        assert!(parse(&["--threads", "0"]).is_err());
        assert!(parse(&["--runs", "0"]).is_err());
    }
}
