//! One workload on one allocator, the process's global one. Prints what was measured, as JSON.

use magalloc_compare_subject::{Parameters, Workload, measure, workloads};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

mod about;

#[cfg(feature = "counted")]
mod counted;

#[cfg(feature = "counted")]
#[global_allocator]
static GLOBAL: counted::CountedSystem = counted::CountedSystem;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "magalloc")]
#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

#[cfg(any(feature = "mimalloc-v2", feature = "mimalloc-v3"))]
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "rpmalloc")]
#[global_allocator]
static GLOBAL: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

#[cfg(feature = "snmalloc")]
#[global_allocator]
static GLOBAL: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

#[cfg(feature = "tcmalloc")]
#[global_allocator]
static GLOBAL: tcmalloc_better::TCMalloc = tcmalloc_better::TCMalloc;

/// What the command line asks for.
enum Task {
    /// `about`: which version of the allocator this is, and how long malloc and free of 64 bytes take.
    About,
    /// `WORKLOAD SCALE THREADS SEED (end | idle)`: the measurement; with `idle` another line 2 s later, with the bytes
    /// that are resident then.
    Run { workload: &'static Workload, parameters: Parameters, idle: bool },
}

const USAGE: &str = "this program is started by magalloc-compare: about | WORKLOAD SCALE THREADS SEED (end | idle)";

/// How long a process is idle before its memory is read again.
const IDLE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match task(&arguments) {
        None => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
        Some(Task::About) => println!("{}", about::about()),
        Some(Task::Run { workload, parameters, idle }) => run(workload, &parameters, idle),
    }
    ExitCode::SUCCESS
}

fn task(arguments: &[String]) -> Option<Task> {
    match arguments {
        [about] if about == "about" => Some(Task::About),
        [name, scale, threads, seed, after] => {
            let parameters =
                Parameters { scale: scale.parse().ok()?, threads: threads.parse().ok()?, seed: seed.parse().ok()? };
            let idle = match after.as_str() {
                "end" => false,
                "idle" => true,
                _ => return None,
            };
            Some(Task::Run { workload: workloads::find(name)?, parameters, idle })
        }
        _ => None,
    }
}

fn run(workload: &Workload, parameters: &Parameters, idle: bool) {
    #[cfg(feature = "counted")]
    let count = || Some(counted::read());
    #[cfg(not(feature = "counted"))]
    let count = || None;
    measure::measure(workload, parameters, count, |measurement| {
        println!("{}", serde_json::to_string(measurement).expect("numbers"));
        if idle {
            thread::sleep(IDLE);
            println!("{}", measure::resident());
        }
    });
}
