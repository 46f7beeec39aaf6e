//! What the library's files look like to linkers and loaders, and its fast paths to the processor. With binutils.

use common::{archive, output_of, shared_library, skip};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

mod common;

/// Everything that the library offers, and nothing else.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    // C
    "malloc",
    "calloc",
    "realloc",
    "free",
    "aligned_alloc",
    "free_sized",
    "free_aligned_sized",
    // POSIX, BSD, Unix
    "posix_memalign",
    "reallocarray",
    "reallocf",
    "valloc",
    "cfree",
    // glibc
    "memalign",
    "pvalloc",
    "malloc_usable_size",
    "malloc_trim",
    "malloc_stats",
    "malloc_info",
    "mallopt",
    "mallinfo",
    "mallinfo2",
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_free",
    "__libc_memalign",
    "__libc_valloc",
    "__libc_pvalloc",
    "__posix_memalign",
    // magalloc.h
    "magalloc_stats",
    "magalloc_stats_json",
    "magalloc_stats_metrics",
    "magalloc_flush_thread",
    "magalloc_purge_all",
    "magalloc_owns",
    "magalloc_get_option",
    "magalloc_set_checking",
    "magalloc_set_option",
    "magalloc_version",
];

/// C++: operators new and delete, by form.
#[rustfmt::skip]
const OPERATORS: &[&str] = &[
    "_Znwm",
    "_ZnwmRKSt9nothrow_t",
    "_ZnwmSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t",
    "_Znam",
    "_ZnamRKSt9nothrow_t",
    "_ZnamSt11align_val_t",
    "_ZnamSt11align_val_tRKSt9nothrow_t",
    "_ZdlPv",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdlPvm",
    "_ZdlPvmSt11align_val_t",
    "_ZdaPv",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdaPvSt11align_val_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvm",
    "_ZdaPvmSt11align_val_t",
];

fn tool(program: &str, arguments: &[&str], file: &Path) -> Option<String> {
    if !common::is_installed(program) {
        skip(&format!("{program} is not installed"));
        return None;
    }
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).chain([file.as_os_str()]).collect();
    Some(output_of(program, &arguments))
}

fn intended() -> BTreeSet<&'static str> {
    NAMES.iter().chain(OPERATORS).copied().collect()
}

/// What the shared library alone offers: a static program has one `dlopen` only.
const SHARED_ONLY: &str = "dlopen";

/// In the archive, what lets it through there: no function, and no name that a program can have.
const LETS_THROUGH: &str = "dlope[n]";

/// The names at the ends of the lines of `nm`, of symbols of these kinds, without versions.
fn names<'t>(text: &'t str, kinds: &str) -> BTreeSet<&'t str> {
    let is_wanted = |kind: &str| kinds.contains(kind);
    let symbol = |line: &'t str| {
        let mut words = line.split_whitespace().rev();
        let (name, kind) = (words.next()?, words.next()?);
        (kind.len() == 1 && is_wanted(kind)).then_some(name)
    };
    text.lines().filter_map(symbol).map(|name| name.split('@').next().unwrap()).collect()
}

#[test]
fn shared_library_exports_exactly_the_intended_names() {
    let Some(text) = tool("nm", &["--dynamic", "--defined-only"], &shared_library()) else { return };
    assert_eq!(names(&text, "ABCDGIRSTUVWiu"), intended().into_iter().chain([SHARED_ONLY]).collect());
    // As functions that programs may have themselves.
    assert!(text.lines().all(|line| [" T ", " W "].iter().any(|kind| line.contains(kind))), "{text}");
}

#[test]
fn archive_defines_the_same_functions() {
    let Some(text) = tool("readelf", &["--symbols", "--wide"], &archive()) else { return };
    let is_visible = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        // Num: Value Size Type Bind Vis Ndx Name
        words.len() == 8 && ["GLOBAL", "WEAK"].contains(&words[4]) && words[5] == "DEFAULT" && words[6] != "UND"
    };
    let found: BTreeSet<&str> =
        text.lines().filter(is_visible).filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(found.intersection(&intended()).copied().collect::<BTreeSet<_>>(), intended());
    assert!(!found.contains(SHARED_ONLY));
    // What else there is has names that no C program has.
    let is_mangled = |name: &&&str| ["_ZN", "_R", "anon.", LETS_THROUGH].iter().any(|prefix| name.starts_with(prefix));
    let others: Vec<_> = found.difference(&intended()).filter(|name| !is_mangled(name)).copied().collect();
    assert_eq!(others, [] as [&str; 0]);
}

/// The values of a tag of the dynamic section.
fn dynamic<'t>(text: &'t str, tag: &str) -> Vec<&'t str> {
    let tag = format!("({tag})");
    text.lines().filter_map(|line| line.split_once(&tag).map(|(_, value)| value.trim())).collect()
}

#[test]
fn shared_library_needs_the_c_library_only() {
    let Some(text) = tool("readelf", &["--dynamic", "--wide"], &shared_library()) else { return };
    let needed = dynamic(&text, "NEEDED");
    let is_allowed = |value: &&str| value.contains("[libc.so.6]") || value.contains("[ld-linux-");
    assert!(needed.iter().any(|value| value.contains("[libc.so.6]")) && needed.iter().all(is_allowed), "{needed:?}");
    assert_eq!(dynamic(&text, "SONAME"), [format!("Library soname: [{}]", common::SONAME)]);
}

#[test]
fn shared_library_is_never_unloaded_and_bound_at_once() {
    let Some(text) = tool("readelf", &["--dynamic", "--wide"], &shared_library()) else { return };
    let flags = [dynamic(&text, "FLAGS"), dynamic(&text, "FLAGS_1")].concat().join(" ");
    for flag in ["NODELETE", "NOW", "BIND_NOW"] {
        assert!(flags.split_whitespace().any(|word| word == flag), "{flag}: {flags}");
    }
    assert!(dynamic(&text, "TEXTREL").is_empty() && !flags.contains("TEXTREL"), "{text}");
}

#[test]
fn shared_library_has_no_memory_to_write_and_execute() {
    let Some(text) = tool("readelf", &["--segments", "--wide"], &shared_library()) else { return };
    let flags =
        |line: &str| line.split_whitespace().skip(6).take_while(|word| !word.starts_with("0x")).collect::<String>();
    let segments: Vec<_> =
        text.lines().filter(|line| ["LOAD", "GNU_STACK"].iter().any(|kind| line.contains(kind))).collect();
    assert!(segments.len() >= 4 && segments.iter().any(|line| line.contains("GNU_STACK")), "{text}");
    for line in segments.iter().filter(|line| line.trim_start().starts_with(['L', 'G'])) {
        assert!(!(flags(line).contains('W') && flags(line).contains('E')), "{line}");
    }
    assert!(text.contains("GNU_RELRO"), "{text}");
}

#[test]
fn thread_local_data_is_at_a_fixed_distance() {
    let library = shared_library();
    let Some(text) = tool("readelf", &["--dynamic", "--relocs", "--wide"], &library) else { return };
    assert!(dynamic(&text, "FLAGS").concat().contains("STATIC_TLS"), "{text}");
    let relocation = if cfg!(target_arch = "x86_64") { "R_X86_64_TPOFF64" } else { "R_AARCH64_TLS_TPREL" };
    assert!(text.contains(relocation), "{text}");
    for dynamic_model in ["DTPMOD", "DTPOFF", "DTPREL", "TLSDESC", "__tls_get_addr"] {
        assert!(!text.contains(dynamic_model), "{dynamic_model}");
    }
    let Some(text) = tool("nm", &["--dynamic"], &library) else { return };
    assert!(!text.contains("__tls_get_addr"), "{text}");
    // Few bytes: a library that is loaded later finds room beside those that are there.
    let Some(text) = tool("readelf", &["--segments", "--wide"], &library) else { return };
    let line = text.lines().find(|line| line.trim_start().starts_with("TLS ")).unwrap();
    let bytes = u64::from_str_radix(line.split_whitespace().nth(5).unwrap().trim_start_matches("0x"), 16).unwrap();
    assert!((1..=64).contains(&bytes), "{line}");
}

/// Instructions that are not on a fast path, of a disassembly from the entry to the first return. `Err` without one.
fn slow_instructions(disassembly: &str) -> Result<Vec<&str>, ()> {
    let mut slow = Vec::new();
    for line in disassembly.lines() {
        // Address, instruction, and what objdump says of it.
        let Some((_, code)) = line.split_once(":\t") else { continue };
        let code = code.split(['#', '<']).next().unwrap();
        let is_slow = |word: &str| word.starts_with("call") || ["lock", "syscall"].contains(&word);
        // With memory, an exchange is atomic without a prefix.
        let exchanges = code.split_whitespace().next() == Some("xchg") && code.contains('(');
        if code.split_whitespace().any(is_slow) || exchanges {
            slow.push(line);
        }
        if code.split_whitespace().any(|word| word.starts_with("ret")) {
            return Ok(slow);
        }
    }
    Err(())
}

#[test]
fn slow_instructions_are_noticed() {
    let with = |line: &str| format!("  10:\tpush   %rbx\n  11:\t{line}\n  12:\tret\n  13:\tcall   99 <later>\n");
    for good in ["mov    (%rax),%rcx", "xchg   %ax,%ax", "mov    0x10(%rip),%rdx        # 99 <call>"] {
        assert_eq!(slow_instructions(&with(good)), Ok(vec![]), "{good}");
    }
    for bad in ["call   99 <f>", "lock cmpxchg %rcx,(%rdx)", "xchg   %rax,(%rdi)", "syscall", "bnd call 99 <f>"] {
        assert_eq!(slow_instructions(&with(bad)).unwrap().len(), 1, "{bad}");
    }
    assert_eq!(slow_instructions("  10:\tjmp    99 <f>\n"), Err(()));
}

/// The machine code of a function.
fn disassembly(function: &str) -> Option<String> {
    let library = shared_library();
    let symbols = tool("readelf", &["--dyn-syms", "--wide"], &library)?;
    let words = symbols.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let symbol = words.into_iter().find(|words| words.last() == Some(&function)).unwrap();
    let start = u64::from_str_radix(symbol[1], 16).unwrap();
    let bytes: u64 = symbol[2].parse().unwrap();
    let range = [format!("--start-address={start}"), format!("--stop-address={}", start + bytes)];
    tool("objdump", &["--disassemble", "--no-show-raw-insn", &range[0], &range[1]], &library)
}

#[track_caller]
fn expect_fast(function: &str) {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("knows instructions of x86-64 only");
    }
    let Some(text) = disassembly(function) else { return };
    assert_eq!(slow_instructions(&text), Ok(vec![]), "{text}");
    // No stack frame: what is called there is a jump at the end.
    let before_return = text.split("\tret").next().unwrap();
    assert!(!before_return.contains("\tpush") && !before_return.contains("%rsp"), "{text}");
}

#[test]
fn malloc_has_no_call_and_no_lock_on_its_fast_path() {
    expect_fast("malloc");
}

#[test]
fn free_has_no_call_and_no_lock_on_its_fast_path() {
    expect_fast("free");
}

#[test]
fn delete_has_no_call_and_no_lock() {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("knows instructions of x86-64 only");
    }
    for delete in OPERATORS.iter().filter(|name| name.starts_with("_Zd")) {
        let Some(text) = disassembly(delete) else { return };
        // It ends with a jump.
        let (begin, _) = text.split_once("\tjmp").unwrap_or_else(|| panic!("{text}"));
        assert_eq!(slow_instructions(&format!("{begin}\n0:\tret\n")), Ok(vec![]), "{text}");
        assert!(!begin.contains("\tpush"), "{text}");
    }
}
