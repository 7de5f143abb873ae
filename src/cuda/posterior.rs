//! `WindowPosteriors`: least energies and sums of weights per window, of every shard and of all shards together.

use std::ops::Range;

use super::batch::Batch;
use super::call::Call;
use super::context::Stream;
use super::layout::{Address, Normaliser, Probes, kernel_args};
use super::memory::Memory;
use super::module::Grid;
use super::queue::LaunchQueue;
use super::sources::{KernelSource, Precision};
use crate::error::Result;

/// The posteriors of a batch.
pub(super) struct WindowPosteriors {
    /// Least energies, `[probe][shard][window]`.
    pub(super) shard_least: Memory,
    /// Sums of weights relative to the least energy, `[probe][shard][window]`.
    pub(super) shard_sum: Memory,
    /// Least energies over shards and mirror images, `[probe][window]`.
    pub(super) least: Memory,
    /// Reciprocals of the sums of weights, `[probe][window]`.
    scale: Memory,
}

impl WindowPosteriors {
    pub(super) fn new(call: &Call<'_>, stream: &Stream, batch: &Batch) -> Result<Self> {
        let windows = batch.probe_count * call.components.count;
        let in_shards = windows * call.bank.shards();
        Ok(Self {
            // Those of float64 take the place of those of float32 once these are no longer needed.
            shard_least: Memory::new(stream, in_shards * Precision::Double.bytes(), "least energies")?,
            shard_sum: Memory::new(stream, in_shards * 4, "sums of weights")?,
            least: Memory::new(stream, windows * Precision::Double.bytes(), "least energies")?,
            scale: Memory::new(stream, windows * 4, "sums of weights")?,
        })
    }

    /// Bytes of device memory per query.
    pub(super) fn bytes_per_query(call: &Call<'_>) -> usize {
        call.mirrors() * (call.bank.shards() + 1) * call.components.count * 12
    }

    /// What pass 2 needs, once [`Self::merge`] has run.
    pub(super) fn normaliser(&self) -> Normaliser {
        Normaliser { least: self.least.address(), scale: self.scale.address() }
    }

    /// Merges the least energies and sums of all shards; those of float32 decide which queries need float64.
    pub(super) fn merge(
        &self,
        call: &Call<'_>,
        queue: &mut LaunchQueue<'_, '_>,
        batch: &Batch,
        precision: Precision,
    ) -> Result<()> {
        let kernel = match precision {
            Precision::Single => "merge_shards",
            Precision::Double => "merge_double_shards",
        };
        let sums = [&self.shard_sum, &self.scale].map(Memory::address);
        self.launch_merge(call, queue, kernel, &batch.dense_probes(), 0..call.bank.shards(), sums)
    }

    /// Merges the least energies of some shards.
    pub(super) fn merge_least(
        &self,
        call: &Call<'_>,
        queue: &mut LaunchQueue<'_, '_>,
        batch: &Batch,
        shards: Range<usize>,
    ) -> Result<()> {
        self.launch_merge(call, queue, "merge_shards", &batch.probes, shards, [0, 0])
    }

    fn launch_merge(
        &self,
        call: &Call<'_>,
        queue: &mut LaunchQueue<'_, '_>,
        kernel: &str,
        probes: &Probes,
        shards: Range<usize>,
        [shard_sum, scale]: [Address; 2],
    ) -> Result<()> {
        let kernel = call.kernel(KernelSource::Posterior, kernel)?;
        let (first, merged, all) = (shards.start as i32, shards.len() as i32, call.bank.shards() as i32);
        let (count, mirror_columns) = (call.components.count as i32, call.components.mirror_columns as i32);
        let grid = Grid {
            blocks: [call.components.count.div_ceil(128) as u32, probes.queries as u32, 1],
            threads: call.components.count.next_multiple_of(32).min(128) as u32,
            shared_bytes: 0,
        };
        let args: &[_] = kernel_args![
            probes,
            self.shard_least.address_ref(),
            &shard_sum,
            &first,
            &merged,
            &all,
            &count,
            &mirror_columns,
            self.least.address_ref(),
            &scale,
        ];
        // SAFETY: every array has room for all probes, shards and windows.
        unsafe { queue.launch(&kernel, grid, args) }
    }
}
