//! What a posterior says about images: entropies, the heaviest images, and sums of weights per image.

use super::call::Call;
use super::evidence::{DeviceEvidence, Known};
use super::layout::kernel_args;
use super::memory::Memory;
use super::module::Grid;
use super::planes::Planes;
use super::queue::LaunchQueue;
use crate::error::Result;
use crate::heaviest::{ProbeStatistics, Wanted};

/// Bytes of device memory per query, besides planes.
pub(super) fn bytes_per_query(call: &Call<'_>, wanted: Wanted) -> usize {
    let of_images = if wanted.attribution { 8 * call.bank.len() } else { 0 };
    call.mirrors() * (call.components.count * (12 * wanted.top + 16) + of_images)
}

/// The statistics of the queries of a batch.
pub(super) fn run(known: &Known<'_>, queue: &mut LaunchQueue<'_, '_>, wanted: Wanted) -> Result<Vec<ProbeStatistics>> {
    let Known { call, batch, .. } = *known;
    let stream = &queue.stream.clone();
    let (windows, images) = (call.components.count, call.bank.len());
    let places = batch.probe_count * windows * wanted.top;
    let heaviest = Memory::zeros(stream, places * 8, "the heaviest images")?;
    let positions = Memory::zeros(stream, places * 4, "the heaviest images")?;
    let of_images = if wanted.attribution { batch.probe_count * images } else { 0 };
    let attribution = Memory::new(stream, of_images * 8, "sums of weights")?;
    let planes = Planes::new(call, stream, batch, false)?;
    let (count, top) = (&(windows as i32), &(wanted.top as i32));
    planes.for_each_slice(queue, |queue, slice| {
        planes.weights(queue, slice, &known.normaliser)?;
        let (images, weights) = (&slice.images, planes.windows.address_ref());
        if wanted.top > 0 {
            let (heaviest, positions) = (heaviest.address_ref(), positions.address_ref());
            let args: &[_] = kernel_args![images, &batch.probes, count, weights, top, heaviest, positions];
            // SAFETY: there are `top` places for every probe and window.
            unsafe { queue.launch(&planes.kernel("plane_heaviest")?, planes.grid_of_probes(windows), args)? };
        }
        if wanted.attribution {
            let (all_images, sums) = (&(call.bank.len() as i32), attribution.address_ref());
            let args: &[_] = kernel_args![images, count, weights, all_images, sums];
            let grid =
                Grid { blocks: [slice.groups() as u32, batch.probe_count as u32, 1], threads: 32, shared_bytes: 0 };
            // SAFETY: there is a sum for every probe and image.
            unsafe { queue.launch(&planes.kernel("plane_attribution")?, grid, args)? };
        }
        Ok(())
    })?;
    queue.wait()?;
    let (mut weights, mut at, mut sums) = (vec![0.0_f64; places], vec![0_i32; places], vec![0.0_f64; of_images]);
    heaviest.read(&mut weights, "the heaviest images")?;
    positions.read(&mut at, "the heaviest images")?;
    attribution.read(&mut sums, "sums of weights")?;
    let of_probe = |probe: usize| {
        let mut found = ProbeStatistics::new(windows, images, wanted);
        let first = probe * windows * wanted.top;
        for place in first..first + windows * wanted.top {
            if weights[place] > 0.0 {
                found.heaviest.insert((place - first) / wanted.top, weights[place].log2(), at[place] as usize, 0);
            }
        }
        if wanted.attribution {
            found.attribution.copy_from_slice(&sums[probe * images..(probe + 1) * images]);
        }
        found
    };
    let of_query = |(query, evidence): (usize, &&DeviceEvidence)| {
        let mut found = of_probe(query);
        found.entropy.copy_from_slice(&evidence.entropies);
        if call.flips {
            found.merge_mirrored(&of_probe(query + batch.queries), known.components);
        }
        found
    };
    Ok(known.evidence.iter().enumerate().map(of_query).collect())
}
