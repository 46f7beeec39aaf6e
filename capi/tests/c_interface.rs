//! The functions for C programs: what C, POSIX and BSD say, what glibc does, and what `magalloc.h` declares.

use common::{MODES, Mode, compile, compile_with};

mod common;

scenarios! { "blocks.c":
    all_sizes_are_aligned_writable_and_kept
    large_sizes_are_aligned_writable_and_kept
    size_zero_gives_blocks_of_their_own
    calloc_after_dirty_blocks_is_zero
    calloc_overflow_fails
    too_much_is_refused_with_enomem
    realloc_of_null_is_malloc
    realloc_to_zero_frees
    realloc_keeps_contents
    realloc_step_by_step_keeps_contents
    realloc_to_less_gives_back
    realloc_of_aligned_block_keeps_contents
    reallocarray_overflow_keeps_block
    reallocf_frees_where_it_fails
    free_by_all_names_frees
    free_keeps_errno
    success_keeps_errno
}

scenarios! { "alignment.c":
    every_alignment_up_to_1_gib_is_served
    small_sizes_at_small_alignments_are_kept
    aligned_alloc_of_no_power_of_two_is_invalid
    posix_memalign_failure_sets_errno_and_nothing_else
    memalign_takes_next_power_of_two
    alignment_beyond_1_gib_is_refused
    valloc_and_pvalloc_give_pages
}

/// `glibc.c` wants to be told the version.
const VERSION: &[&str] = &[concat!("-DVERSION=\"", env!("CARGO_PKG_VERSION"), "\"")];

macro_rules! glibc_scenarios {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                for mode in MODES {
                    compile_with("glibc.c", mode, VERSION).scenario(stringify!($name)).expect(0, "", "");
                }
            }
        )*
    };
}

glibc_scenarios! {
    usable_size_of_null_is_zero
    malloc_trim_gives_memory_back
    mallinfo_counts_blocks
    mallinfo_counts_free_blocks
    mallinfo_ends_at_int_max
    mallopt_takes_parameters_of_glibc
    malloc_info_into_memory_is_complete
    malloc_info_options_are_refused
    stats_follow_the_program
    stats_are_text
    stats_of_other_sizes_are_served
    flush_thread_empties_the_cache
    owns_tells_blocks_from_others
    version_is_that_of_the_package
}

/// A program that is linked with the archive need not have them: nobody refers to them.
#[test]
fn libc_names_are_the_same_functions() {
    for mode in [Mode::Preloaded, Mode::Dynamic] {
        compile_with("glibc.c", mode, VERSION).scenario("libc_names_are_the_same_functions").expect(0, "", "");
    }
}

#[test]
fn malloc_stats_writes_a_figure_per_line() {
    for mode in MODES {
        let outcome = compile_with("glibc.c", mode, VERSION).scenario("malloc_stats_writes");
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), ""), "{outcome:?}");
        let figure = |line: &str| line.strip_prefix("magalloc: ")?.rsplit_once(' ')?.1.parse::<u64>().ok();
        assert!(outcome.stderr.lines().all(|line| figure(line).is_some()), "{outcome:?}");
        let live = outcome.stderr.lines().find(|line| line.starts_with("magalloc: live ")).and_then(figure).unwrap();
        // One block of 5 MiB is never freed, and some smaller ones.
        assert!((5 << 20..6 << 20).contains(&live), "{outcome:?}");
    }
}

/// An element: its name, and its attributes with their values.
type Element = (String, Vec<(String, String)>);

/// The elements in the order in which they begin, if the text is well-formed XML of
/// elements and white space only.
fn elements(mut text: &str) -> Option<Vec<Element>> {
    let (mut found, mut open) = (Vec::new(), Vec::new());
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return open.is_empty().then_some(found);
        }
        let (tag, rest) = text.strip_prefix('<')?.split_once('>')?;
        text = rest;
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop()? != name {
                return None;
            }
            continue;
        }
        let is_root = found.is_empty();
        if open.is_empty() && !is_root {
            return None;
        }
        let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut attributes = Vec::new();
        while !rest.is_empty() {
            let (attribute, value) = rest.split_once("=\"")?;
            let (value, more) = value.split_once('"')?;
            if value.contains(['<', '&']) || attribute.is_empty() || attribute.contains(' ') {
                return None;
            }
            attributes.push((attribute.to_string(), value.to_string()));
            rest = if more.is_empty() { more } else { more.strip_prefix(' ')? };
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        found.push((name.to_string(), attributes));
        if !is_empty {
            open.push(name.to_string());
        }
    }
}

#[test]
fn xml_that_is_not_well_formed_is_noticed() {
    assert_eq!(elements("<a b=\"1\">\n<c/></a>\n").unwrap().len(), 2);
    for bad in ["<a>", "<a></b>", "<a/><b/>", "<a b=1/>", "<a b=\"1/>", "<a b=\"&\"/>", "</a>", "a", "<a>b</a>", "< />"]
    {
        assert!(elements(bad).is_none(), "{bad}");
    }
}

#[test]
fn malloc_info_is_well_formed() {
    for mode in MODES {
        let outcome = compile_with("glibc.c", mode, VERSION).scenario("malloc_info_writes");
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
        let elements = elements(&outcome.stdout).unwrap_or_else(|| panic!("{outcome:?}"));
        assert_eq!(elements[0].0, "malloc");
        let is_number = |(_, value): &(String, String)| value.parse::<u64>().is_ok();
        let sizes: Vec<_> = elements.iter().filter(|(name, _)| name == "size").collect();
        assert!(sizes.len() >= 4 && sizes.iter().all(|(_, attributes)| attributes.iter().all(is_number)), "{sizes:?}");
        let live = [("type", "live")].map(|(name, value)| (name.to_string(), value.to_string()));
        let total =
            elements.iter().find(|(name, attributes)| name == "total" && attributes.contains(&live[0])).unwrap();
        assert!((5 << 20..6 << 20).contains(&total.1[1].1.parse::<u64>().unwrap()), "{total:?}");
    }
}

/// Old and new compilers of C and C++ take the header as it is.
#[test]
fn header_compiles_in_all_languages() {
    for (compiler, standard) in [("cc", "c99"), ("cc", "c11"), ("cc", "c2x"), ("c++", "c++98"), ("c++", "c++20")] {
        let language = if compiler == "cc" { "c" } else { "c++" };
        let header = common::package().join("include/magalloc.h");
        let standard = format!("-std={standard}");
        let arguments = ["-x", language, &standard, "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wno-long-long"];
        let mut arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        arguments.extend(["-fsyntax-only".as_ref(), header.as_os_str()]);
        common::try_compile(compiler, &arguments).unwrap_or_else(|error| panic!("{compiler} {standard}: {error}"));
    }
}

/// The tests ask for nothing that the C library's own allocator does not do.
#[test]
fn glibc_does_what_the_tests_ask_for() {
    let blocks = [
        "all_sizes_are_aligned_writable_and_kept",
        "size_zero_gives_blocks_of_their_own",
        "calloc_overflow_fails",
        "realloc_of_null_is_malloc",
        "realloc_keeps_contents",
        "realloc_step_by_step_keeps_contents",
        "reallocarray_overflow_keeps_block",
        "success_keeps_errno",
    ];
    for scenario in blocks {
        compile("blocks.c", Mode::Without).scenario(scenario).expect(0, "", "");
    }
    let alignment = [
        "small_sizes_at_small_alignments_are_kept",
        "memalign_takes_next_power_of_two",
        "valloc_and_pvalloc_give_pages",
    ];
    for scenario in alignment {
        compile("alignment.c", Mode::Without).scenario(scenario).expect(0, "", "");
    }
}
