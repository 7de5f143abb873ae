//! Square windows and masks: the launches of both passes, which differ only in the kernels and their working space.

use std::ops::Range;

use super::arguments::{Address, Candidates, Lent, MaskSpace, Normaliser, SquareSpace, arguments};
use super::batch::Batch;
use super::call::Call;
use super::device::Source;
use super::driver::{Grid, Memory};
use super::pace::Pace;
use super::space;
use super::windows::DeviceKind;
use crate::error::Result;

/// A pass over images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Posteriors,
    Scan,
    Composites,
}

impl Pass {
    /// Floats of its state.
    fn state(self, call: &Call<'_>) -> usize {
        match self {
            Self::Posteriors => 3 * call.windows.count,
            Self::Scan => call.windows.count,
            Self::Composites => call.device_bank.image_len(),
        }
    }
}

/// Bytes of device memory a query needs on top of [`Batch::bytes_per_query`].
pub(super) fn bytes_per_query(call: &Call<'_>) -> usize {
    let (views, count, shards) = (call.views(), call.windows.count, call.device_bank.shards());
    let slab = [Pass::Posteriors, Pass::Composites].map(|pass| slab_bytes(call, pass)).into_iter().max().unwrap_or(0);
    views * (shards * (count * 8 + slab) + count * 8)
}

/// Both passes; at small sigma the scan for candidates before them.
pub(super) fn run(call: &Call<'_>, pace: &mut Pace<'_, '_>, batch: &Batch) -> Result<()> {
    let stream = pace.stream.clone();
    let (probes, windows, shards) = (batch.probe_count(), call.windows.count, call.device_bank.shards());
    let least = Memory::new(&stream, probes * shards * windows * 4, "least energies")?;
    let sum = Memory::new(&stream, probes * shards * windows * 4, "sums of weights")?;
    let joint = Memory::new(&stream, probes * windows * 4, "least energies")?;
    let scale = Memory::new(&stream, probes * windows * 4, "sums of weights")?;

    let counts = batch.lists.is_none();
    if let Some(lists) = &batch.lists {
        // What an eighth of the images says bounds the candidates among all.
        let some = 0..shards.div_ceil(8);
        let (no_list, nothing) = (Candidates::NONE, 0_u64);
        pass(call, pace, batch, Pass::Scan, some.clone(), false, arguments![&nothing, least.at(), &no_list])?;
        merge(call, pace, batch, some, &least, None, &joint, None)?;
        let list = lists.arguments();
        pass(call, pace, batch, Pass::Scan, 0..shards, true, arguments![joint.at(), &nothing, &list])?;
        batch.weigh_candidates(call, pace)?;
    }
    let arguments: &[_] = arguments![least.at(), sum.at()];
    pass(call, pace, batch, Pass::Posteriors, 0..shards, counts, arguments)?;
    merge(call, pace, batch, 0..shards, &least, Some(&sum), &joint, Some(&scale))?;
    let normaliser = Normaliser { least: joint.address(), scale: scale.address() };
    let arguments: &[_] = arguments![&normaliser, batch.partial.at()];
    pass(call, pace, batch, Pass::Composites, 0..shards, counts, arguments)
}

/// Bytes of a warp's or block's slab.
fn slab_bytes(call: &Call<'_>, pass: Pass) -> usize {
    let (bank, limit) = (call.device_bank, call.device_bank.device.info().shared);
    match call.windows.kind {
        DeviceKind::Square(square) => square_space(call, pass, square.side as usize, limit).slab_bytes(),
        DeviceKind::Masks(_) => space::masks(bank.plane(), call.windows.count, pass.state(call), limit).slab_bytes(),
        DeviceKind::Full => 0,
    }
}

fn square_space(call: &Call<'_>, pass: Pass, side: usize, limit: usize) -> space::Space<4> {
    let width = call.windows.width;
    space::square(side, width, narrow(call), pass == Pass::Composites, pass.state(call), limit)
}

/// Whether an image is no wider than a warp.
fn narrow(call: &Call<'_>) -> bool {
    call.windows.width <= 32
}

/// Runs a pass over some shards; `rest` are the kernel's arguments after images, probes, windows and space.
fn pass(
    call: &Call<'_>,
    pace: &mut Pace<'_, '_>,
    batch: &Batch,
    pass: Pass,
    shards: Range<usize>,
    counts: bool,
    rest: &[Lent<'_>],
) -> Result<()> {
    let probes = if pass == Pass::Scan { batch.probes } else { batch.dense_probes() };
    let steps = call.device_bank.steps(shards, call.images_a_step(batch.probe_count()));
    let most = steps.iter().map(Range::len).max().unwrap_or(1);
    let limit = call.device_bank.device.info().shared;
    // The warps of the last block that have no probe count too.
    let padded = batch.probe_count() + space::WARPS - 1;
    let slabs = Memory::new(&pace.stream, padded * most * slab_bytes(call, pass), "working space")?;
    for step in steps {
        let tile = call.device_bank.on_device(call.bank, &pace.stream, &step)?;
        let images = tile.images;
        let head: &[_] = arguments![&images, &probes];
        match call.windows.kind {
            DeviceKind::Square(square) => {
                let name = match pass {
                    Pass::Posteriors => "square_posteriors",
                    Pass::Scan => "square_scan",
                    Pass::Composites => "square_composites",
                };
                let kernel = call.kernel(Source::Square { narrow: narrow(call) }, name)?;
                let one = square_space(call, pass, square.side as usize, limit);
                let warps = space::warps(one.shared_bytes(), limit);
                let [ring, ring2, rows, state] = one.places;
                let slab = one.slab as u64;
                let warp = one.shared as i32;
                let space = SquareSpace { slabs: slabs.address(), slab, warp, ring, ring2, rows, state };
                let grid = Grid {
                    blocks: [batch.probe_count().div_ceil(warps) as u32, step.len() as u32, 1],
                    threads: 32 * warps as u32,
                    shared: warps * one.shared_bytes(),
                };
                let arguments = [head, arguments![&square, &space], rest].concat();
                // SAFETY: (1) the arguments are those of the three kernels; every array has room for all probes, shards and
                // windows, and the space was laid out for this pass.
                unsafe { pace.launch(&kernel, grid, &arguments)? };
            }
            DeviceKind::Masks(views) => {
                let name = match pass {
                    Pass::Posteriors => "mask_posteriors",
                    Pass::Scan => "mask_scan",
                    Pass::Composites => "mask_composites",
                };
                let kernel = call.kernel(Source::Masks, name)?;
                let (plane, count) = (call.device_bank.plane(), call.windows.count);
                let one = space::masks(plane, count, pass.state(call), limit);
                let [tables, windows, state] = one.places;
                let space = MaskSpace { slabs: slabs.address(), slab: one.slab as u64, tables, windows, state };
                let grid = Grid {
                    blocks: [batch.probe_count() as u32, step.len() as u32, 1],
                    threads: space::mask_threads(plane, count) as u32,
                    shared: one.shared_bytes(),
                };
                let arguments = [head, arguments![&views, &space], rest].concat();
                // SAFETY: (2) as above.
                unsafe { pace.launch(&kernel, grid, &arguments)? };
            }
            DeviceKind::Full => {}
        }
        let work = if counts { images.count as usize * batch.probe_count() } else { 0 };
        pace.step(work as u64)?;
    }
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "a kernel's arguments are its inputs")]
fn merge(
    call: &Call<'_>,
    pace: &mut Pace<'_, '_>,
    batch: &Batch,
    shards: Range<usize>,
    least: &Memory,
    sum: Option<&Memory>,
    joint: &Memory,
    scale: Option<&Memory>,
) -> Result<()> {
    let kernel = call.kernel(Source::Posterior, "merge_shards")?;
    let (first, some, all) = (shards.start as i32, shards.len() as i32, call.device_bank.shards() as i32);
    let (count, columns) = (call.windows.count as i32, call.windows.mirror_columns as i32);
    let nothing: Address = 0;
    let [sum, scale] = [sum, scale].map(|memory| memory.map_or(&nothing, Memory::at));
    let grid = Grid {
        blocks: [call.windows.count.div_ceil(128) as u32, batch.queries as u32, 1],
        threads: call.windows.count.next_multiple_of(32).min(128) as u32,
        shared: 0,
    };
    let arguments: &[_] =
        arguments![&batch.probes, least.at(), sum, &first, &some, &all, &count, &columns, joint.at(), scale,];
    // SAFETY: (3) every array has room for all probes, shards and windows.
    unsafe { pace.launch(&kernel, grid, arguments) }
}
