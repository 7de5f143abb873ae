//! The full route, where the only window is the full image: energies are kept, one per probe and image, and pass 2 is a
//! weighted mean.

use super::batch::Batch;
use super::call::Call;
use super::candidates::DeviceCandidates;
use super::layout::{CandidateLists, kernel_args};
use super::memory::Memory;
use super::module::Grid;
use super::queue::LaunchQueue;
use super::sources::KernelSource;
use super::sparse;
use crate::error::Result;

/// Probes that share the pixels of an image; as in `kernels/full.cu`.
const PROBE_PANEL: usize = 8;

/// Threads per block that normalise the weights of a query; as in `kernels/full.cu`.
const WEIGHT_THREADS: u32 = 256;

/// Bytes of device memory per query.
pub(super) fn bytes_per_query(call: &Call<'_>) -> usize {
    call.mirrors() * call.bank.len() * 4
}

/// Both passes; in the sparse regime the listed candidates are weighed between them.
pub(super) fn run(call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>, batch: &Batch) -> Result<()> {
    // Energies, `[probe][image]`, then weights.
    let weights = Memory::new(&queue.stream, batch.probe_count * call.bank.len() * 4, "energies")?;
    energies(call, queue, batch, &weights)?;
    normalise(call, queue, batch, &weights)?;
    if let Some(candidates) = &batch.candidates {
        sparse::weigh(call, queue, batch, candidates)?;
    }
    means(call, queue, batch, &weights)
}

fn panels(batch: &Batch) -> u32 {
    batch.probe_count.div_ceil(PROBE_PANEL) as u32
}

/// Pass 1: the energy of every probe and image.
fn energies(call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>, batch: &Batch, energies: &Memory) -> Result<()> {
    let kernel = call.kernel(KernelSource::Full, "full_energies")?;
    let all_images = call.bank.len() as i32;
    let steps = call.steps(0..call.bank.shards(), batch.probe_count);
    call.for_each_step(queue, &steps, Some(batch.probe_count), |queue, images, _| {
        let groups = (images.count as usize).div_ceil(4);
        let warps = groups.min(8);
        let blocks = [groups.div_ceil(warps) as u32, panels(batch), 1];
        let grid = Grid { blocks, threads: 32 * warps as u32, shared_bytes: 0 };
        let args: &[_] = kernel_args![images, &batch.probes, energies.address_ref(), &all_images];
        // SAFETY: there is an energy for every probe and image.
        unsafe { queue.launch(&kernel, grid, args) }
    })
}

/// Turns energies into weights in place; in the sparse regime lists candidates first.
fn normalise(call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>, batch: &Batch, weights: &Memory) -> Result<()> {
    let kernel = call.kernel(KernelSource::Full, "full_weights")?;
    let all_images = call.bank.len() as i32;
    let lists = batch.candidates.as_ref().map_or(CandidateLists::NONE, DeviceCandidates::lists);
    let grid = Grid { blocks: [batch.queries as u32, 1, 1], threads: WEIGHT_THREADS, shared_bytes: 0 };
    let args: &[_] = kernel_args![&batch.probes, weights.address_ref(), &all_images, &lists];
    // SAFETY: there is an energy for every probe and image; the lists have room for `limit` candidates per query.
    unsafe { queue.launch(&kernel, grid, args) }
}

/// Pass 2: the weighted sums of the images of every shard.
fn means(call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>, batch: &Batch, weights: &Memory) -> Result<()> {
    let kernel = call.kernel(KernelSource::Full, "full_means")?;
    let (all_images, image_len) = (call.bank.len() as i32, call.bank.image_len());
    let (probes, threads) = (batch.dense_probes(), image_len.next_multiple_of(32).min(256));
    let steps = call.steps(0..call.bank.shards(), batch.probe_count);
    // The sums over candidates have counted the work of the sparse regime.
    let work_per_image = if batch.regime.sparse { 0 } else { batch.probe_count };
    call.for_each_step(queue, &steps, Some(work_per_image), |queue, images, step| {
        let blocks = [image_len.div_ceil(threads) as u32, step.len() as u32, panels(batch)];
        let grid = Grid { blocks, threads: threads as u32, shared_bytes: 0 };
        let sums = batch.shard_sums.address_ref();
        let args: &[_] = kernel_args![images, &probes, weights.address_ref(), &all_images, sums];
        // SAFETY: there is a weight for every probe and image, and a sum for every probe, shard and pixel.
        unsafe { queue.launch(&kernel, grid, args) }
    })
}

#[cfg(test)]
mod tests {
    use super::{PROBE_PANEL, WEIGHT_THREADS};

    #[test]
    fn constants_are_those_of_the_kernels() {
        let kernels = include_str!("kernels/full.cu");
        assert!(kernels.contains(&format!("#define PROBE_PANEL {PROBE_PANEL}\n")));
        assert!(kernels.contains(&format!("#define WEIGHT_THREADS {WEIGHT_THREADS}\n")));
    }
}
