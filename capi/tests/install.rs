//! Installed as README.md says: pkg-config and compilers find the library wherever the prefix is.

use common::{archive, is_installed, output_of, package, run, scratch, shared_library, skip, source_path};
use std::path::{Path, PathBuf};
use std::process::Command;

mod common;

/// Runs the commands of README.md that install, with this prefix.
fn install(prefix: &Path) {
    let text = std::fs::read_to_string(package().join("README.md")).unwrap();
    let library = shared_library();
    let target = library.parent().unwrap().parent().unwrap().display().to_string();
    let commands = text.lines().filter(|line| line.starts_with("install ") || line.starts_with("ln "));
    let commands: Vec<String> = commands.map(|line| line.replace(" target/", &format!(" {target}/"))).collect();
    assert_eq!(commands.len(), 5);
    for command in commands {
        let mut shell = Command::new("sh");
        shell.args(["-ec", &command]).env("prefix", prefix).current_dir(package().parent().unwrap());
        assert!(shell.status().unwrap().success(), "{command}");
    }
    assert!(archive().exists());
}

/// A prefix that was moved after the installation.
fn moved_prefix(name: &str) -> PathBuf {
    let [first, prefix] = ["first", "moved"].map(|place| scratch().join(format!("{name}-{place}")));
    let _ = std::fs::remove_dir_all(&first);
    let _ = std::fs::remove_dir_all(&prefix);
    install(&first);
    std::fs::rename(first, &prefix).unwrap();
    prefix
}

fn pkg_config(prefix: &Path, arguments: &[&str]) -> Vec<String> {
    let folder = prefix.join("lib/pkgconfig");
    let output = Command::new("pkg-config").args(arguments).arg("magalloc").env("PKG_CONFIG_PATH", folder).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_string).collect()
}

/// Compiles and runs a program that uses malloc and the header.
fn build_and_run(prefix: &Path, flags: &[String], name: &str) {
    let program = prefix.join(name);
    let version = format!("-DVERSION=\"{}\"", env!("CARGO_PKG_VERSION"));
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-fno-builtin", &version, "-o"]).arg(&program).arg(source_path("glibc.c")).args(flags);
    let output = compiler.arg("-pthread").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut command = common::clean(&program);
    command.env("LD_LIBRARY_PATH", prefix.join("lib"));
    for scenario in ["version_is_that_of_the_package", "owns_tells_blocks_from_others"] {
        run(command.arg(scenario)).expect(0, "", "");
        command = common::clean(&program);
        command.env("LD_LIBRARY_PATH", prefix.join("lib"));
    }
}

#[test]
fn pkg_config_finds_moved_prefix() {
    if !is_installed("pkg-config") {
        return skip("pkg-config is not installed");
    }
    let prefix = moved_prefix("shared");
    assert_eq!(pkg_config(&prefix, &["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    let flags = pkg_config(&prefix, &["--cflags", "--libs"]);
    build_and_run(&prefix, &flags, "dynamic");
    // The program needs the library by its name, not by the place where it was linked.
    if is_installed("readelf") {
        let dynamic = output_of("readelf", &["--dynamic".as_ref(), prefix.join("dynamic").as_os_str()]);
        assert!(dynamic.contains(&format!("[{}]", common::SONAME)), "{dynamic}");
    }
}

#[test]
fn pkg_config_links_the_archive_where_it_is_alone() {
    if !is_installed("pkg-config") {
        return skip("pkg-config is not installed");
    }
    let prefix = moved_prefix("static");
    std::fs::remove_file(prefix.join("lib/libmagalloc.so")).unwrap();
    let flags = pkg_config(&prefix, &["--cflags", "--libs", "--static"]);
    assert!(["-pthread", "-ldl"].iter().all(|flag| flags.iter().any(|other| other == flag)), "{flags:?}");
    build_and_run(&prefix, &flags, "static");
    build_and_run(&prefix, &[&flags[..], &["-static".into()]].concat(), "entirely-static");
}
