//! An interpreter of a small language: parses a program, walks its tree with values, environments and closures on the heap.

use super::text::{mix_bytes, word};
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;
use language::Program;
use std::fmt::Write;

mod language;

/// Parses and runs generated programs of a small functional language.
pub const INTERPRETER: Workload = Workload {
    name: "interpreter",
    stands_for: "parses and runs small programs, with reference-counted lists, strings and closures: a scripting language",
    operations: "programs",
    threads_per_core: 0,
    shown: Shown::Row,
    run,
};

/// Programs at full length.
const PROGRAMS: usize = 350;
/// Generated functions of a program, each of which may call the one before it.
const FUNCTIONS: usize = 6;

/// What the generated part of each program builds on.
const PRELUDE: &str = "
(define range (from to) (if (< from to) (cons from (range (+ from 1) to)) nil))
(define map (f xs) (if (empty xs) nil (cons (f (head xs)) (map f (tail xs)))))
(define filter (f xs) (if (empty xs) nil
    (if (f (head xs)) (cons (head xs) (filter f (tail xs))) (filter f (tail xs)))))
(define fold (f sum xs) (if (empty xs) sum (fold f (f sum (head xs)) (tail xs))))
(define append (xs ys) (if (empty xs) ys (cons (head xs) (append (tail xs) ys))))
(define sort (xs) (if (empty xs) nil (let pivot (head xs) (append
    (sort (filter (fn (x) (< x pivot)) (tail xs)))
    (cons pivot (sort (filter (fn (x) (if (< x pivot) 0 1)) (tail xs))))))))
(define join (xs) (fold (fn (text x) (concat text (concat (text x) \", \"))) \"\" xs))
(define fib (n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2)))))
(define compose (f g) (fn (x) (f (g x))))
";

fn run(parameters: &Parameters) -> Outcome {
    let programs = parameters.scaled(PROGRAMS);
    let mut random = Random::new(parameters.seed);
    let mut checksum = 0;
    for _ in 0..programs {
        let text = generate(&mut random);
        let value = Program::parse(&text).run();
        checksum = mix_bytes(checksum, value.text().as_bytes());
    }
    Outcome::new(programs as u64, checksum)
}

/// A program. All are well typed and end.
fn generate(random: &mut Random) -> String {
    let mut text = String::from(PRELUDE);
    for index in 0..FUNCTIONS {
        let called = index.checked_sub(1);
        let body = format!("(+ {} {})", number(random, 4, called), number(random, 3, None));
        let list = list(random, 2);
        writeln!(text, "(define f{index} (a b xs s) (let ys {list} (if (empty ys) (length s) {body})))").expect("text");
    }
    let last = FUNCTIONS - 1;
    let numbers: Vec<String> = (0..24).map(|_| random.below(1000).to_string()).collect();
    let numbers = numbers.iter().fold("nil".to_owned(), |list, number| format!("(cons {number} {list})"));
    writeln!(
        text,
        "(let sorted (sort {numbers}) (concat (join sorted) (concat (text (fib 9)) (join (map (compose
            (fn (x) (f{last} x 3 sorted \"{}\")) (fn (x) (* x x))) (range 0 6))))))",
        word(random)
    )
    .expect("a string takes everything");
    text
}

/// An expression that is a number, within a function of `a`, `b`, `xs`, `s`, which may call another one.
fn number(random: &mut Random, depth: usize, called: Option<usize>) -> String {
    if depth == 0 {
        return match random.below(3) {
            0 => "a".to_owned(),
            1 => "b".to_owned(),
            _ => random.below(100).to_string(),
        };
    }
    let depth = depth - 1;
    let one = number(random, depth, None);
    match (random.below(6), called) {
        (0, Some(function)) => format!("(f{function} {one} b (tail (cons 1 xs)) {})", string(random, 2)),
        (0 | 1, _) => format!("(length {})", string(random, 3)),
        (2, _) => format!("(let a {one} {})", number(random, depth, called)),
        (3, _) => format!("(if (< {one} {}) {} b)", number(random, depth, None), number(random, depth, called)),
        (4, _) => format!("(fold (fn (x y) (+ x (* y {one}))) 0 {})", list(random, 2)),
        _ => format!("({} {one} {})", ["+", "-", "*"][random.below(3)], number(random, depth, called)),
    }
}

fn list(random: &mut Random, depth: usize) -> String {
    match random.below(if depth == 0 { 2 } else { 5 }) {
        0 => "xs".to_owned(),
        1 => format!("(range 0 {})", random.between(1, 9)),
        2 => format!("(map (fn (x) (+ x {})) {})", number(random, 1, None), list(random, depth - 1)),
        3 => format!("(filter (fn (x) (< x {})) {})", number(random, 0, None), list(random, depth - 1)),
        _ => format!("(append {} {})", list(random, depth - 1), list(random, depth - 1)),
    }
}

fn string(random: &mut Random, depth: usize) -> String {
    match random.below(if depth == 0 { 2 } else { 4 }) {
        0 => "s".to_owned(),
        1 => format!("\"{}\"", word(random)),
        2 => format!("(text {})", number(random, 1, None)),
        _ => format!("(concat {} {})", string(random, depth - 1), string(random, depth - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::{INTERPRETER, PRELUDE, Program};
    use crate::workloads::Parameters;

    fn text_of(program: &str) -> String {
        Program::parse(&format!("{PRELUDE} {program}")).run().text()
    }

    #[test]
    fn known_values() {
        assert_eq!(text_of("(fib 15)"), "610");
        assert_eq!(text_of("(fold (fn (sum x) (+ sum x)) 0 (map (fn (x) (* x x)) (range 0 10)))"), "285");
        assert_eq!(text_of("(join (sort (cons 3 (cons -1 (cons 2 nil)))))"), "-1, 2, 3, ");
        assert_eq!(text_of("(length (concat \"a b\" (text 12)))"), "5");
        // A closure sees the scope that it was made in.
        assert_eq!(text_of("(let x 2 (let f (fn (y) (* x y)) (let x 100 ((compose f f) 5))))"), "20");
    }

    #[test]
    fn same_checksum_twice() {
        let run = |scale, threads, seed| (INTERPRETER.run)(&Parameters { scale, threads, seed });
        let first = run(0.02, 1, 3);
        assert_eq!(first.operations, 7);
        assert_eq!(run(0.02, 5, 3).checksum, first.checksum);
        assert_ne!(run(0.02, 1, 4).checksum, first.checksum);
        assert_eq!(run(0.0, 1, 3).operations, 1);
    }
}
