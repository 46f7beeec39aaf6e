//! Operators new and delete: what C++ says of all their forms, in programs with the C++ library, without, with it out
//! of sight, and with operators of the program's own.

use common::{MODES, Mode, Program, compile, compile_shared, compile_with};

mod common;

/// The C++ library as a part of the program.
const STATIC_CPP: &[&str] = &["-static-libstdc++", "-static-libgcc"];

fn programs() -> Vec<Program> {
    let mut programs: Vec<_> = MODES.iter().map(|&mode| compile("operators.cpp", mode)).collect();
    // Preloaded, the operators would be those of the C++ library.
    programs.extend([Mode::Dynamic, Mode::Static].map(|mode| compile_with("operators.cpp", mode, STATIC_CPP)));
    programs
}

macro_rules! operators {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                for program in programs() {
                    println!("{}", program.path.display());
                    program.scenario(stringify!($name)).expect(0, "", "");
                }
            }
        )*
    };
}

operators! {
    every_form_is_served
    every_aligned_form_is_served
    containers_and_over_aligned_types_work
    too_much_throws_bad_alloc_through_frames
    nothrow_returns_null
    containers_throw_where_memory_ends
    new_handler_is_called_until_there_is_none
    exception_of_new_handler_passes
    nothrow_catches_exception_of_new_handler
    block_of_failed_constructor_is_freed
    memory_resources_work
    blocks_pass_between_threads
}

#[test]
fn new_handler_that_frees_memory_is_enough() {
    for program in programs() {
        println!("{}", program.path.display());
        let mut command = program.command();
        command.arg("new_handler_that_frees_memory_is_enough").env("MAGALLOC_HARD_LIMIT", "256M");
        common::run(&mut command).expect(0, "", "");
    }
}

/// Nothing refers to what throws but the operator: a C++ library that is an archive must be told to keep it (README).
#[test]
fn smallest_program_catches_bad_alloc() {
    const KEEP: &str = "-Wl,-u,_ZSt17__throw_bad_allocv";
    for flags in [&[][..], &["-static-libstdc++", "-static-libgcc", KEEP], &["-static", KEEP]] {
        for mode in MODES {
            if flags.contains(&"-static") && mode != Mode::Static {
                continue;
            }
            println!("{mode:?} {flags:?}");
            common::run(&mut compile_with("smallest.cpp", mode, flags).command()).expect(0, "", "");
        }
    }
}

macro_rules! plugin {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let plugin = compile_shared("plugin.cpp", "plugin", &[]);
                for mode in MODES {
                    println!("{mode:?}");
                    let mut command = compile("plugin_host.c", mode).command();
                    common::run(command.arg(stringify!($name)).arg(&plugin)).expect(0, "", "");
                }
            }
        )*
    };
}

plugin! {
    plugin_catches_bad_alloc
    plugin_calls_handler
    plugin_nothrow_returns_null
    plugin_nothrow_calls_handler
    plugin_is_loaded_again_and_again
}

#[test]
fn new_without_cpp_serves() {
    common::expect_in_all_modes("new_without_cpp.c", "new_without_cpp_serves");
}

#[test]
fn nothrow_without_cpp_returns_null() {
    common::expect_in_all_modes("new_without_cpp.c", "nothrow_without_cpp_returns_null");
}

#[test]
fn new_without_cpp_ends_the_process_with_a_line() {
    for mode in MODES {
        let outcome = compile("new_without_cpp.c", mode).scenario("new_without_cpp_ends_the_process");
        outcome.expect_abort("magalloc: operator new: out of memory, and no C++ library to throw std::bad_alloc", "");
    }
}

macro_rules! own_operators {
    ($($all:ident $plain:ident)*) => {
        $(
            #[test]
            fn $all() {
                for mode in MODES {
                    compile("own_operators.cpp", mode).scenario(stringify!($all)).expect(0, "", "");
                }
            }

            #[test]
            fn $plain() {
                // A compiler that knows sizes calls the sized form.
                let flags = &["-DPLAIN_ONLY", "-Wno-sized-deallocation"];
                for mode in [Mode::Without, Mode::Preloaded, Mode::Dynamic, Mode::Static] {
                    println!("{mode:?}");
                    compile_with("own_operators.cpp", mode, flags).scenario(stringify!($all)).expect(0, "", "");
                }
            }
        )*
    };
}

own_operators! {
    own_new_and_delete_are_used plain_new_and_delete_are_used
    own_delete_gets_objects plain_delete_gets_objects
    own_new_gets_arrays plain_new_gets_arrays
    own_new_gets_arrays_of_objects plain_new_gets_arrays_of_objects
    own_new_gets_nothrow plain_new_gets_nothrow
    own_new_gets_alignments plain_new_gets_alignments
    own_delete_gets_sizes plain_delete_gets_sizes
    own_operators_serve_the_library plain_operators_serve_the_library
    own_bad_alloc_is_caught plain_bad_alloc_is_caught
}

macro_rules! own_malloc {
    ($($name:ident $forwards:ident)*) => {
        $(
            #[test]
            fn $name() {
                for mode in MODES {
                    println!("{mode:?}");
                    compile("own_malloc.c", mode).scenario(stringify!($name)).expect(0, "", "");
                }
            }

            /// Only where there is a next one: a program that is linked with the archive has no other.
            #[test]
            fn $forwards() {
                for mode in [Mode::Preloaded, Mode::Dynamic] {
                    println!("{mode:?}");
                    compile_with("own_malloc.c", mode, &["-DFORWARDS"]).scenario(stringify!($name)).expect(0, "", "");
                }
            }
        )*
    };
}

own_malloc! {
    own_malloc_is_used forwarding_malloc_is_used
    own_malloc_serves_the_c_library forwarding_malloc_serves_the_c_library
    own_malloc_serves_threads forwarding_malloc_serves_threads
    aligned_blocks_are_freed_by_own_free aligned_blocks_are_freed_by_forwarding_free
}

/// As with the C++ library's own operators. A program that is linked with the archive replaces all of the family or
/// none.
#[test]
fn operators_call_own_malloc() {
    for mode in [Mode::Without, Mode::Preloaded, Mode::Dynamic] {
        println!("{mode:?}");
        compile("own_malloc_new.cpp", mode).scenario("operators_call_own_malloc").expect(0, "", "");
    }
}
