//! A whole Rust program on magalloc: rayon's threads build and take down a tree together.
//!
//! | group | question |
//! |---|---|
//! | `rayon_tree` | What does a node cost that a work-stealing pool allocates, and that any of its threads frees? |
//!
//! A bench has one global allocator; `rayon_tree_system` is the same with the system's.

mod common;
#[path = "common/tree.rs"]
mod tree;

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

fn main() {
    let mut criterion = common::criterion();
    tree::bench(&mut criterion, "magalloc");
    criterion.final_summary();
}
