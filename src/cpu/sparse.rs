//! Small sigma: a scan finds the few images that carry weight on each window, and only those are weighed, in `f64`.
//!
//! The scan is one dense pass of energies without a single exponential. Its bound per window is the least energy of the
//! shard so far, and of whole epochs of shards before it; epochs are cut by the data alone, so the candidates, like the
//! result, never depend on timing. Where too many images carry weight for a list to pay, the caller falls back on the
//! dense passes.

use std::ops::Range;

use ndarray::Array3;
use rayon::prelude::*;

use super::candidates::{Candidate, Candidates, collect};
use super::job::{Group, Job, TILES};
use super::probe::Probe;
use super::rounds::{Item, Rounds, items};
use super::tile::Pixel;
use crate::error::Result;

/// Pieces into which the exact sums of a query are cut, to share them among threads.
const CHUNKS: usize = 16;

/// Queries weighed before the monitor is asked again.
const AT_ONCE: usize = 8;

/// Most candidates kept for a probe: bounds the memory of all lists in flight.
const LONGEST: usize = 1 << 18;

/// Bytes of the longest list.
pub(super) const LARGEST_LIST: usize = LONGEST * size_of::<Candidate>();

/// The sums of a query and of its mirror image; none where lists did not pay.
pub(super) type Sums = Option<[Array3<f64>; 2]>;

/// Per query the weighted sums of centred stored pixels of its probe and of its flipped probe, `[channel, row, column]`.
/// The probes of flipped queries follow all others, in the same order.
pub(super) fn sums<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<Sums>> {
    let found = scan(job, rounds)?;
    let queries = job.probes.iter().filter(|probe| !probe.flipped).count();
    let pairs: Vec<Pair<'_>> = (0..queries)
        .map(|i| Pair {
            probe: &job.probes[i],
            lists: [list(found.get(i)), list(found.get(queries + i))],
            flipped: job.probes.get(queries + i),
        })
        .collect();
    let few = |i: usize| [Some(&found[i]), found.get(queries + i)].into_iter().flatten().all(|f| pays(job, f));
    let mut sums = Vec::with_capacity(queries);
    for (start, some) in (0..queries).step_by(AT_ONCE).zip(pairs.chunks(AT_ONCE)) {
        let weighed = some.par_iter().enumerate().map(|(i, pair)| few(start + i).then(|| pair.sums(job)));
        sums.extend(rounds.install(|| weighed.collect::<Vec<_>>()));
        // Where a list was weighed, the second of two passes is not needed.
        let spared = sums[start..].iter().flatten().count() * job.probes.len() / queries;
        rounds.skip(spared * job.bank.len())?;
    }
    Ok(sums)
}

fn list(found: Option<&Candidates>) -> &[Candidate] {
    found.map_or(&[], |found| &found.list)
}

/// Finds the candidates of every probe, sorted by window and image.
fn scan<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<Candidates>> {
    let count = job.views[0].count();
    let mut found: Vec<_> = job.probes.iter().map(|_| Candidates::new(vec![f32::MAX; count], LONGEST)).collect();
    for epoch in epochs(&items(job)) {
        let hints: Vec<Vec<f32>> = found.iter().map(|found| found.least.clone()).collect();
        rounds.run_items(
            epoch,
            || Group::new(job, TILES),
            |item, group| scan_item(job, item, &hints, group),
            |probe, part| found[probe].merge(&part),
        )?;
        share_least(job, &mut found);
        let prune = |(found, probe): (&mut Candidates, &Probe)| found.prune(job.margin(probe));
        rounds.install(|| found.par_iter_mut().zip(job.probes).for_each(prune));
    }
    let sort = |found: &mut Candidates| found.list.sort_unstable_by_key(|c| (c.window, c.image));
    rounds.install(|| found.par_iter_mut().for_each(sort));
    Ok(found)
}

/// The candidates of each of an item's probes.
fn scan_item<P: Pixel>(job: &Job<'_, P>, item: &Item, hints: &[Vec<f32>], group: &mut Group<P>) -> Vec<Candidates> {
    let limit = 1024 + 16 * job.views[0].count();
    let mut found: Vec<_> = item.probes.clone().map(|p| Candidates::new(hints[p].clone(), limit)).collect();
    for first in group.firsts(&item.images) {
        group.load(job, first, &item.images);
        for block in job.blocks(item.probes.clone()) {
            group.energies(job, block, |part| {
                let margin = job.margin(&job.probes[part.probe]);
                let found = &mut found[part.probe - item.probes.start];
                collect(job.isa, part.energies, part.first..part.first + part.count(), margin, first, found);
            });
        }
    }
    found
}

/// Items in runs of shards, each four times as long as all before it: what one run finds bounds the next one's search.
fn epochs(items: &[Item]) -> impl Iterator<Item = &[Item]> {
    let blocks = items.iter().take_while(|item| item.images.start == 0).count();
    let mut rest = items;
    let mut shards = 1;
    std::iter::from_fn(move || {
        let (epoch, later) = rest.split_at((shards * blocks).min(rest.len()));
        rest = later;
        shards *= 4;
        (!epoch.is_empty()).then_some(epoch)
    })
}

/// A query and its mirror image share every softmax, and so the least energy of every window.
fn share_least<P: Pixel>(job: &Job<'_, P>, found: &mut [Candidates]) {
    let windows = &job.views[0];
    let queries = job.probes.iter().filter(|probe| !probe.flipped).count();
    let (forward, flipped) = found.split_at_mut(queries);
    for (forward, flipped) in forward.iter_mut().zip(flipped) {
        for (k, least) in forward.least.iter_mut().enumerate() {
            let twin = &mut flipped.least[windows.mirror_index(k)];
            *least = least.min(*twin);
            *twin = *least;
        }
    }
}

/// Whether weighing the listed images alone, in `f64`, is cheaper than a dense pass over all of them; never mind a list
/// that takes a few milliseconds, never one that takes a tenth of a second.
fn pays<P: Pixel>(job: &Job<'_, P>, found: &Candidates) -> bool {
    const CHEAP: usize = 1 << 22;
    const DEAR: usize = 1 << 24;
    let windows = &job.views[0];
    let pixels: usize = found.list.iter().map(|candidate| windows.pixels(candidate.window as usize)).sum();
    !found.given_up && pixels <= (job.bank.len() * job.plane() / 6).clamp(CHEAP, DEAR)
}

/// One query, its mirror image if flips count, and the candidates of both.
struct Pair<'a> {
    probe: &'a Probe,
    flipped: Option<&'a Probe>,
    lists: [&'a [Candidate]; 2],
}

impl Pair<'_> {
    fn sums<P: Pixel>(&self, job: &Job<'_, P>) -> [Array3<f64>; 2] {
        let count = job.views[0].count();
        let chunk = count.div_ceil(CHUNKS);
        let parts: Vec<_> = (0..CHUNKS)
            .into_par_iter()
            .map(|i| self.sums_of_windows(job, (i * chunk).min(count)..((i + 1) * chunk).min(count)))
            .collect();
        let zero = || Array3::zeros(job.bank.image_shape());
        parts.into_iter().fold([zero(), zero()], |[a, b], [x, y]| [a + x, b + y])
    }

    fn sums_of_windows<P: Pixel>(&self, job: &Job<'_, P>, windows: Range<usize>) -> [Array3<f64>; 2] {
        let mut sums = [Array3::zeros(job.bank.image_shape()), Array3::zeros(job.bank.image_shape())];
        for k in windows {
            let twin = job.views[0].mirror_index(k);
            let runs = [job.views[0].runs(k).collect::<Vec<_>>(), job.views[1].runs(twin).collect()];
            let lists = [of_window(self.lists[0], k), of_window(self.lists[1], twin)];
            let z = [&self.probe.z, &self.flipped.unwrap_or(self.probe).z];
            let mut weights = [0, 1].map(|side| {
                let energy = |candidate: &Candidate| energy(job, z[side], candidate.image, &runs[side]);
                lists[side].iter().map(energy).collect::<Vec<_>>()
            });
            normalise(&mut weights, self.probe.rate);
            for side in [0, 1] {
                for (weight, candidate) in weights[side].iter().zip(lists[side]) {
                    add(job, *weight, candidate.image, &runs[side], &mut sums[side]);
                }
            }
        }
        sums
    }
}

/// The part of a sorted list that belongs to window `k`.
fn of_window(list: &[Candidate], k: usize) -> &[Candidate] {
    let start = list.partition_point(|candidate| (candidate.window as usize) < k);
    let end = list.partition_point(|candidate| candidate.window as usize <= k);
    &list[start..end]
}

/// The squared distance of z to an image on the runs of a window, in `f64`.
fn energy<P: Pixel>(job: &Job<'_, P>, z: &[f64], image: u32, runs: &[Range<usize>]) -> f64 {
    let pixels = job.image(image as usize);
    let plane = job.plane();
    let mut sum = 0.0;
    for (z, pixels) in z.chunks_exact(plane).zip(pixels.chunks_exact(plane)) {
        for run in runs {
            for (z, pixel) in z[run.clone()].iter().zip(&pixels[run.clone()]) {
                let error = z - pixel.number();
                sum += error * error;
            }
        }
    }
    sum
}

/// Turns energies into weights that sum to one over both lists.
fn normalise(energies: &mut [Vec<f64>; 2], rate: f64) {
    let least = energies.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let mut total = 0.0;
    for energy in energies.iter_mut().flatten() {
        *energy = (rate * (least - *energy)).exp2();
        total += *energy;
    }
    for weight in energies.iter_mut().flatten() {
        *weight /= total;
    }
}

/// Adds the weighted image to the pixels of a window's runs.
fn add<P: Pixel>(job: &Job<'_, P>, weight: f64, image: u32, runs: &[Range<usize>], sums: &mut Array3<f64>) {
    let pixels = job.image(image as usize);
    let plane = job.plane();
    let Some(sums) = sums.as_slice_mut() else { return };
    for (sums, pixels) in sums.chunks_exact_mut(plane).zip(pixels.chunks_exact(plane)) {
        for run in runs {
            for (sum, pixel) in sums[run.clone()].iter_mut().zip(&pixels[run.clone()]) {
                *sum += weight * pixel.number();
            }
        }
    }
}
