//! The sparse route, for small sigma: a scan lists the few images that can carry weight, and those alone are weighed, in
//! float64.

use super::batch::Batch;
use super::call::Call;
use super::candidates::DeviceCandidates;
use super::layout::{Address, CandidateLists, kernel_args};
use super::module::Grid;
use super::passes::{self, PassOutput};
use super::posterior::WindowPosteriors;
use super::queue::LaunchQueue;
use super::sources::KernelSource;
use crate::error::Result;

/// One in so many shards is scanned for a first bound on the least energies.
const HINT_DIVISOR: usize = 8;

/// Lists the candidates of square windows or masks and weighs them.
pub(super) fn run(
    call: &Call<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    batch: &Batch,
    candidates: &DeviceCandidates,
    posteriors: &WindowPosteriors,
) -> Result<()> {
    let shards = call.bank.shards();
    let null: Address = 0;
    let hint_shards = 0..shards.div_ceil(HINT_DIVISOR);
    let hint_scan =
        PassOutput::Scan { hint: null, least: posteriors.shard_least.address(), lists: CandidateLists::NONE };
    passes::run(call, queue, batch, &hint_scan, hint_shards.clone(), false)?;
    posteriors.merge_least(call, queue, batch, hint_shards)?;
    let scan = PassOutput::Scan { hint: posteriors.least.address(), least: null, lists: candidates.lists() };
    passes::run(call, queue, batch, &scan, 0..shards, true)?;
    weigh(call, queue, batch, candidates)
}

/// Weighs the listed candidates of all queries whose lists hold them all.
pub(super) fn weigh(
    call: &Call<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    batch: &Batch,
    candidates: &DeviceCandidates,
) -> Result<()> {
    let bank = call.bank;
    let blocks = DeviceCandidates::limit(call).div_ceil(256).clamp(1, 64) as u32;
    let grid = Grid { blocks: [blocks, batch.queries as u32, 1], threads: 128, shared_bytes: 0 };
    let (probes, shapes, lists) = (&batch.probes, &call.components.shapes, &candidates.lists());
    let (count, max_abs) = (&(call.components.count as i32), &bank.stored_max_abs());
    let (least, weight_sums) = (candidates.least.address_ref(), candidates.weight_sums.address_ref());
    let pixel_sums = candidates.pixel_sums.address_ref();
    let kernel = |name: &str| call.kernel(KernelSource::Sparse, name);
    let (energies, sums, composites) =
        (kernel("candidate_energies")?, kernel("candidate_sums")?, kernel("candidate_composites")?);
    // One launch per tile suffices: candidates are few.
    let tiles = bank.steps(0..bank.shards(), bank.len());

    call.for_each_step(queue, &tiles, None, |queue, images, _| {
        let args: &[_] = kernel_args![images, probes, shapes, lists, count, least];
        // SAFETY: the lists have room for `limit` candidates per query, and hold indices of windows and images.
        unsafe { queue.launch(&energies, grid, args) }
    })?;
    call.for_each_step(queue, &tiles[..1], None, |queue, images, _| {
        let args: &[_] = kernel_args![images, probes, shapes, lists, count, least, weight_sums];
        // SAFETY: as for the energies; there is a sum for every query and window.
        unsafe { queue.launch(&sums, grid, args) }
    })?;
    call.for_each_step(queue, &tiles, Some(batch.probe_count), |queue, images, _| {
        let args: &[_] = kernel_args![images, probes, shapes, lists, count, least, weight_sums, max_abs, pixel_sums];
        // SAFETY: as for the sums; there is a sum for every pixel of a query.
        unsafe { queue.launch(&composites, grid, args) }
    })
}
