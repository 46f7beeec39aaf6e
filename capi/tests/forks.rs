//! Forks of programs with threads: children can allocate and free at once, and have threads of their own.

mod common;

scenarios! { "forks.c":
    thousand_forks_among_threads_work
    forks_of_many_threads_at_once_work
    fork_at_first_call_works
    generations_of_forks_work
}
