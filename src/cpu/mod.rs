//! The composite on CPU: shards of the bank times blocks of probes, in two passes, on the engine's threads.
//!
//! Where sigma is small, `scan` finds the few images that carry weight and `sparse` weighs them; otherwise `dense` weighs them all, and
//! `full` does so where the only window is the full image.
//!
//! - A *probe* is a query, or its mirror image where flips count: `|z - flip x| = |flip z - x|`, so flips cost a second
//!   probe on the same tile and no second copy of the data; both share one softmax.
//! - A *shard* is a run of images whose length depends on the bank alone. A work item is one shard and a few probes;
//!   items run on any thread, their results are merged in the order of the shards, so the bits are always the same.
//! - Within an item, *groups* of tiles (`job`) are transposed once and used by every probe of the item.

pub mod candidates;
mod composites;
mod dense;
pub mod energy;
mod errors;
mod full;
pub mod gather;
pub mod isa;
mod job;
pub mod lone;
pub mod panel;
mod parts;
pub mod patches;
pub mod probe;
pub mod rate;
mod rounds;
mod scan;
pub mod simd;
pub mod slide;
mod spare;
mod sparse;
pub mod spread;
pub mod stack;
pub mod tile;
pub mod weigh;
pub mod whole;
pub mod words;

use ndarray::{Array3, Array4, ArrayView4, ArrayViewMut3, s};

use crate::bank::{Bank, Pixels};
use crate::composite::Monitor;
use crate::error::Result;
use crate::windows::{Kind, Windows};
use job::Job;
use probe::Probe;
use rounds::Rounds;
use tile::Pixel;

/// Most queries in flight at once.
const QUERIES: usize = 128;

/// Bytes that queries in flight may take.
const BYTES: usize = 1 << 27;

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
    let mut rounds = Rounds::new(work as u64, windows, bank.image_len(), monitor)?;
    let mut denoised = Array4::zeros(z.raw_dim());
    let at_once = queries_at_once(bank, windows, sigma);
    for start in (0..sigma.len()).step_by(at_once) {
        let queries = start..sigma.len().min(start + at_once);
        let probes = |flipped| queries.clone().map(move |q| (q, flipped));
        let probes: Vec<Probe> = probes(false)
            .chain(probes(true).filter(|_| flips))
            .map(|(q, flipped)| {
                Probe::new(bank, &views[usize::from(flipped)], z.slice(s![q, .., .., ..]), sigma[q], q, flipped)
            })
            .collect();
        let sums = match bank.pixels() {
            Pixels::U8(pixels) => sums_of(&Job::new(bank, pixels, &views, &probes)?, &mut rounds)?,
            Pixels::F32(pixels) => sums_of(&Job::new(bank, pixels, &views, &probes)?, &mut rounds)?,
        };
        for (q, sums) in sums {
            finish(bank, &cover, &sums, denoised.slice_mut(s![q, .., .., ..]));
        }
    }
    Ok(denoised)
}

/// How many queries to hold at once, in whole items where there is room. A query and its mirror image hold z, sums,
/// results that wait for their merge, and between the passes all energies, lists of candidates or posteriors.
fn queries_at_once(bank: &Bank<'_>, windows: &Windows, sigma: &[f64]) -> usize {
    let lists = if sigma.iter().any(|&sigma| Probe::is_sparse(bank, sigma)) { scan::LARGEST_LIST } else { 0 };
    let between = match windows.kind() {
        Kind::Full => 4 * bank.len(),
        Kind::Square { .. } | Kind::Masks(_) => 20 * windows.count(),
    };
    let room = BYTES / (2 * (32 * bank.image_len() + between + lists));
    if room < rounds::PROBES { room.max(1) } else { (room - room % rounds::PROBES).min(QUERIES) }
}

/// A query's index and the weighted sums of centred stored pixels, of the query and of its mirror image.
type QuerySums = (usize, [Array3<f64>; 2]);

/// The sums of every query of a job, in any order.
fn sums_of<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<QuerySums>> {
    let (few, mut many): (Vec<Probe>, Vec<Probe>) = job.probes.iter().cloned().partition(|probe| probe.sparse);
    let mut done = Vec::new();
    if !few.is_empty() {
        for (probe, sums) in few.iter().zip(sparse::sums(&job.with(&few), rounds)?) {
            done.extend(sums.map(|sums| (probe.query, sums)));
        }
        let left = |probe: &Probe| !done.iter().any(|(query, _)| *query == probe.query);
        many.extend(few.into_iter().filter(left));
        many.sort_by_key(|probe| (probe.flipped, probe.query));
    }
    if !many.is_empty() {
        let queries = many.iter().filter(|probe| !probe.flipped).count();
        let job = job.with(&many);
        let sums = match job.views[0].kind() {
            Kind::Full => full::sums(&job, rounds)?,
            Kind::Square { .. } | Kind::Masks(_) => dense::passes(&job, rounds)?,
        };
        done.extend(pair_up(&job, &many[..queries], sums));
    }
    Ok(done)
}

/// The sums of queries' probes, followed by those of their flipped probes if there are any, as pairs by query.
fn pair_up<P: Pixel>(job: &Job<'_, P>, queries: &[Probe], mut sums: Vec<Array3<f64>>) -> Vec<QuerySums> {
    let mut flipped = sums.split_off(queries.len()).into_iter();
    let zero = || Array3::zeros(job.bank.image_shape());
    queries.iter().zip(sums).map(|(p, sums)| (p.query, [sums, flipped.next().unwrap_or_else(zero)])).collect()
}

/// Adds the mirrored half, divides by the cover and returns to the units of the images.
fn finish(bank: &Bank<'_>, cover: &[u32], [sums, flipped]: &[Array3<f64>; 2], mut out: ArrayViewMut3<'_, f32>) {
    let (_, unit) = bank.scale();
    let width = sums.dim().2;
    for ((c, y, x), value) in out.indexed_iter_mut() {
        let sum = sums[[c, y, x]] + flipped[[c, y, width - 1 - x]];
        *value = (sum / (f64::from(cover[y * width + x]) * unit)) as f32;
    }
}
