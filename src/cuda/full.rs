//! The full window: energies are kept, one a probe and image, and the second pass is a weighted mean.

use super::arguments::{Candidates, arguments};
use super::batch::{Batch, Lists};
use super::call::Call;
use super::device::Source;
use super::driver::{Grid, Memory};
use super::pace::Pace;
use crate::error::Result;

/// Probes that share the pixels of an image, `TOGETHER` in `kernels/full.cu`.
const TOGETHER: usize = 8;

/// Bytes of device memory a query needs on top of [`Batch::bytes_per_query`].
pub(super) fn bytes_per_query(call: &Call<'_>) -> usize {
    call.views() * call.device_bank.len() * 4
}

/// Both passes.
pub(super) fn run(call: &Call<'_>, pace: &mut Pace<'_, '_>, batch: &Batch) -> Result<()> {
    let (bank, probes) = (call.device_bank, batch.probe_count());
    let (images, blocks) = (bank.len() as i32, probes.div_ceil(TOGETHER) as u32);
    let weights = Memory::new(&pace.stream, probes * bank.len() * 4, "energies")?;
    let steps = bank.steps(0..bank.shards(), call.images_a_step(probes));

    let kernel = call.kernel(Source::Full, "full_energies")?;
    for step in &steps {
        let tile = bank.on_device(call.bank, &pace.stream, step)?;
        let groups = (tile.images.count as usize).div_ceil(4);
        let warps = groups.min(8);
        let grid = Grid { blocks: [groups.div_ceil(warps) as u32, blocks, 1], threads: 32 * warps as u32, shared: 0 };
        let arguments: &[_] = arguments![&tile.images, &batch.probes, weights.at(), &images];
        // SAFETY: (1) there is an energy for every probe and image.
        unsafe { pace.launch(&kernel, grid, arguments)? };
        pace.step((tile.images.count as usize * probes) as u64)?;
    }

    let kernel = call.kernel(Source::Full, "full_weights")?;
    let list = batch.lists.as_ref().map_or(Candidates::NONE, Lists::arguments);
    let grid = Grid { blocks: [batch.queries as u32, 1, 1], threads: 256, shared: 0 };
    // SAFETY: (2) as above; lists have room for `limit` candidates a query.
    unsafe {
        pace.launch(&kernel, grid, arguments![&batch.probes, weights.at(), &images, &list])?;
    }
    batch.weigh_candidates(call, pace)?;

    let kernel = call.kernel(Source::Full, "full_means")?;
    let (probes_left, threads) = (batch.dense_probes(), bank.image_len().next_multiple_of(32).min(256));
    for step in &steps {
        let tile = bank.on_device(call.bank, &pace.stream, step)?;
        let grid = Grid {
            blocks: [bank.image_len().div_ceil(threads) as u32, step.len() as u32, blocks],
            threads: threads as u32,
            shared: 0,
        };
        let arguments: &[_] = arguments![&tile.images, &probes_left, weights.at(), &images, batch.partial.at()];
        // SAFETY: (3) as above; there is a sum for every probe, shard and pixel.
        unsafe { pace.launch(&kernel, grid, arguments)? };
        let work = if batch.form.sparse { 0 } else { tile.images.count as usize * probes };
        pace.step(work as u64)?;
    }
    Ok(())
}
