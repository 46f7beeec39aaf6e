//! What children inherit: with `MAGALLOC_CHILDREN=0`, neither the library nor its options.

use common::{Mode, compile, compile_shared, run, shared_library};

mod common;

/// Lines of `inherits.c` with this LD_PRELOAD (`LIB` is the library, `OTHER` another), and these options.
fn inherited(preload: &str, options: &[(&str, &str)]) -> Vec<String> {
    let other = compile_shared("early.c", "early", &[]).display().to_string();
    let library = shared_library().display().to_string();
    let mut command = compile("inherits.c", Mode::Without).command();
    command.env_clear().envs([("OTHER", "stays"), ("PATH", "/bin:/usr/bin")]).envs(options.iter().copied());
    command.env("LD_PRELOAD", preload.replace("OTHER", &other).replace("LIB", &library));
    let outcome = run(&mut command);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let short = outcome.stdout.replace(&other, "OTHER").replace(&library, "LIB");
    let mut lines: Vec<_> = short.lines().map(str::to_string).collect();
    lines.sort();
    lines
}

const NO_CHILDREN: (&str, &str) = ("MAGALLOC_CHILDREN", "0");

#[test]
fn children_inherit_unless_told_otherwise() {
    let all = [
        "child LD_PRELOAD=LIB",
        "child MAGALLOC_FOREIGN=ignore",
        "child OTHER=stays",
        "child has the library",
        "program LD_PRELOAD=LIB",
        "program MAGALLOC_FOREIGN=ignore",
        "program OTHER=stays",
        "program has the library",
    ];
    assert_eq!(inherited("LIB", &[("MAGALLOC_FOREIGN", "ignore")]), all);
}

#[test]
fn nothing_is_left_for_children() {
    let options = [NO_CHILDREN, ("MAGALLOC_FOREIGN", "ignore"), ("MAGALLOC_LIB", "/x")];
    let left = ["child OTHER=stays", "child is without", "program OTHER=stays", "program has the library"];
    assert_eq!(inherited("LIB", &options), left);
    for preload in [":LIB", "LIB:", " LIB ", "LIB:LIB"] {
        assert_eq!(inherited(preload, &options), left, "{preload:?}");
    }
}

#[test]
fn other_libraries_are_left_for_children() {
    for preload in ["LIB:OTHER", "OTHER:LIB", "OTHER LIB", "LIB OTHER LIB"] {
        let left = [
            "child LD_PRELOAD=OTHER",
            "child OTHER=stays",
            "child is without",
            "program LD_PRELOAD=OTHER",
            "program OTHER=stays",
            "program has the library",
        ];
        assert_eq!(inherited(preload, &[NO_CHILDREN]), left, "{preload:?}");
    }
}

#[test]
fn linked_program_takes_its_options_out_of_the_environment() {
    for mode in [Mode::Dynamic, Mode::Static] {
        let mut command = compile("inherits.c", mode).command();
        command.env_clear().env("OTHER", "stays").env(NO_CHILDREN.0, NO_CHILDREN.1);
        let outcome = run(&mut command);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{mode:?} {outcome:?}");
        assert!(!outcome.stdout.contains("MAGALLOC_"), "{mode:?} {outcome:?}");
        assert_eq!(outcome.stdout.matches("OTHER=stays\n").count(), 2, "{mode:?} {outcome:?}");
    }
}

#[test]
fn options_hold_although_they_are_left_out() {
    let mut command = compile("options.c", Mode::Preloaded).command();
    command.env(NO_CHILDREN.0, NO_CHILDREN.1).env("MAGALLOC_HARD_LIMIT", "64M").arg("hard_limit_refuses");
    run(&mut command).expect(0, "", "");
}
