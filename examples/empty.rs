//! An empty program on magalloc: prints how many KiB are resident in it. `ci/resident.sh` compares it with
//! `empty_system`.

#[path = "common/resident.rs"]
mod resident;

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

fn main() -> std::io::Result<()> {
    // The least that makes it a program that allocates.
    let block = std::hint::black_box(Box::new(0_u64));
    let kib = resident::kib()?;
    drop(block);
    println!("{kib}");
    Ok(())
}
