//! The composite on CPU: shards of the bank times blocks of probes, in two passes, on the engine's threads.
//!
//! - A *probe* is a query, or its mirror image where flips count: `|z - flip x| = |flip z - x|`, so flips cost a second
//!   probe on the same tile and no second copy of the data; both share one softmax.
//! - A *shard* is a run of images whose length depends on the bank alone. A work item is one shard and a few probes;
//!   items run on any thread, their results are merged in the order of the shards, so the bits are always the same.
//! - Within an item, *groups* of tiles (`job`) are transposed once and used by every probe of the item.

mod dense;
pub mod energy;
pub mod gather;
pub mod isa;
mod job;
pub mod probe;
mod rounds;
pub mod simd;
pub mod slide;
pub mod spread;
pub mod tile;
pub mod weigh;

use ndarray::{Array3, Array4, ArrayView4, ArrayViewMut3, s};

use crate::bank::{Bank, Pixels};
use crate::composite::Monitor;
use crate::error::Result;
use crate::windows::Windows;
use job::Job;
use probe::Probe;
use rounds::Rounds;

/// Queries in flight at once; bounds the memory of states and sums whatever the batch.
const QUERIES: usize = 64;

/// See [`crate::composite()`]; arguments have been checked.
pub fn composite<T: Copy + Into<f64> + Send + Sync>(
    bank: &Bank<'_>,
    windows: &Windows,
    z: ArrayView4<'_, T>,
    sigma: &[f64],
    flips: bool,
    monitor: &mut Monitor<'_>,
) -> Result<Array4<f32>> {
    let views = [windows.clone(), windows.mirrored()];
    let cover = windows.cover();
    // Two passes over every image for every probe.
    let work = 2 * bank.len() * sigma.len() * if flips { 2 } else { 1 };
    let mut rounds = Rounds::new(work as u64, monitor)?;
    let mut denoised = Array4::zeros(z.raw_dim());
    for start in (0..sigma.len()).step_by(QUERIES) {
        let queries = start..sigma.len().min(start + QUERIES);
        let probes = |flipped| queries.clone().map(move |q| (q, flipped));
        let probes: Vec<Probe> = probes(false)
            .chain(probes(true).filter(|_| flips))
            .map(|(q, flipped)| Probe::new(bank, z.slice(s![q, .., .., ..]), sigma[q], q, flipped))
            .collect();
        let sums = match bank.pixels() {
            Pixels::U8(pixels) => dense::passes(&Job::new(bank, pixels, &views, &probes), &mut rounds)?,
            Pixels::F32(pixels) => dense::passes(&Job::new(bank, pixels, &views, &probes), &mut rounds)?,
        };
        for (i, q) in queries.clone().enumerate() {
            finish(bank, &cover, &sums[i], sums.get(queries.len() + i), denoised.slice_mut(s![q, .., .., ..]));
        }
    }
    Ok(denoised)
}

/// Adds the mirrored half, divides by the cover and returns to the units of the images.
fn finish(
    bank: &Bank<'_>,
    cover: &[u32],
    sums: &Array3<f64>,
    flipped: Option<&Array3<f64>>,
    mut out: ArrayViewMut3<'_, f32>,
) {
    let (_, unit) = bank.scale();
    let width = sums.dim().2;
    for ((c, y, x), value) in out.indexed_iter_mut() {
        let mirrored = flipped.map_or(0.0, |flipped| flipped[[c, y, width - 1 - x]]);
        *value = ((sums[[c, y, x]] + mirrored) / (f64::from(cover[y * width + x]) * unit)) as f32;
    }
}
