//! What `rayon_tree` asks, with the system's allocator.
//!
//! | group | question |
//! |---|---|
//! | `rayon_tree` | What does a node cost that a work-stealing pool allocates, and that any of its threads frees? |

mod common;
#[path = "common/tree.rs"]
mod tree;

#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

fn main() {
    let mut criterion = common::criterion();
    tree::bench(&mut criterion, "system");
    criterion.final_summary();
}
