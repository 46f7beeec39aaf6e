//! An empty program on the system's allocator: prints how many KiB are resident in it. `ci/resident.sh` compares it
//! with `empty`.

#[path = "common/resident.rs"]
mod resident;

#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

fn main() -> std::io::Result<()> {
    // The least that makes it a program that allocates.
    let block = std::hint::black_box(Box::new(0_u64));
    let kib = resident::kib()?;
    drop(block);
    println!("{kib}");
    Ok(())
}
