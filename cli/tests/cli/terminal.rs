//! Keys of a terminal, which the kernel turns into signals for the whole process group.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::ptr;

use crate::process::{Process, WAYS, subject, way};

/// How often the key is pressed: signals that come together count once, so a single one proves little.
const PRESSES: usize = 20;

/// Both ends of a terminal.
fn terminal() -> (File, OwnedFd) {
    let (mut controller, mut device) = (0, 0);
    // SAFETY: both have room for a descriptor; name, settings and size are not given.
    let result =
        unsafe { libc::openpty(&raw mut controller, &raw mut device, ptr::null_mut(), ptr::null(), ptr::null()) };
    assert_eq!(result, 0, "there are terminals");
    // SAFETY: both were opened just now, and are nobody else's.
    unsafe { (File::from_raw_fd(controller), OwnedFd::from_raw_fd(device)) }
}

/// Reads on until `end` is there.
fn read_until(terminal: &mut File, end: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 256];
    while !text.contains(end) {
        let count = terminal.read(&mut bytes).expect("the program is there");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    text
}

#[test]
fn key_reaches_the_program_once() {
    let (mut controller, device) = terminal();
    let fd = device.as_raw_fd();
    let mut command = way(WAYS[1], &[subject(), "listen"]);
    command.stdin(device.try_clone().unwrap()).stdout(device.try_clone().unwrap()).stderr(device.try_clone().unwrap());
    // SAFETY: both may be called between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            libc::ioctl(fd, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    let mut process = Process::start(&mut command);
    drop((command, device));
    read_until(&mut controller, "\n");
    let mut text = String::new();
    for _ in 0..PRESSES {
        controller.write_all(b"\x03").unwrap();
        text += &read_until(&mut controller, "02\r\n");
    }
    // What the parent would have forwarded comes before this.
    process.signal(libc::SIGUSR1);
    text += &read_until(&mut controller, "10\r\n");
    assert_eq!(text.matches("02").count(), PRESSES, "{text}");
    process.signal(libc::SIGTERM);
    assert_eq!(process.wait().code(), Some(7));
}
