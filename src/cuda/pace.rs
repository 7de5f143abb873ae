//! `Pace`: queues kernels, tells the monitor how far the device has got, and never lets the queue run far ahead, so that
//! Ctrl-C still stops a long call. A short call never waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::arguments::Lent;
use super::driver::{Grid, Kernel, Mark, Stream, launch};
use crate::composite::Monitor;
use crate::error::Result;

/// Steps that may be queued beyond the one that runs; a step takes the device some tenths of a second at most.
const AHEAD: usize = 2;

/// How often a queue is looked at, and how often the monitor is asked meanwhile.
const LOOK: Duration = Duration::from_micros(200);
const ASK: Duration = Duration::from_millis(50);

/// A call's queue of kernels.
pub(super) struct Pace<'m, 'a> {
    pub(super) stream: Stream,
    monitor: &'m mut Monitor<'a>,
    /// Kernels queued since the last mark.
    kernels: Vec<String>,
    steps: VecDeque<Step>,
    queued: u64,
    done: u64,
    total: u64,
    /// Whether to wait for every kernel, so that an error names the one that met it.
    careful: bool,
}

/// Kernels between two marks, and the work done when they are.
struct Step {
    mark: Mark,
    kernels: String,
    done: u64,
}

impl<'m, 'a> Pace<'m, 'a> {
    /// Ready to do `total` work on a stream. With `PSPC_CUDA_CHECK=1` in the environment every kernel is waited for.
    pub(super) fn new(stream: Stream, total: u64, monitor: &'m mut Monitor<'a>) -> Self {
        let careful = std::env::var_os("PSPC_CUDA_CHECK").is_some_and(|value| value == "1");
        let (kernels, steps) = (Vec::new(), VecDeque::new());
        Self { stream, monitor, kernels, steps, queued: 0, done: 0, total, careful }
    }

    /// Queues a kernel.
    ///
    /// # Safety
    /// As for [`launch`].
    pub(super) unsafe fn launch(&mut self, kernel: &Kernel, grid: Grid, arguments: &[Lent<'_>]) -> Result<()> {
        // SAFETY: (1) by the caller's promise.
        unsafe { launch(kernel, grid, &self.stream, arguments)? };
        if self.careful {
            self.stream.synchronize(&format!("kernel {}", kernel.name))?;
        }
        if self.kernels.last() != Some(&kernel.name) {
            self.kernels.push(kernel.name.clone());
        }
        Ok(())
    }

    /// Ends a step after which `work` more is done, and waits if the device is too far behind.
    pub(super) fn step(&mut self, work: u64) -> Result<()> {
        self.queued += work;
        let kernels = format!("kernel {}", std::mem::take(&mut self.kernels).join(" or "));
        self.steps.push_back(Step { mark: self.stream.mark()?, kernels, done: self.queued });
        while self.steps.len() > AHEAD {
            self.wait_for_first()?;
        }
        Ok(())
    }

    /// Waits for everything.
    pub(super) fn wait(&mut self) -> Result<()> {
        while !self.steps.is_empty() {
            self.wait_for_first()?;
        }
        Ok(())
    }

    /// Tells the monitor that all is done, or at least queued.
    pub(super) fn end(self) -> Result<()> {
        (self.monitor)(self.total, self.total)
    }

    fn wait_for_first(&mut self) -> Result<()> {
        let mut asked = Instant::now();
        while let Some(first) = self.steps.front() {
            if first.mark.reached(&first.kernels)? {
                self.done = first.done;
                self.steps.pop_front();
                return (self.monitor)(self.done.min(self.total), self.total);
            }
            if asked.elapsed() > ASK {
                (self.monitor)(self.done.min(self.total), self.total)?;
                asked = Instant::now();
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}
