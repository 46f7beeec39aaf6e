//! Prints the allocator's metrics after a little work: for `ci/metrics.sh`.

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

fn main() {
    let blocks: Vec<Vec<u8>> = (0..1000).map(|number| vec![1; number * 60]).collect();
    print!("{}", magalloc::stats().metrics(&magalloc::class_stats()));
    drop(blocks);
}
