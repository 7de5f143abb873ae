//! `LaunchQueue`: queues kernels, tells the monitor how far the device has got, and never lets the queue run far ahead, so
//! that Ctrl-C still stops a long call. A short call never waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::context::{Event, Stream};
use super::layout::KernelArg;
use super::module::{Grid, Kernel, launch};
use crate::error::Result;
use crate::monitor::Monitor;

/// Steps that may be queued beyond the one that runs; a step takes the device some tenths of a second at most.
const MAX_QUEUED_STEPS: usize = 2;

/// How often the device is asked whether a step is done.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// How often the monitor is asked while the device works.
const MONITOR_INTERVAL: Duration = Duration::from_millis(50);

/// A call's queue of kernels.
pub(super) struct LaunchQueue<'m, 'a> {
    pub(super) stream: Stream,
    monitor: &'m mut Monitor<'a>,
    /// Names of the kernels queued since the last step ended.
    kernels: Vec<String>,
    steps: VecDeque<Step>,
    /// Work of the steps queued, of those done, and of the whole call.
    queued: u64,
    done: u64,
    total: u64,
    /// Whether to wait for every kernel, so that an error names the one that met it.
    waits_for_each: bool,
}

/// Kernels between two events of the stream.
struct Step {
    end: Event,
    kernels: String,
    /// Work done once the device has reached the end.
    done: u64,
}

impl<'m, 'a> LaunchQueue<'m, 'a> {
    /// A queue for `total` work on a stream. With `PSPC_CUDA_CHECK=1` in the environment every kernel is waited for.
    pub(super) fn new(stream: Stream, total: u64, monitor: &'m mut Monitor<'a>) -> Self {
        let waits_for_each = std::env::var_os("PSPC_CUDA_CHECK").is_some_and(|value| value == "1");
        let (kernels, steps) = (Vec::new(), VecDeque::new());
        Self { stream, monitor, kernels, steps, queued: 0, done: 0, total, waits_for_each }
    }

    /// Queues a kernel.
    ///
    /// # Safety
    /// As for [`launch`].
    pub(super) unsafe fn launch(&mut self, kernel: &Kernel, grid: Grid, args: &[KernelArg<'_>]) -> Result<()> {
        // SAFETY: by the caller's promise.
        unsafe { launch(kernel, grid, &self.stream, args)? };
        if self.waits_for_each {
            self.stream.synchronize(&format!("kernel {}", kernel.name))?;
        }
        if self.kernels.last() != Some(&kernel.name) {
            self.kernels.push(kernel.name.clone());
        }
        Ok(())
    }

    /// Ends a step that does `work`, and waits if the device is too far behind.
    pub(super) fn end_step(&mut self, work: usize) -> Result<()> {
        self.queued += work as u64;
        let kernels = format!("kernel {}", std::mem::take(&mut self.kernels).join(" or "));
        self.steps.push_back(Step { end: self.stream.record_event()?, kernels, done: self.queued });
        while self.steps.len() > MAX_QUEUED_STEPS {
            self.wait_for_first_step()?;
        }
        Ok(())
    }

    /// Waits for all steps.
    pub(super) fn wait(&mut self) -> Result<()> {
        while !self.steps.is_empty() {
            self.wait_for_first_step()?;
        }
        Ok(())
    }

    /// Tells the monitor that all work is done, or at least queued.
    pub(super) fn finish(self) -> Result<()> {
        (self.monitor)(self.total, self.total)
    }

    fn wait_for_first_step(&mut self) -> Result<()> {
        let mut asked = Instant::now();
        while let Some(first) = self.steps.front() {
            if first.end.is_reached(&first.kernels)? {
                self.done = first.done;
                self.steps.pop_front();
                return (self.monitor)(self.done.min(self.total), self.total);
            }
            if asked.elapsed() > MONITOR_INTERVAL {
                (self.monitor)(self.done.min(self.total), self.total)?;
                asked = Instant::now();
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}
