//! The engine's own thread pool: built at first use, replaced on request and in a forked child.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

struct Held {
    pool: Arc<ThreadPool>,
    /// A pool's threads do not exist in a forked child, so a pool serves only the process that built it.
    process: u32,
}

static POOL: Mutex<Option<Held>> = Mutex::new(None);

/// The pool, built at first use with `PSPC_NUM_THREADS` threads, or one per core.
pub fn pool() -> Result<Arc<ThreadPool>> {
    let mut held = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    match held.as_ref() {
        Some(current) if current.process == std::process::id() => Ok(current.pool.clone()),
        inherited => {
            let threads = inherited.map_or_else(default_threads, |held| Ok(held.pool.current_num_threads()));
            replace(&mut held, threads?)
        }
    }
}

/// Sets the number of threads of later calls; running calls keep theirs. Results do not depend on it.
pub fn set_num_threads(threads: usize) -> Result<()> {
    if threads == 0 {
        return Err(Error::Threads { threads, reason: "at least 1 is needed".to_owned() });
    }
    let mut held = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    replace(&mut held, threads).map(|_| ())
}

/// Number of threads a call uses.
pub fn num_threads() -> Result<usize> {
    pool().map(|pool| pool.current_num_threads())
}

fn replace(held: &mut Option<Held>, threads: usize) -> Result<Arc<ThreadPool>> {
    let built = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("pspc-{i}")).build();
    let pool = Arc::new(built.map_err(|e| Error::Threads { threads, reason: e.to_string() })?);
    let process = std::process::id();
    let old = held.replace(Held { pool: pool.clone(), process });
    // Dropping an inherited pool would wait for threads that were never copied into this process.
    if let Some(old) = old.filter(|old| old.process != process) {
        std::mem::forget(old);
    }
    Ok(pool)
}

fn default_threads() -> Result<usize> {
    let Ok(wanted) = std::env::var("PSPC_NUM_THREADS") else {
        return Ok(std::thread::available_parallelism().map_or(1, usize::from));
    };
    match wanted.parse() {
        Ok(threads) if threads > 0 => Ok(threads),
        _ => Err(Error::ThreadsVariable { value: wanted }),
    }
}
