//! Plugins that are loaded with `RTLD_DEEPBIND` into a program with the shared library.

#![cfg(target_env = "gnu")]

use common::{Mode, Outcome, compile, compile_shared, run, scratch};
use std::path::{Path, PathBuf};

mod common;

/// Those with the library's `dlopen`.
const MODES: [Mode; 2] = [Mode::Preloaded, Mode::Dynamic];

/// A plugin, and the folder with another one that it alone finds.
fn plugin() -> PathBuf {
    let folder = scratch().join("beside");
    std::fs::create_dir_all(&folder).unwrap();
    let path = ["-Wl,--enable-new-dtags,-rpath,$ORIGIN/beside"];
    let outer = compile_shared("regressions/deep_plugin.c", "deep_outer", &path);
    let inner = compile_shared("regressions/deep_plugin.c", "deep_inner", &[]);
    std::fs::copy(inner, folder.join("libdeep_inner.so")).unwrap();
    outer
}

fn outcome(mode: Mode, scenario: &str, plugin: &Path, options: &[(&str, &str)]) -> Outcome {
    std::fs::create_dir_all(scratch().join("regressions")).unwrap();
    println!("{mode:?}");
    let mut command = compile("regressions/deepbind.c", mode).command();
    run(command.arg(scenario).arg(plugin).envs(options.iter().copied()))
}

#[test]
fn deeply_bound_plugin_frees_what_the_c_library_allocates() {
    for mode in MODES {
        outcome(mode, "deeply_bound_plugin_frees_what_the_c_library_allocates", &plugin(), &[]).expect(0, "", "");
    }
}

/// With another allocator, there is nothing to take out.
#[test]
fn deeply_bound_plugin_works_where_the_library_is_disabled() {
    let options = [("MAGALLOC_DISABLE", "1")];
    for mode in MODES {
        outcome(mode, "deeply_bound_plugin_frees_what_the_c_library_allocates", &plugin(), &options).expect(0, "", "");
    }
}

#[test]
fn deep_binding_is_kept_on_request() {
    let options = [("MAGALLOC_KEEP_DEEPBIND", "1")];
    for mode in MODES {
        let outcome = outcome(mode, "deeply_bound_plugin_frees_what_the_c_library_allocates", &plugin(), &options);
        // glibc's own error.
        assert!(outcome.signal == Some(libc::SIGABRT) && outcome.stderr.contains("invalid pointer"), "{outcome:?}");
    }
}

#[test]
fn plugin_is_found_by_the_callers_path() {
    for mode in MODES {
        outcome(mode, "plugin_is_found_by_the_callers_path", &plugin(), &[]).expect(0, "", "");
    }
}

#[test]
fn errors_are_told() {
    for mode in MODES {
        outcome(mode, "errors_are_told", &plugin(), &[]).expect(0, "", "");
    }
}
