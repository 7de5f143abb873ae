//! The engine's own thread pool: built at first use, replaced on request and in a forked child.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Most threads: more than any machine has cores for, few enough to start.
pub const MAX_THREADS: usize = 1024;

/// The pool of one process, and those of the processes forked from it. A pool's threads do not exist in a forked child, and
/// its lock may have been held by a thread that does not exist there either, so a child never touches its parent's.
struct Process {
    id: u32,
    pool: Mutex<Option<Arc<ThreadPool>>>,
    forked: OnceLock<Box<Process>>,
}

impl Process {
    fn new() -> Self {
        Self { id: std::process::id(), pool: Mutex::new(None), forked: OnceLock::new() }
    }
}

static FIRST: OnceLock<Process> = OnceLock::new();

/// The entry of this process, and the number of threads of the process it was forked from, if that is known.
fn current() -> (&'static Process, Option<usize>) {
    let (id, mut inherited) = (std::process::id(), None);
    let mut process = FIRST.get_or_init(Process::new);
    while process.id != id {
        // A lock that is held tells nothing, and is not waited for.
        let parent = process.pool.try_lock().ok();
        inherited = parent.and_then(|pool| pool.as_ref().map(|pool| pool.current_num_threads())).or(inherited);
        process = process.forked.get_or_init(|| Box::new(Process::new()));
    }
    (process, inherited)
}

/// The pool, built at first use with `PSPC_NUM_THREADS` threads, or one per core.
pub fn pool() -> Result<Arc<ThreadPool>> {
    let (process, inherited) = current();
    let mut held = process.pool.lock().unwrap_or_else(PoisonError::into_inner);
    match held.as_ref() {
        Some(pool) => Ok(pool.clone()),
        None => replace(&mut held, inherited.map_or_else(default_threads, Ok)?),
    }
}

/// Sets the number of threads of later calls; running calls keep theirs. Results do not depend on it.
pub fn set_num_threads(threads: usize) -> Result<()> {
    if !(1..=MAX_THREADS).contains(&threads) {
        return Err(Error::Threads { threads, reason: format!("allowed are 1 to {MAX_THREADS}") });
    }
    let mut held = current().0.pool.lock().unwrap_or_else(PoisonError::into_inner);
    replace(&mut held, threads).map(|_| ())
}

/// Number of threads a call uses.
pub fn num_threads() -> Result<usize> {
    pool().map(|pool| pool.current_num_threads())
}

fn replace(held: &mut Option<Arc<ThreadPool>>, threads: usize) -> Result<Arc<ThreadPool>> {
    let built = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("pspc-{i}")).build();
    let pool = Arc::new(built.map_err(|e| Error::Threads { threads, reason: e.to_string() })?);
    *held = Some(pool.clone());
    Ok(pool)
}

fn default_threads() -> Result<usize> {
    let Ok(wanted) = std::env::var("PSPC_NUM_THREADS") else {
        return Ok(std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS));
    };
    match wanted.parse() {
        Ok(threads) if (1..=MAX_THREADS).contains(&threads) => Ok(threads),
        _ => Err(Error::ThreadsVariable { value: wanted, most: MAX_THREADS }),
    }
}
