//! The full route, where the only window is the full image: energies are kept, one per probe and image, and pass 2 is a
//! weighted mean. Where float32 has too few digits, the energies of the images that may carry weight are replaced by what they
//! are above that of the best image, in float64.

use super::batch::Batch;
use super::call::Call;
use super::candidates::DeviceCandidates;
use super::layout::{CandidateLists, kernel_args};
use super::memory::Memory;
use super::module::Grid;
use super::queue::LaunchQueue;
use super::sources::{KernelSource, Precision};
use super::sparse;
use crate::error::Result;

/// Probes that share the pixels of an image; as in `kernels/full.cu`.
const PROBE_PANEL: usize = 8;

/// Threads per block that see all energies of a query; as in `kernels/full.cu`.
const WEIGHT_THREADS: u32 = 256;

/// Bytes of a `BestImage` of `kernels/full.cu`.
const BEST_IMAGE_BYTES: usize = 8;

/// Most blocks that share the images of a step, per probe, when energies are refined.
const MAX_REFINING_BLOCKS: usize = 64;

/// How often energies are refined again, from the best image that the refinement before has found. Where a value of z is far
/// from all data, float32 does not find the best image, and what others are above a bad reference is large, too: it tells
/// images apart that differ at that value, what they are above the best of those the rest, and then nothing is large.
const FURTHER_REFINEMENTS: usize = 2;

/// Bytes of device memory per query.
pub(super) fn bytes_per_query(call: &Call<'_>) -> usize {
    call.mirrors() * (call.bank.len() + call.bank.image_len()) * 4
}

/// Both passes; in the sparse regime the listed candidates are weighed between them.
pub(super) fn run(call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>, batch: &Batch, shard_sums: &Memory) -> Result<()> {
    // Energies, `[probe][image]`, then weights.
    let weights = Memory::new(&queue.stream, batch.probe_count * call.bank.len() * 4, "energies")?;
    energies(call, queue, batch, &weights)?;
    let bests = bests(call, queue, batch, &weights)?;
    if batch.may_need_double(call, queue)? {
        refine(call, queue, batch, &bests, &weights)?;
        for _ in 0..FURTHER_REFINEMENTS {
            refined_bests(call, queue, batch, &bests, &weights)?;
            refine(call, queue, batch, &bests, &weights)?;
        }
    }
    normalise(call, queue, batch, &weights)?;
    if let Some(candidates) = &batch.candidates {
        sparse::weigh(call, queue, batch, candidates)?;
    }
    means(call, queue, batch, &weights, shard_sums)
}

fn panels(batch: &Batch) -> u32 {
    batch.probe_count.div_ceil(PROBE_PANEL) as u32
}

/// Pass 1: the energy of every probe and image.
fn energies(call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>, batch: &Batch, energies: &Memory) -> Result<()> {
    let kernel = call.kernel(KernelSource::Full, "full_energies")?;
    let all_images = call.bank.len() as i32;
    let steps = call.steps(0..call.bank.shards(), batch.probe_count, Precision::Single);
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

/// Per query the best image and the bound on energies that count; in the sparse regime lists candidates.
fn bests(call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>, batch: &Batch, energies: &Memory) -> Result<Memory> {
    let kernel = call.kernel(KernelSource::Full, "full_bests")?;
    let bests = Memory::new(&queue.stream, batch.queries * BEST_IMAGE_BYTES, "best images")?;
    let (all_images, image_len) = (call.bank.len() as i32, call.bank.image_len() as i32);
    let reach = call.bank.stored_max_abs() as f32;
    let lists = batch.candidates.as_ref().map_or(CandidateLists::NONE, DeviceCandidates::lists);
    let args: &[_] = kernel_args![
        &batch.probes,
        energies.address_ref(),
        &all_images,
        &image_len,
        &reach,
        &lists,
        bests.address_ref(),
    ];
    // SAFETY: there is an energy for every probe and image; the lists have room for `limit` candidates per query.
    unsafe { queue.launch(&kernel, block_per_query(batch), args)? };
    Ok(bests)
}

/// Per query the best image by refined energies, and the bound on those that count.
fn refined_bests(
    call: &Call<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    batch: &Batch,
    bests: &Memory,
    energies: &Memory,
) -> Result<()> {
    let kernel = call.kernel(KernelSource::Full, "full_refined_bests")?;
    let (probes, all_images) = (batch.dense_probes(), call.bank.len() as i32);
    let args: &[_] = kernel_args![&probes, energies.address_ref(), &all_images, bests.address_ref()];
    // SAFETY: there is an energy for every probe and image, and a best image for every query.
    unsafe { queue.launch(&kernel, block_per_query(batch), args) }
}

/// Where float32 does not serve, replaces energies by what they are above that of the best image.
fn refine(
    call: &Call<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    batch: &Batch,
    bests: &Memory,
    energies: &Memory,
) -> Result<()> {
    let kernel = |name: &str| call.kernel(KernelSource::Full, name);
    let (copy, refine) = (kernel("full_references")?, kernel("full_refine")?);
    let (all_images, image_len) = (call.bank.len() as i32, call.bank.image_len());
    let references = Memory::new(&queue.stream, batch.probe_count * image_len * 4, "best images")?;
    let (probes, bests, references) = (&batch.dense_probes(), bests.address_ref(), references.address_ref());
    let tiles = call.bank.steps(0..call.bank.shards(), call.bank.len());
    call.for_each_step(queue, &tiles, None, |queue, images, _| {
        let Grid { blocks: [blocks, ..], threads, .. } = Grid::over(image_len);
        let grid = Grid { blocks: [blocks, batch.queries as u32, 1], threads, shared_bytes: 0 };
        // SAFETY: there is a reference for every probe.
        unsafe { queue.launch(&copy, grid, kernel_args![images, probes, bests, &all_images, references]) }
    })?;
    let steps = call.steps(0..call.bank.shards(), batch.probe_count, Precision::Double);
    let work_per_image = (steps.len() > 1).then_some(0);
    call.for_each_step(queue, &steps, work_per_image, |queue, images, _| {
        let groups = (images.count as usize).div_ceil(4);
        let warps = groups.min(8);
        let blocks = groups.div_ceil(warps).min(MAX_REFINING_BLOCKS) as u32;
        let grid = Grid { blocks: [blocks, batch.probe_count as u32, 1], threads: 32 * warps as u32, shared_bytes: 0 };
        let args: &[_] = kernel_args![images, probes, bests, references, energies.address_ref(), &all_images];
        // SAFETY: there is an energy for every probe and image, and a reference for every probe.
        unsafe { queue.launch(&refine, grid, args) }
    })
}

/// Turns energies into weights in place.
fn normalise(call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>, batch: &Batch, weights: &Memory) -> Result<()> {
    let kernel = call.kernel(KernelSource::Full, "full_weights")?;
    let (probes, all_images) = (batch.dense_probes(), call.bank.len() as i32);
    let args: &[_] = kernel_args![&probes, weights.address_ref(), &all_images];
    // SAFETY: there is an energy for every probe and image.
    unsafe { queue.launch(&kernel, block_per_query(batch), args) }
}

fn block_per_query(batch: &Batch) -> Grid {
    Grid { blocks: [batch.queries as u32, 1, 1], threads: WEIGHT_THREADS, shared_bytes: 0 }
}

/// Pass 2: the weighted sums of the images of every shard.
fn means(
    call: &Call<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    batch: &Batch,
    weights: &Memory,
    shard_sums: &Memory,
) -> Result<()> {
    let kernel = call.kernel(KernelSource::Full, "full_means")?;
    let (all_images, image_len) = (call.bank.len() as i32, call.bank.image_len());
    let (probes, threads) = (batch.dense_probes(), image_len.next_multiple_of(32).min(256));
    let steps = call.steps(0..call.bank.shards(), batch.probe_count, Precision::Single);
    // The sums over candidates have counted the work of the sparse regime.
    let work_per_image = if batch.regime.sparse { 0 } else { batch.probe_count };
    call.for_each_step(queue, &steps, Some(work_per_image), |queue, images, step| {
        let blocks = [image_len.div_ceil(threads) as u32, step.len() as u32, panels(batch)];
        let grid = Grid { blocks, threads: threads as u32, shared_bytes: 0 };
        let sums = shard_sums.address_ref();
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
