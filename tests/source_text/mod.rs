//! Source text as rules need it: lines with code and comment apart, without what is for tests only.

use std::fs;
use std::path::{Path, PathBuf};

/// A line of source: what the compiler reads, without the contents of strings, and the comment behind or instead.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// What the compiler reads.
    pub code: String,
    /// The comment.
    pub comment: String,
}

/// All lines, `#[cfg(test)]` items left out.
pub fn lines(text: &str) -> Vec<Line> {
    let split = text.lines().enumerate().map(|(index, line)| split(index + 1, line)).collect();
    without_tests(split)
}

fn split(number: usize, line: &str) -> Line {
    let mut result = Line { number, ..Line::default() };
    let mut in_string = false;
    let mut rest = line;
    while let Some(char) = rest.chars().next() {
        if !in_string && rest.starts_with("//") {
            result.comment = rest.to_string();
            break;
        }
        // A quote as a character, and an escaped character in a string.
        let skip = if !in_string && rest.starts_with("'\"'") { 3 } else { 1 + usize::from(in_string && char == '\\') };
        in_string ^= skip == 1 && char == '"';
        if !in_string || char == '"' {
            result.code.push(char);
        }
        rest = rest.get(if skip == 1 { char.len_utf8() } else { skip }..).unwrap_or("");
    }
    result
}

/// Does `code` begin an item that is for tests only?
pub fn is_for_tests(code: &str) -> bool {
    let code = code.trim_start();
    code.starts_with("#[cfg(test") || code.starts_with("#[cfg(all(test")
}

/// Number of lines of the item that begins at the first line: up to its closing brace or semicolon.
pub fn item_length(lines: &[Line]) -> usize {
    let mut depth = 0_i32;
    for (index, line) in lines.iter().enumerate() {
        for char in line.code.chars() {
            depth += match char {
                '{' | '(' | '[' => 1,
                '}' | ')' | ']' => -1,
                _ => 0,
            };
            if depth == 0 && matches!(char, '}' | ';') {
                return index + 1;
            }
        }
    }
    lines.len()
}

fn without_tests(lines: Vec<Line>) -> Vec<Line> {
    let mut kept = Vec::new();
    let mut next = 0;
    while next < lines.len() {
        if is_for_tests(&lines[next].code) {
            next += item_length(&lines[next..]);
        } else {
            kept.push(lines[next].clone());
            next += 1;
        }
    }
    kept
}

/// Does `code` contain `name`, not as the end or the beginning of a longer name?
pub fn names(code: &str, name: &str) -> bool {
    let is_part = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
    let joined = |left: &str, right: &str| is_part(left.chars().last()) && is_part(right.chars().next());
    code.match_indices(name).any(|(at, _)| {
        let end = at + name.len();
        !joined(&code[..at], name) && !joined(name, &code[end..])
    })
}

/// Numbers of the lines for which `is_bad` holds; it is given the index and the code.
pub fn refused(lines: &[Line], is_bad: impl Fn(usize, &str) -> bool) -> Vec<usize> {
    let bad = lines.iter().enumerate().filter(|(index, line)| is_bad(*index, &line.code));
    bad.map(|(_, line)| line.number).collect()
}

/// The line `index` and those before it in the same function, at most `distance`; nearest first.
pub fn up(lines: &[Line], index: usize, distance: usize) -> impl Iterator<Item = &Line> {
    let mut inside = true;
    let before = lines[..=index].iter().rev().take(distance + 1);
    before.take_while(move |line| std::mem::replace(&mut inside, !names(&line.code, "fn")))
}

/// The lines behind line `index` in the same function, at most `distance`.
pub fn down(lines: &[Line], index: usize, distance: usize) -> impl Iterator<Item = &Line> {
    lines[index + 1..].iter().take(distance).take_while(|line| !names(&line.code, "fn"))
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `folder` of the repository.
pub fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}
