//! Rules about the text of `src` that no compiler knows. Each is a function over text, with a test that shows it a
//! bad snippet.

use source_text::{Line, down, files, is_for_tests, item_length, lines, names, refused, root, up};
use std::fs;
use std::path::{Path, PathBuf};

mod documents;
mod source_text;

/// The layers, lowest first, as `lib.rs` lists its modules.
fn layers(lib: &str) -> Vec<String> {
    let mut layers = Vec::new();
    for line in lines(lib) {
        let code = line.code.trim();
        let listed = code.strip_prefix("modelled! {").and_then(|rest| rest.strip_suffix('}'));
        let module = code.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
        let found = listed.or(module).filter(|found| !found.contains('$'));
        layers.extend(found.into_iter().flat_map(str::split_whitespace).map(str::to_string));
    }
    layers
}

/// Lines of a file in `layer` that name a higher layer, or one that is not listed.
fn upward_uses(layers: &[String], layer: &str, text: &str) -> Vec<usize> {
    let height = |name: &str| layers.iter().position(|layer| layer == name);
    let own = height(layer).expect("every module is listed in lib.rs");
    refused(&lines(text), |_, code| {
        code.split("crate::").skip(1).any(|rest| {
            let name: String = rest.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
            height(&name).is_none_or(|height| height > own)
        })
    })
}

/// Lines that name atomics, loom or crossbeam themselves.
fn foreign_atomics(text: &str) -> Vec<usize> {
    let foreign = ["core::sync", "std::sync", "loom::", "crossbeam_utils", "crossbeam"];
    refused(&lines(text), |_, code| foreign.iter().any(|name| names(code, name)))
}

/// Lines with an `Ordering::` that nothing explains: on it, or up to 12 lines above in the same function; or up to 6
/// below, for an order that depends on a planted bug (`bug(...)` up to 3 lines above) and is explained at its use.
fn unexplained_orderings(text: &str) -> Vec<usize> {
    let lines = lines(text);
    let explains = |line: &Line| line.comment.contains("ordering:");
    let is_explained = |index| {
        let is_planted = up(&lines, index, 3).any(|line| line.code.contains("bug("));
        up(&lines, index, 12).any(explains) || is_planted && down(&lines, index, 6).any(explains)
    };
    refused(&lines, |index, code| {
        code.contains("Ordering::") && !code.trim_start().starts_with("use ") && !is_explained(index)
    })
}

/// Lines with an unsafe block or implementation that nothing justifies: on it, or up to 8 lines above.
fn unjustified_unsafe(text: &str) -> Vec<usize> {
    let lines = lines(text);
    refused(&lines, |index, code| {
        (names(code, "unsafe {") || names(code, "unsafe impl"))
            && !up(&lines, index, 8).any(|line| line.comment.contains("SAFETY"))
    })
}

/// Lines that allocate, lock, format or unwind.
fn allocates_or_unwinds(text: &str) -> Vec<usize> {
    const NAMES: &[&str] = &[
        "panic!",
        "unwrap()",
        ".expect(",
        "unreachable!",
        "format!",
        "println!",
        "eprintln!",
        "vec!",
        "Vec<",
        "Vec::",
        "Box<",
        "Box::",
        "String",
        "Mutex",
        "RwLock",
        "OnceLock",
        "LazyLock",
        "Once",
    ];
    refused(&lines(text), |_, code| NAMES.iter().any(|name| names(code, name)))
}

/// Lines that assert outside constants and `const fn`, which make constants.
fn runtime_assertions(text: &str) -> Vec<usize> {
    let lines = lines(text);
    let mut constant = vec![false; lines.len()];
    for (index, line) in lines.iter().enumerate() {
        if line.code.contains("const _: () =")
            || line.code.contains("const fn ")
            || line.code.trim_start().starts_with("const {")
        {
            constant[index..][..item_length(&lines[index..])].fill(true);
        }
    }
    refused(&lines, |index, code| {
        !constant[index] && ["assert!", "assert_eq!", "assert_ne!"].iter().any(|name| names(code, name))
    })
}

/// Lines that name an operating system, what only one of them has, or instructions.
fn platform_names(text: &str) -> Vec<usize> {
    const NAMES: &[&str] = &[
        "asm!",
        "global_asm!",
        "naked_asm!",
        "link_section",
        "libc",
        "std::os",
        "target_os",
        "target_env",
        "target_vendor",
        "target_family",
    ];
    refused(&lines(text), |_, code| NAMES.iter().any(|name| names(code, name)))
}

/// Lines that ask for the processor.
fn processor_names(text: &str) -> Vec<usize> {
    refused(&lines(text), |_, code| names(code, "target_arch"))
}

/// Lines inside of functions that ask for the target: what a platform can do is data, and what it does has a file.
fn targets_in_bodies(text: &str) -> Vec<usize> {
    let lines = lines(text);
    let mut inside = vec![false; lines.len()];
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| names(&line.code, "fn")) {
        if line.code.contains('(') {
            inside[index + 1..][..item_length(&lines[index..]) - 1].fill(true);
        }
    }
    let asks = |code: &str| code.contains("cfg(") || code.contains("cfg!(") || code.contains("cfg_attr(");
    refused(&lines, |index, code| inside[index] && asks(code) && code.contains("target_"))
}

/// Lines with a mark that something is left to do, or a test that is not run.
fn leftovers(text: &str) -> Vec<usize> {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[", "ignore")];
    let lines = text.lines().enumerate().filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)));
    lines.map(|(index, _)| index + 1).collect()
}

/// Files of `src` that are not for tests only: those are named by a `mod` under `#[cfg(test)]`.
fn sources() -> Vec<(PathBuf, String)> {
    let mut sources: Vec<(PathBuf, String)> =
        files("src").into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect();
    let mut for_tests = Vec::new();
    for (path, text) in &sources {
        let text: Vec<&str> = text.lines().collect();
        for pair in text.windows(2).filter(|pair| is_for_tests(pair[0])) {
            if let Some((_, name)) = pair[1].strip_suffix(';').and_then(|rest| rest.split_once("mod ")) {
                // In the folder of a `mod.rs`, or in one called as the file is.
                for folder in [path.parent().unwrap(), &path.with_extension("")] {
                    for_tests.push(folder.join(name).with_extension("rs"));
                }
            }
        }
    }
    // A module of tests has its files in a folder.
    let is_for_tests =
        |path: &PathBuf| for_tests.iter().any(|file| path == file || path.starts_with(file.with_extension("")));
    sources.retain(|(path, _)| !is_for_tests(path));
    assert!(sources.len() > 30, "the folder is read");
    sources
}

/// The top module that a file of `src` belongs to.
fn layer_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    Path::new(inside.iter().next().unwrap()).file_stem().unwrap().to_str().unwrap().to_string()
}

#[track_caller]
fn expect_none(sources: impl IntoIterator<Item = (PathBuf, String)>, rule: impl Fn(&Path, &str) -> Vec<usize>) {
    let place = |path: &Path, line: usize| format!("{}:{line}", path.strip_prefix(root()).unwrap().display());
    let found = sources
        .into_iter()
        .flat_map(|(path, text)| rule(&path, &text).into_iter().map(|line| place(&path, line)).collect::<Vec<_>>());
    assert_eq!(found.collect::<Vec<_>>(), [] as [String; 0]);
}

#[test]
fn layers_are_used_downwards() {
    let layers = layers(&fs::read_to_string(root().join("src/lib.rs")).unwrap());
    assert_eq!((layers.len(), layers[0].as_str(), layers[24].as_str()), (25, "config", "allocator_api"));
    expect_none(sources().into_iter().filter(|(path, _)| layer_of(path) != "lib"), |path, text| {
        upward_uses(&layers, &layer_of(path), text)
    });
}

#[test]
fn upward_use_is_refused() {
    let layers = layers("mod low;\nmodelled! { middle }\n#[cfg(not(loom))]\nmod high;\n");
    assert_eq!(layers, ["low", "middle", "high"]);
    assert_eq!(upward_uses(&layers, "middle", "use crate::low::a;\nuse crate::middle::b;\n// crate::high\n"), []);
    assert_eq!(upward_uses(&layers, "middle", "use crate::low::a;\nlet b = crate::high::b();\n"), [2]);
    assert_eq!(upward_uses(&layers, "high", "use crate::{low, high};\n"), [1]);
}

#[test]
fn atomics_are_named_in_sync_only() {
    expect_none(sources().into_iter().filter(|(path, _)| layer_of(path) != "sync"), |_, text| foreign_atomics(text));
}

#[test]
fn atomics_named_elsewhere_are_refused() {
    assert_eq!(foreign_atomics("//! core::sync::atomic\nuse crate::sync::AtomicU8;\n#[cfg(not(loom))]\n"), []);
    let bad = "use core::sync::atomic::AtomicU8;\nlet a = loom::thread::current();\nuse crossbeam_utils::Backoff;\n";
    assert_eq!(foreign_atomics(bad), [1, 2, 3]);
}

#[test]
fn orderings_are_explained() {
    // `sync` only passes orders on.
    expect_none(sources().into_iter().filter(|(path, _)| layer_of(path) != "sync"), |_, text| {
        unexplained_orderings(text)
    });
}

#[test]
fn unexplained_ordering_is_refused() {
    let explained = "fn a() {\n    // ordering: Relaxed, a hint.\n    x.load(Ordering::Relaxed);\n}\n";
    assert_eq!(unexplained_orderings(explained), []);
    assert_eq!(unexplained_orderings(&explained.replace("ordering:", "order:")), [3]);
    let planted = "fn a() {\n    let order = if bug(b) { Ordering::Relaxed } else { c };\n    // ordering: c.\n}\n";
    assert_eq!(unexplained_orderings(planted), []);
    assert_eq!(unexplained_orderings(&planted.replace("bug", "log")), [2]);
    let other = "fn b() {\n    x.store(1, Ordering::Release);\n}\n";
    assert_eq!(unexplained_orderings(&format!("{explained}{other}")), [6]);
}

#[test]
fn unsafe_code_is_justified() {
    expect_none(sources(), |_, text| unjustified_unsafe(text));
}

#[test]
fn unjustified_unsafe_code_is_refused() {
    assert_eq!(unjustified_unsafe("// SAFETY: a.\nlet b = unsafe { c() };\nunsafe fn d() {}\n"), []);
    assert_eq!(unjustified_unsafe("let b = unsafe { c() };\nunsafe impl Send for A {}\n"), [1, 2]);
    assert_eq!(unjustified_unsafe("// SAFETY: a.\n\n\n\n\n\n\n\n\nlet b = unsafe { c() };\n"), [10]);
}

#[test]
fn nothing_allocates_locks_formats_or_unwinds() {
    expect_none(sources(), |_, text| allocates_or_unwinds(text));
}

#[test]
fn allocation_lock_format_and_panic_are_refused() {
    let good =
        "//! vec![1].unwrap()\nlet a = \"panic!\";\nb.unwrap_or(c);\n#[cfg(test)]\nmod tests {\n    d.unwrap();\n}\n";
    assert_eq!(allocates_or_unwinds(good), []);
    for bad in ["a.unwrap()", "a.expect(b)", "panic!()", "vec![1]", "a: Vec<u8>", "Box::new(1)", "a: &Mutex<u8>"] {
        assert_eq!(allocates_or_unwinds(&format!("{good}let {bad};\n")), [8], "{bad}");
    }
}

#[test]
fn the_platform_is_named_in_sys_only() {
    expect_none(sources().into_iter().filter(|(path, _)| layer_of(path) != "sys"), |_, text| platform_names(text));
}

/// `config.rs` has sizes that depend on the processor, `sync` an order that some processors have unasked; the head of
/// `lib.rs` says where the standard library is needed.
#[test]
fn the_processor_is_named_where_it_matters_only() {
    let others =
        sources().into_iter().filter(|(path, _)| !["sys", "sync", "config", "lib"].contains(&&*layer_of(path)));
    expect_none(others, |_, text| processor_names(text));
}

#[test]
fn bodies_do_not_ask_for_the_target() {
    expect_none(sources(), |_, text| targets_in_bodies(text));
}

#[test]
fn platform_named_elsewhere_is_refused() {
    let good = "//! libc::mmap, asm!\nlet a = \"target_os\";\n#[cfg(target_pointer_width = \"64\")]\n";
    assert_eq!(platform_names(good), []);
    for bad in ["libc::getpid()", "core::arch::asm!(", "global_asm!(", "#[link_section = ", "#[cfg(target_os = "] {
        assert_eq!(platform_names(&format!("{good}{bad}\n")), [4], "{bad}");
    }
    assert_eq!(processor_names("// target_arch\n#[cfg(target_arch = \"x86_64\")]\n"), [2]);
    let item = "#[cfg(target_os = \"linux\")]\nfn a(\n    b: u8,\n) {\n    b;\n}\nconst C: u8 = cfg!(target_env);\n";
    assert_eq!(targets_in_bodies(item), []);
    assert_eq!(targets_in_bodies(&item.replace("    b;", "    #[cfg(target_os = \"linux\")]\n    b;")), [5]);
}

/// `heap/census.rs` has `check()`, whose purpose it is.
#[test]
fn assertions_are_made_by_the_compiler() {
    expect_none(sources().into_iter().filter(|(path, _)| !path.ends_with("heap/census.rs")), |_, text| {
        runtime_assertions(text)
    });
}

#[test]
fn runtime_assertion_is_refused() {
    assert_eq!(runtime_assertions("const _: () = assert!(A > 0);\nconst _: () = {\n    assert!(B);\n};\n"), []);
    assert_eq!(runtime_assertions("debug_assert!(a);\n#[cfg(test)]\nmod tests {\n    assert!(b);\n}\n"), []);
    assert_eq!(runtime_assertions("const A: u8 = 0;\nassert_eq!(a, b);\n"), [2]);
}

#[test]
fn files_are_short() {
    for path in files("src") {
        let count = fs::read_to_string(&path).unwrap().lines().count();
        assert!(count <= 500, "{}: {count} lines", path.display());
    }
}

#[test]
fn nothing_is_left_over() {
    let folders = ["src", "tests", "loom_tests", "benches", "examples"];
    let all = folders.iter().flat_map(|folder| files(folder));
    expect_none(all.map(|path| (path.clone(), fs::read_to_string(path).unwrap())), |_, text| leftovers(text));
}

#[test]
fn leftover_is_refused() {
    for mark in [concat!("// TO", "DO later"), concat!("// FIX", "ME"), concat!("#[", "ignore]")] {
        assert_eq!(leftovers(&format!("fn a() {{}}\n{mark}\n")), [2]);
    }
}
