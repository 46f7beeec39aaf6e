//! Nothing is ever written into free memory: what a program left in its blocks is there until they are used again,
//! byte for byte. Read through the kernel, because a pointer to a freed block must not be followed.

use magalloc::Magalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Nothing is given back while the test looks at it.
static MAGALLOC: Magalloc = Magalloc::new().purge_delay_ms(u32::MAX).background_thread(false);

/// What the program leaves behind: bytes of one value.
#[derive(Clone, Copy)]
struct Remains {
    address: usize,
    size: usize,
    value: u8,
}

/// A block to be freed by whoever has it.
struct Block(*mut u8, Layout);

// SAFETY: a block is memory that whoever has it uses alone.
unsafe impl Send for Block {}

impl Block {
    fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        // SAFETY: the size is not 0.
        let start = unsafe { MAGALLOC.alloc(layout) };
        assert!(!start.is_null());
        Self(start, layout)
    }

    /// Fills it with a value that is not 0, so that purged memory would be noticed too.
    fn fill(&self) -> Remains {
        let address = self.0.addr();
        let value = (address >> 3) as u8 | 1;
        // SAFETY: the block has that many bytes.
        unsafe { self.0.write_bytes(value, self.1.size()) };
        Remains { address, size: self.1.size(), value }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: a live block of that layout.
        unsafe { MAGALLOC.dealloc(self.0, self.1) };
    }
}

fn verify(memory: &File, remains: &[Remains], when: &str) {
    let mut bytes = Vec::new();
    for block in remains {
        bytes.resize(block.size, 0);
        memory.read_exact_at(&mut bytes, block.address as u64).expect("free memory stays readable here");
        let written = bytes.iter().position(|&byte| byte != block.value);
        assert_eq!(written, None, "{when}: block of {} bytes at {:#x}", block.size, block.address);
    }
}

#[test]
fn nothing_is_written_into_free_blocks() {
    let memory = File::open("/proc/self/mem").expect("/proc is mounted");
    for size in [8, 16, 24, 64, 100, 640, 1024, 5000, 20_000, 32 << 10, 100_000, 3 << 20] {
        // Several slabs of each size, and little altogether.
        let count = ((2 << 20) / size).clamp(3, 20_000);
        let mut blocks: Vec<Block> = (0..count).map(|_| Block::new(size)).collect();
        let remains: Vec<Remains> = blocks.iter().map(Block::fill).collect();
        // A third by another thread; a third here, so that slabs are partial; the rest, so that slabs become free.
        let others = blocks.split_off(count - count / 3);
        std::thread::spawn(move || drop(others)).join().expect("frees do not panic");
        verify(&memory, &remains, "freed by another thread");
        let kept: Vec<Block> =
            blocks.into_iter().enumerate().filter_map(|(index, block)| (index % 2 == 0).then_some(block)).collect();
        verify(&memory, &remains, "freed in part");
        drop(kept);
        verify(&memory, &remains, "freed into the cache");
        magalloc::flush_thread();
        verify(&memory, &remains, "freed into slabs");
        // To be handed out again does not change a block either.
        drop([Block::new(size), Block::new(size)]);
        verify(&memory, &remains, "handed out again");
    }
}
