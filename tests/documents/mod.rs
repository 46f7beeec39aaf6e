//! Rules about the texts for readers: where their links lead, what they name, how long they are. Each is a function over
//! text, with a test that shows it a bad one.

use crate::source_text::root;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the links in a text of Markdown lead, but for those to other sites.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with('#')).collect()
}

/// Is the file in the crate's package? What the manifest excludes is not, nor what belongs to another package.
fn is_packaged(manifest: &str, file: &Path) -> bool {
    let list = manifest.lines().find_map(|line| line.strip_prefix("exclude = [")?.strip_suffix(']')).expect("a list");
    let mut excluded = list.split(',').map(|name| name.trim().trim_matches('"'));
    let mut folders = file.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    !excluded.any(|name| file.starts_with(name))
        && !folders.any(|folder| root().join(folder).join("Cargo.toml").exists())
}

/// The texts for readers: those at the root, the pages, and what the models are.
fn documents() -> Vec<PathBuf> {
    let all = |folder: &str| fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let texts = all("")
        .chain(all("docs"))
        .chain(all("loom_tests"))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    texts.map(|path| path.strip_prefix(root()).unwrap().to_path_buf()).collect()
}

/// The file that a link in `text` leads to, as a path from the root.
fn target(text: &Path, link: &str) -> PathBuf {
    let mut file = text.parent().unwrap().to_path_buf();
    for part in Path::new(link.split('#').next().unwrap()) {
        if part == ".." { assert!(file.pop(), "{}: {link}", text.display()) } else { file.push(part) }
    }
    file
}

#[test]
fn links_lead_to_what_the_package_has() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for path in documents() {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        assert_eq!(missing_headings(&text, "", &text), [] as [&str; 0], "{}", path.display());
        for link in links(&text) {
            let file = target(&path, link);
            let name = path.display();
            assert!(root().join(&file).exists() && is_packaged(&manifest, &file), "{name} leads to {link}");
            if let Some((elsewhere, _)) = link.split_once('#') {
                let other = fs::read_to_string(root().join(&file)).unwrap();
                assert_eq!(missing_headings(&text, elsewhere, &other), [] as [&str; 0], "{name}: {link}");
            }
        }
    }
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let contents = Path::new("docs/README.md");
    let text = fs::read_to_string(root().join(contents)).unwrap();
    let listed: Vec<PathBuf> = links(&text).into_iter().map(|link| target(contents, link)).collect();
    for page in documents() {
        assert!(page == contents || listed.contains(&page), "{} does not list {}", contents.display(), page.display());
    }
}

#[test]
fn readme_is_short() {
    let words = fs::read_to_string(root().join("README.md")).unwrap().split_whitespace().count();
    assert!(words <= 1200, "README.md is read in three minutes: {words} words; the rest goes to docs/");
}

/// Names of options and figures that have no row of their own in `text`.
fn without_row(text: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    names.filter(|name| !text.lines().any(|line| line.starts_with(&format!("| `{name}` |")))).collect()
}

#[test]
fn every_option_and_figure_is_explained() {
    let text = fs::read_to_string(root().join("docs/tuning.md")).unwrap();
    let options = magalloc::OPTION_TABLE.iter().map(|option| option.name.to_lowercase());
    assert_eq!(without_row(&text, options), [] as [&str; 0]);
    let source = fs::read_to_string(root().join("src/heap/stats.rs")).unwrap();
    let fields = source.split_once("pub struct Stats {").unwrap().1.split_once("\n}").unwrap().0;
    let fields = fields.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    assert_eq!(without_row(&text, fields.map(|(name, _)| name.to_string())), [] as [&str; 0]);
}

#[test]
fn unexplained_option_is_refused() {
    let names = || ["a", "b", "c"].map(str::to_string).into_iter();
    assert_eq!(without_row("| `a` | x |\n`b` | y |\n| `c`, `d` |\n", names()), ["b", "c"]);
}

#[test]
fn link_from_a_page_is_seen_from_there() {
    let page = Path::new("docs/a.md");
    assert_eq!(target(page, "b.svg#c"), Path::new("docs/b.svg"));
    assert_eq!(target(page, "../d/e.md"), Path::new("d/e.md"));
    assert_eq!(target(Path::new("f.md"), "docs/g.md"), Path::new("docs/g.md"));
}

#[test]
fn link_out_of_the_package_is_refused() {
    assert_eq!(links("[a](b.md) [c](https://d) ![e](f.svg#g) [h](#i)"), ["b.md", "f.svg#g"]);
    let manifest = "exclude = [\".ci\", \"ci\"]\n";
    assert!(is_packaged(manifest, Path::new("docs/overview.svg")));
    assert!(!is_packaged(manifest, Path::new("ci/asm.sh")));
    // Not there where this is the unpacked package itself.
    let other = Path::new("capi/README.md");
    assert!(!root().join(other).exists() || !is_packaged(manifest, other));
}

/// What a text of Markdown has outside of its blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").step_by(2)
}

/// Headings that a text of Markdown links to and does not have. `elsewhere` is the start of such a link from another text.
fn missing_headings<'a>(links_of: &'a str, elsewhere: &str, text: &str) -> Vec<&'a str> {
    let anchor = |heading: &str| -> String {
        let kept = heading.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
        kept.map(|char| if char == ' ' { '-' } else { char.to_ascii_lowercase() }).collect()
    };
    let lines = prose(text).flat_map(str::lines);
    let headings: Vec<String> =
        lines.filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#').trim())).collect();
    let start = format!("]({elsewhere}#");
    let targets = links_of.split(&start).skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !headings.iter().any(|heading| heading == target)).collect()
}

/// Paths of modules, as `depot/slabs` or `purge::warm`, and of files that a text of Markdown names in code font, and that are
/// not there. The last part of a path of modules may be an item. What the package may not have is passed over.
fn missing_paths(text: &str) -> Vec<&str> {
    let is_there = |word: &str| {
        let path = PathBuf::from(word.replace("::", "/"));
        let module = Path::new("src").join(&path);
        let item_of = module.parent().filter(|_| word.contains("::"));
        let item_files = item_of.into_iter().flat_map(|parent| [parent.with_extension("rs"), parent.join("mod.rs")]);
        let mut all = [module.with_extension("rs"), module.clone(), path].into_iter().chain(item_files);
        all.any(|path| root().join(path).exists())
    };
    let is_path = |word: &str| {
        let is_plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "_-./:".contains(char);
        let first = word.split(['/', ':']).next().unwrap();
        let is_elsewhere = ["", ".ci", "ci", "capi", "cli", "benches", "examples", "magalloc"].contains(&first);
        (word.contains('/') || word.contains("::")) && word.chars().all(is_plain) && !is_elsewhere
    };
    let words = prose(text).flat_map(|part| part.split('`').skip(1).step_by(2));
    words.filter(|word| is_path(word) && !is_there(word)).collect()
}

#[test]
fn documents_name_what_is_there() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (tour, decisions) = (read("ARCHITECTURE.md"), read("docs/decisions.md"));
    for text in [&tour, &decisions, &read("loom_tests/README.md"), &read("docs/porting.md")] {
        assert_eq!(missing_paths(text), [] as [&str; 0]);
    }
    let words = tour.split_whitespace().count();
    assert!(words <= 4000, "ARCHITECTURE.md is a tour: {words} words; reasons and figures go to docs/decisions.md");
}

#[test]
fn names_of_what_is_not_there_are_refused() {
    let good =
        "`sys/` `slab::marks` `slab/marks` `slab::marks::x` `src/lib.rs` `ci/y` `A::b` `/z`\n```\n`slab/z`\n```\n";
    assert_eq!(missing_paths(good), [] as [&str; 0]);
    let bad = "`slab/mark` `slab::mark::x` `src/lib` `other::marks`";
    assert_eq!(missing_paths(bad), ["slab/mark", "slab::mark::x", "src/lib", "other::marks"]);
    let text = "## A thread's end, fork\n[a](#a-threads-end-fork) [b](#b) [c](other.md#c)\n```\n## b\n```\n";
    assert_eq!(missing_headings(text, "", text), ["b"]);
    assert_eq!(missing_headings(text, "other.md", "# C\n"), [] as [&str; 0]);
    assert_eq!(missing_headings(text, "other.md", "# D\n"), ["c"]);
}
