//! A JSON document service over HTTP whose global allocator is [`Magalloc`], and the load that
//! drives it.
//!
//! Without arguments the process starts the service, sends it requests over loopback for ten
//! seconds and prints what it measured. `--serve ADDR` only serves. At the very end the allocator
//! itself says how many of the mapped bytes it unmapped: for this the runtime is gone, with all
//! its threads, before `main` returns.
//!
//! Exit codes: 0 all went well, 1 something failed (also a wrong reply during the load), 2 the
//! arguments are wrong.

mod client;
mod document;
mod interrupt;
mod load;
mod progress;
mod report;
mod service;
mod store;
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
    /// How long the load lasts
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// How many clients send requests at the same time
    #[arg(long, value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=400))]
    clients: u64,

    /// How many threads the runtime has [default: one per core]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    threads: Option<usize>,

    /// Serve on this address (such as 127.0.0.1:8080) until Ctrl-C, without the load
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["seconds", "clients"])]
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
    let runtime = runtime(threads).map_err(|error| format!("cannot start threads: {error}"))?;
    let result = match options.serve {
        Some(address) => runtime.block_on(serve(address)),
        None => {
            let duration = Duration::from_secs(options.seconds);
            runtime.block_on(drive(&Load { duration, clients: options.clients, threads }))
        }
    };
    drop(runtime);
    result
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("magalloc-server")
        // A thread without work has no use for its cache.
        .on_thread_park(magalloc::flush_thread)
        .enable_io()
        .enable_time()
        .build()
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
