//! Runs the built binary: its arguments, its exit codes, the service over plain sockets, and the
//! load.

mod cycles;
mod http;
mod process;

use std::net::TcpListener;
use std::time::Duration;
#[cfg(unix)]
use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Instant,
};

use crate::process::run;
#[cfg(unix)]
use crate::{
    http::{ids, request},
    process::{finished, serve, serving},
};

/// Only so that a hang fails the test instead of stopping it for ever.
const PATIENCE: Duration = Duration::from_secs(600);

#[test]
fn help_names_the_options() {
    let (code, stdout, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for option in ["--seconds", "--serve", "--clients", "--threads", "--cycles", "--idle", "--flush-on-park", "--help"]
    {
        assert!(stdout.contains(option), "{option} is not in {stdout}");
    }
}

#[test]
fn bad_arguments_exit_with_2_and_a_message() {
    let cases: [(&[&str], &str); 14] = [
        (&["--seconds", "0"], "--seconds"),
        (&["--seconds", "ten"], "ten"),
        (&["--seconds", "-1"], "-1"),
        (&["--seconds"], "--seconds"),
        (&["--clients", "0"], "--clients"),
        (&["--serve", "nowhere"], "nowhere"),
        (&["--serve", "127.0.0.1:0", "--seconds", "1"], "--seconds"),
        (&["--serve", "127.0.0.1:0", "--cycles", "3"], "--cycles"),
        (&["--serve", "127.0.0.1:0", "--idle", "3"], "--idle"),
        (&["--cycles", "2"], "3..=10000"),
        (&["--cycles", "3", "--idle", "2"], "3..=3600"),
        (&["--idle", "3"], "--cycles"),
        (&["--unknown"], "--unknown"),
        (&["extra"], "extra"),
    ];
    for (arguments, part) in cases {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{arguments:?}: {stderr}");
        assert!(stderr.contains(part), "{arguments:?}: {part:?} is not in {stderr}");
        assert_eq!(stdout, "", "{arguments:?}");
    }
}

#[test]
fn busy_port_exits_with_1_and_a_message() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let (code, stdout, stderr) = run(&["--serve", &address]);
    assert_eq!(code, Some(1), "{stderr}");
    let message = format!("magalloc-server: cannot listen on {address}: ");
    assert!(stderr.contains(&message), "{stderr}");
    assert_eq!(stdout, "");
}

#[cfg(unix)]
#[test]
fn interrupt_ends_the_service_with_0() {
    let (mut process, address, mut stdout) = serve();
    assert_eq!(request(address, "PUT", "/documents/a", b"{}").0, 201);
    // Clients that hold their connection must not hold the service: one without a request, one
    // with half a request.
    let idle = TcpStream::connect(address).expect("the service accepts");
    let mut slow = TcpStream::connect(address).expect("the service accepts");
    let half = b"PUT /documents/b HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\
        Expect: 100-continue\r\n\r\n";
    slow.write_all(half).expect("the half is sent");
    let mut go_on = [0; 25];
    slow.read_exact(&mut go_on).expect("the service asks for the rest");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    process.interrupt();
    let (code, _, stderr) = finished(process.wait());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("connections still busy"), "{stderr}");
    assert!(stderr.contains("magalloc: exit: unmapped "), "{stderr}");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("stdout can be read");
    assert_eq!(rest, "");
    drop((idle, slow));
}

/// The load of `clients` clients went well and its table is whole.
#[track_caller]
fn assert_table((code, stdout, stderr): (Option<i32>, String, String), clients: &str) {
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    let line = |name: &str| {
        let found = stdout.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_else(|| panic!("no {name:?} in {stdout}")).trim()
    };
    line(clients);
    let requests: u64 = line("requests ").parse().expect("a number of requests");
    assert_ne!(requests, 0);
    let _per_second: u64 = line("requests/s").parse().expect("a number of requests");
    assert_eq!(line("errors"), "0");
    for latency in ["latency p50", "latency p99", "latency max"] {
        assert!(line(latency).ends_with(" ms"), "{stdout}");
    }
    for memory in ["peak", "after"] {
        let known = line(memory).matches("MiB").count() + line(memory).matches("n/a").count();
        assert_eq!(known, 4, "{stdout}");
    }
    assert!(stderr.contains("magalloc: exit: unmapped "), "{stderr}");
}

#[test]
fn load_prints_the_table() {
    let output = run(&["--seconds", "1", "--clients", "3", "--threads", "2"]);
    assert!(output.2.contains("magalloc-server: 1 s of 1 s, "), "{}", output.2);
    assert_table(output, "3 clients on 2 threads for ");
}

#[cfg(unix)]
#[test]
fn interrupt_ends_the_load_with_its_table() {
    // Far longer than the test would wait.
    let arguments = ["--seconds", "3600", "--clients", "2", "--threads", "3"];
    let (mut process, address, mut stdout) = serving(&arguments);
    let deadline = Instant::now() + PATIENCE;
    while ids(&request(address, "GET", "/documents", b"").1).is_empty() {
        assert!(Instant::now() < deadline, "the load does not put documents");
        thread::sleep(Duration::from_millis(10));
    }
    process.interrupt();
    let (code, _, stderr) = finished(process.wait());
    let mut table = String::new();
    stdout.read_to_string(&mut table).expect("stdout can be read");
    assert_table((code, table, stderr), "2 clients on 3 threads for ");
}
