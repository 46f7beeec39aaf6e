//! Bursts of load with idle time between.

#[cfg(unix)]
use std::io::{BufRead, Read};

use crate::process::run;
#[cfg(unix)]
use crate::process::{finished, serving};

/// The cells of each row of the table, without units and rules.
fn rows(stdout: &str) -> Vec<Vec<f64>> {
    let lines = stdout.lines().skip_while(|line| !line.starts_with("cycle")).skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let cells = |line: &str| {
        let cells = line.split_whitespace().filter(|cell| !["|", "MiB", "%"].contains(cell));
        // The allocator's thread need not exist while there is nothing to do, and a small heap has no share.
        let cells = cells.map(|cell| if ["none", "-"].contains(&cell) { "0" } else { cell });
        cells.map(|cell| cell.parse().unwrap_or_else(|_| panic!("{cell:?} in {stdout}"))).collect()
    };
    lines.map(cells).collect()
}

#[test]
fn memory_goes_back_in_every_idle_time_and_the_allocator_sleeps() {
    let arguments = ["--cycles", "3", "--seconds", "1", "--idle", "3", "--clients", "8", "--threads", "2"];
    let (code, stdout, stderr) = run(&arguments);
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    assert!(stdout.contains("3 times 1 s of load by 8 clients on 2 threads, then 3 s idle"), "{stdout}");
    let rows = rows(&stdout);
    assert_eq!(rows.len(), 3, "{stdout}");
    for (row, number) in rows.iter().zip(1..) {
        let [cycle, peak, resident, live, not_live, purges, of_allocator, of_all] = row[..] else {
            panic!("a row of other cells in {stdout}");
        };
        assert_eq!((cycle, of_allocator), (f64::from(number), 0.0), "{stdout}");
        assert!(resident < peak, "{stdout}");
        assert!(live > 0.0 && (0.0..=100.0).contains(&not_live) && purges >= 1.0, "{stdout}");
        // The main thread goes to sleep in that second.
        assert!(of_all >= 1.0, "{stdout}");
    }
    assert!(stdout.ends_with("\nerrors   0\n"), "{stdout}");
    assert!(stderr.contains("magalloc: exit: unmapped "), "{stderr}");
}

#[cfg(unix)]
#[test]
fn interrupt_ends_the_cycles_with_the_rows_there_are() {
    // Far longer than the test would wait: an idle time and then as many as that again.
    let arguments = ["--cycles", "10000", "--seconds", "1", "--idle", "3", "--clients", "2", "--threads", "2"];
    let (mut process, _, mut stdout) = serving(&arguments);
    let mut table = String::new();
    while !table.contains("\n    1 ") {
        assert_ne!(stdout.read_line(&mut table).expect("stdout can be read"), 0, "{table}");
    }
    process.interrupt();
    let (code, _, stderr) = finished(process.wait());
    stdout.read_to_string(&mut table).expect("stdout can be read");
    assert_eq!(code, Some(0), "{table}\n{stderr}");
    assert!([1, 2].contains(&rows(&table).len()), "{table}");
    assert!(table.ends_with("\nerrors   0\n"), "{table}");
}
