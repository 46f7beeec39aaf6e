//! A JSON document service over HTTP whose global allocator is [`Magalloc`], and the load that
//! drives it.
//!
//! Without arguments the process starts the service, sends it requests over loopback for ten
//! seconds and prints what it measured. `--cycles N` repeats the load with idle time between, and
//! prints what the memory does. `--serve ADDR` only serves. At the very end the allocator itself
//! says how many of the mapped bytes it unmapped: for this the runtime is gone, with all its
//! threads, before `main` returns.
//!
//! Exit codes: 0 all went well, 1 something failed (also a wrong reply during the load, memory that
//! grows from cycle to cycle, or an allocator that does not sleep), 2 the arguments are wrong.

mod client;
mod cycles;
mod document;
mod interrupt;
mod load;
mod progress;
mod report;
mod service;
mod store;
mod switches;
mod tally;
mod worker;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use magalloc::Magalloc;
use tokio::runtime::{Builder, Runtime};

use crate::cycles::Cycles;
use crate::interrupt::Interrupt;
use crate::load::Load;
use crate::service::Service;
use crate::store::Store;

#[global_allocator]
static ALLOCATOR: Magalloc = Magalloc::new().report_exit(true);

/// A JSON document service over HTTP, on the magalloc allocator.
///
/// By default it serves on a free loopback port, drives itself with clients of its own, prints
/// requests per second, latencies and memory, and ends.
#[derive(Parser)]
#[command(name = "magalloc-server", version)]
struct Options {
    /// How long the load lasts [default: 10, with --cycles 2]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,

    /// How many clients send requests at the same time
    #[arg(long, value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=400))]
    clients: u64,

    /// How many threads the runtime has [default: one per core]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    threads: Option<usize>,

    /// Repeat the load so often, with idle time after each; fail if memory grows from the second
    /// on, or if the allocator's thread wakes in the last second of an idle time
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(3..=10_000))]
    cycles: Option<u64>,

    /// How long each idle time lasts, with --cycles: the allocator needs one second to give back
    /// what is free
    #[arg(long, value_name = "SECONDS", default_value_t = 3, requires = "cycles")]
    #[arg(value_parser = clap::value_parser!(u64).range(3..=3_600))]
    idle: u64,

    /// Empty a thread's cache each time it parks: a little leaner while idle, slower under load
    #[arg(long)]
    flush_on_park: bool,

    /// Serve on this address (such as 127.0.0.1:8080) until Ctrl-C, without the load
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["seconds", "clients", "cycles", "idle"])]
    serve: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // The text of --help and --version, or what is wrong: the exit code tells which. If
            // nobody reads it, there is nobody to tell.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    match run(&options) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("magalloc-server: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Does what `options` ask for. All threads but this one have ended when it returns.
fn run(options: &Options) -> Result<ExitCode, String> {
    let threads = options.threads.unwrap_or_else(cores);
    let runtime = runtime(threads, options.flush_on_park).map_err(|error| format!("cannot start threads: {error}"))?;
    let load = |default_seconds| {
        let duration = Duration::from_secs(options.seconds.unwrap_or(default_seconds));
        Load { duration, clients: options.clients, threads }
    };
    let result = match (options.serve, options.cycles) {
        (Some(address), _) => runtime.block_on(serve(address)),
        (None, Some(count)) => {
            let idle = Duration::from_secs(options.idle);
            runtime.block_on(repeat(&Cycles { load: load(2), count, idle }))
        }
        (None, None) => runtime.block_on(drive(&load(10))),
    };
    drop(runtime);
    result
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// `flush_on_park` is not the default: threads park between any two requests that are not waiting
/// yet, and to empty and refill their caches each time costs a tenth of the throughput with many
/// clients, a quarter with one. The allocator by itself leaves an idle thread little.
fn runtime(threads: usize, flush_on_park: bool) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name("magalloc-server").enable_io().enable_time();
    if flush_on_park {
        builder.on_thread_park(magalloc::flush_thread);
    }
    builder.build()
}

/// Serves on `address` until the user interrupts.
async fn serve(address: SocketAddr) -> Result<ExitCode, String> {
    let mut interrupt = interrupt()?;
    let store = Arc::new(Store::default());
    let service =
        Service::start(address, store).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    announce(service.address()).map_err(|error| error.to_string())?;
    interrupt.wait().await;
    service.stop().await.map_err(|error| format!("the service failed: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Serves and drives itself, and prints what was measured.
async fn drive(load: &Load) -> Result<ExitCode, String> {
    let report = load.run(interrupt()?, announce).await.map_err(|error| format!("the load failed: {error}"))?;
    print(&report.to_string()).map_err(|error| error.to_string())?;
    Ok(if report.tally.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Serves and drives itself again and again, and prints what the memory did.
async fn repeat(cycles: &Cycles) -> Result<ExitCode, String> {
    let outcome =
        cycles.run(interrupt()?, announce, print).await.map_err(|error| format!("the load failed: {error}"))?;
    let first_error = outcome.tally.first_error.map(|reason| format!("first error: {reason}"));
    let faults: Vec<String> = outcome.faults.into_iter().chain(first_error).collect();
    for fault in &faults {
        eprintln!("magalloc-server: {fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn interrupt() -> Result<Interrupt, String> {
    Interrupt::new().map_err(|error| format!("cannot listen for Ctrl-C: {error}"))
}

fn announce(address: SocketAddr) -> io::Result<()> {
    print(&format!("magalloc-server: listening on http://{address}\n"))
}

/// Unlike `println!` this does not panic when nobody reads.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let named = |error| io::Error::other(format!("cannot write to stdout: {error}"));
    written.map_err(named)
}
