//! Context switches of this process's threads: whether it sleeps when it has nothing to do.

use std::fs;

/// What the allocator calls its own thread.
const ALLOCATORS_THREAD: &str = "magalloc";

/// How often each thread was switched away from so far, by its own will or not.
pub(crate) struct Switches(Vec<Thread>);

struct Thread {
    number: u32,
    is_allocators: bool,
    switches: u64,
}

/// Switches from one moment to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// Of the allocator's own thread, if there is one, or was.
    pub(crate) allocators: Option<u64>,
    /// Of all threads.
    pub(crate) all: u64,
}

impl Switches {
    /// The present state, or `None` where the system does not tell.
    pub(crate) fn now() -> Option<Self> {
        let folders = fs::read_dir("/proc/self/task").ok()?;
        let threads = folders.filter_map(|folder| {
            let folder = folder.ok()?;
            let number = folder.file_name().to_str()?.parse().ok()?;
            // A thread that has just ended has no status.
            Thread::new(number, &fs::read_to_string(folder.path().join("status")).ok()?)
        });
        Some(Self(threads.collect()))
    }

    /// What the threads have done since `earlier`. Of one that is gone only the last switch is known.
    pub(crate) fn since(&self, earlier: &Self) -> Count {
        let mut count = Count { allocators: None, all: 0 };
        let mut add = |thread: &Thread, switches| {
            count.all += switches;
            if thread.is_allocators {
                *count.allocators.get_or_insert(0) += switches;
            }
        };
        for thread in &self.0 {
            let before = earlier.find(thread.number).map_or(0, |before| before.switches);
            add(thread, thread.switches.saturating_sub(before));
        }
        for gone in earlier.0.iter().filter(|thread| self.find(thread.number).is_none()) {
            add(gone, 1);
        }
        count
    }

    fn find(&self, number: u32) -> Option<&Thread> {
        self.0.iter().find(|thread| thread.number == number)
    }
}

impl Thread {
    /// Thread `number`, of which `status` is the file of that name.
    fn new(number: u32, status: &str) -> Option<Self> {
        let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let voluntary: u64 = value("voluntary_ctxt_switches:")?.parse().ok()?;
        let involuntary: u64 = value("nonvoluntary_ctxt_switches:")?.parse().ok()?;
        let is_allocators = value("Name:")? == ALLOCATORS_THREAD;
        Some(Self { number, is_allocators, switches: voluntary + involuntary })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(number: u32, name: &str, voluntary: u64, involuntary: u64) -> Thread {
        let status = format!(
            "Name:\t{name}\nState:\tS (sleeping)\nvoluntary_ctxt_switches:\t{voluntary}\n\
             nonvoluntary_ctxt_switches:\t{involuntary}\n"
        );
        Thread::new(number, &status).expect("a whole status")
    }

    #[test]
    fn switches_are_counted_from_the_earlier_state_on() {
        let earlier =
            Switches(vec![thread(1, "magalloc-server", 10, 1), thread(2, "magalloc", 5, 5), thread(3, "other", 9, 9)]);
        let later = Switches(vec![thread(1, "magalloc-server", 12, 2), thread(2, "magalloc", 5, 6)]);
        assert_eq!(later.since(&earlier), Count { allocators: Some(1), all: 5 });
        assert_eq!(later.since(&later), Count { allocators: Some(0), all: 0 });
    }

    #[test]
    fn end_of_a_thread_is_a_switch() {
        let earlier = Switches(vec![thread(1, "magalloc-server", 10, 1), thread(2, "magalloc", 5, 5)]);
        let later = Switches(vec![thread(1, "magalloc-server", 10, 1)]);
        assert_eq!(later.since(&earlier), Count { allocators: Some(1), all: 1 });
    }

    #[test]
    fn new_thread_counts_with_all_that_it_did() {
        let earlier = Switches(vec![thread(1, "magalloc-server", 10, 1)]);
        let later = Switches(vec![thread(1, "magalloc-server", 10, 1), thread(2, "magalloc", 2, 0)]);
        assert_eq!(later.since(&earlier), Count { allocators: Some(2), all: 2 });
        assert_eq!(earlier.since(&earlier).allocators, None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn sleep_is_a_switch() {
        let before = Switches::now().expect("Linux tells");
        std::thread::sleep(std::time::Duration::from_millis(1));
        let after = Switches::now().expect("Linux tells");
        assert!(after.since(&before).all >= 1);
    }
}
