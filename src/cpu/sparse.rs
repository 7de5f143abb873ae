//! Small sigma: a scan finds the few images that carry weight on each window, and only those are weighed, in `f64`.
//!
//! Where too many images carry weight for a list to pay, the caller falls back on the dense passes. The lists depend on the
//! data alone, and so does the result.

use std::ops::Range;

use ndarray::Array3;
use rayon::prelude::*;

use super::candidates::{ByWindow, Candidates, Reading};
use super::job::Job;
use super::patches::Patches;
use super::probe::Probe;
use super::rounds::Rounds;
use super::scan::candidates;
use super::tile::Pixel;
use crate::error::Result;
use crate::windows::Windows;

/// Pieces into which the exact sums of a query are cut, to share them among threads.
const CHUNKS: usize = 16;

/// Queries weighed before the monitor is asked again.
const AT_ONCE: usize = 8;

/// Candidates of a window below `2^-LIGHT` of its best weight, all together, are left out in the end.
const LIGHT: f64 = 24.0;

/// Pixels gathered at once from a window's candidates.
const PATCHES: usize = 1 << 16;

/// Candidates lie anywhere in the data, so that the caches are asked for this many before they are read.
const AHEAD: usize = 6;

/// The sums of a query and of its mirror image; none where lists did not pay.
pub(super) type Sums = Option<[Array3<f64>; 2]>;

/// Per query the weighted sums of centred stored pixels of its probe and of its flipped probe, `[channel, row, column]`.
/// The probes of flipped queries follow all others, in the same order.
pub(super) fn sums<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<Sums>> {
    let found = candidates(job, rounds)?;
    let queries = job.probes.iter().filter(|probe| !probe.flipped).count();
    let (forward, flipped) = found.split_at(queries);
    let weigh = |query: usize| {
        let sides = [Some(&forward[query]), flipped.get(query)];
        let few = sides.into_iter().flatten().all(|found| pays(job, found));
        few.then(|| Pair::new(job, query, queries, sides).sums(job))
    };
    let mut sums = Vec::with_capacity(queries);
    for start in (0..queries).step_by(AT_ONCE) {
        let some = start..queries.min(start + AT_ONCE);
        sums.extend(rounds.install(|| some.into_par_iter().map(weigh).collect::<Vec<_>>()));
        // Where a list was weighed, the second of two passes is not needed.
        let spared = sums[start..].iter().flatten().count() * job.probes.len() / queries;
        rounds.skip(spared * job.bank.len())?;
    }
    Ok(sums)
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
    sides: [Option<Side<'a>>; 2],
}

/// A probe and its candidates.
struct Side<'a> {
    probe: &'a Probe,
    windows: &'a Windows,
    least: &'a [f32],
    reading: Reading,
    found: ByWindow,
}

impl<'a> Pair<'a> {
    /// Query number `query` of `queries`.
    fn new<P: Pixel>(job: &Job<'a, P>, query: usize, queries: usize, found: [Option<&'a Candidates>; 2]) -> Self {
        let side = |side: usize| {
            let (found, probe) = (found[side]?, &job.probes[query + side * queries]);
            let (least, reading) = (&found.least, found.reading);
            Some(Side { probe, windows: job.view(probe), least, reading, found: found.by_window() })
        };
        Self { sides: [side(0), side(1)] }
    }

    fn sums<P: Pixel>(&self, job: &Job<'_, P>) -> [Array3<f64>; 2] {
        let count = job.views[0].count();
        let chunk = count.div_ceil(CHUNKS);
        let parts: Vec<_> = (0..CHUNKS)
            .into_par_iter()
            .map(|i| self.sums_of_windows(job, (i * chunk).min(count)..((i + 1) * chunk).min(count)))
            .collect();
        let mut sums = [0, 1].map(|_| Array3::zeros(job.bank.image_shape()));
        for part in parts {
            sums.iter_mut().zip(part).filter(|(_, part)| !part.is_empty()).for_each(|(sums, part)| *sums += &part);
        }
        sums
    }

    /// The sums of some windows; those of a side that is missing are empty.
    fn sums_of_windows<P: Pixel>(&self, job: &Job<'_, P>, windows: Range<usize>) -> [Array3<f64>; 2] {
        let mut spaces = self.sides.each_ref().map(|side| side.as_ref().map(|side| Space::new(job, side)));
        for k in windows {
            let twin = [k, job.views[0].mirror_index(k)];
            let mut spaces: Vec<_> = spaces.iter_mut().zip(twin).filter_map(|(s, k)| Some((s.as_mut()?, k))).collect();
            let mut least = f64::INFINITY;
            for (space, k) in &mut spaces {
                least = least.min(space.measure(job, *k));
            }
            let total: f64 = spaces.iter_mut().map(|(space, _)| space.weigh(least)).sum();
            for (space, _) in spaces {
                space.add(job, total);
            }
        }
        spaces.map(|space| space.map_or_else(|| Array3::zeros([0; 3]), |space| space.sums))
    }
}

/// One side on one window after the other.
struct Space<'a, P> {
    side: &'a Side<'a>,
    sums: Array3<f64>,
    runs: Vec<Range<usize>>,
    images: Vec<u32>,
    /// The squared distances of the images, then their weights.
    weights: Vec<f64>,
    patches: Patches<P>,
    patch: Vec<f64>,
}

impl<'a, P: Pixel> Space<'a, P> {
    fn new(job: &Job<'_, P>, side: &'a Side<'a>) -> Self {
        let sums = Array3::zeros(job.bank.image_shape());
        let (runs, images, weights, patch) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { side, sums, runs, images, weights, patches: Patches::default(), patch }
    }

    /// Moves to window `k` and computes the distances of its candidates; returns the least.
    fn measure(&mut self, job: &Job<'_, P>, k: usize) -> f64 {
        let Side { probe, windows, least, reading, found } = self.side;
        self.runs.clear();
        self.runs.extend(windows.runs(k));
        self.patches.start(job.bank.image_shape()[0] * windows.pixels(k));
        // So few are left that many light ones can weigh less together.
        let found = found.of(k);
        let bits = job.cutoff.min(LIGHT + (found.len().max(1) as f64).log2());
        let bound = reading.bound(least[k], (bits / probe.rate) as f32);
        self.images.clear();
        self.images.extend(found.iter().filter(|(_, energy)| *energy < bound).map(|&(image, _)| image));
        self.patches.gather(&probe.z, job.plane(), &self.runs, &mut self.patch);
        self.weights.clear();
        for first in (0..self.images.len()).step_by(self.at_once()) {
            self.load(job, first);
            self.patches.distances(job.isa, &self.patch, &mut self.weights);
        }
        self.weights.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Images whose patches are held at once.
    fn at_once(&self) -> usize {
        (PATCHES / self.patch.len()).max(1)
    }

    /// Gathers the patches of the images from `first` on.
    fn load(&mut self, job: &Job<'_, P>, first: usize) {
        self.patches.clear();
        let images = &self.images[first..];
        for (i, &image) in images.iter().enumerate().take(self.at_once()) {
            if let Some(&later) = images.get(i + AHEAD) {
                self.patches.prefetch(job.image(later as usize), job.plane(), &self.runs);
            }
            self.patches.push(job.image(image as usize), job.plane(), &self.runs);
        }
    }

    /// Turns distances into weights relative to the least distance of both sides, and returns their sum.
    fn weigh(&mut self, least: f64) -> f64 {
        let rate = self.side.probe.rate;
        self.weights.iter_mut().for_each(|weight| *weight = (rate * (least - *weight)).exp2());
        self.weights.iter().sum()
    }

    /// Adds the mean of the images under their weights, which sum to `total` over both sides.
    fn add(&mut self, job: &Job<'_, P>, total: f64) {
        self.patch.fill(0.0);
        let (scale, at_once) = (1.0 / total, self.at_once());
        self.weights.iter_mut().for_each(|weight| *weight *= scale);
        for first in (0..self.images.len()).step_by(at_once) {
            if self.images.len() > at_once {
                self.load(job, first);
            }
            self.patches.add_weighted(job.isa, &self.weights[first..], &mut self.patch);
        }
        let sums = self.sums.as_slice_mut().unwrap_or_default();
        self.patches.scatter_add(&self.patch, sums, job.plane(), &self.runs);
    }
}
