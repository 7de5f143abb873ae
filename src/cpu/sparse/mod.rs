//! The sparse route, for small sigma: a scan finds the few images that carry weight on each window, and only those are
//! weighed, in `f64`.
//!
//! Where so many images carry weight that a list does not pay, the query is left to the dense or full route. The lists
//! depend on the data alone, and so does the result.

mod candidates;
pub(crate) mod fixed_point_scan;
mod patches;
mod scan;

use std::ops::Range;

use ndarray::Array3;
use rayon::prelude::*;

use crate::components::Components;
use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::scheduler::Scheduler;
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::regime::{TAIL_BITS, max_candidates, max_listed_pixels};
use candidates::{ByWindow, Candidate, Candidates, ErrorBound};
use patches::Patches;

/// Bytes of the longest list of candidates.
pub(crate) fn max_list_bytes(windows: usize) -> usize {
    max_candidates(windows) * size_of::<Candidate>()
}

/// Parts into which the windows of a query are cut, to share them among threads.
const WINDOW_PARTS: usize = 16;

/// Queries weighed between two calls of the monitor.
const QUERIES_PER_STEP: usize = 8;

/// How many times as long as in a dense pass a listed pixel takes.
const WEIGHING_COST: usize = 8;

/// Pixels of a window's candidates that are gathered at once.
const GATHERED_PIXELS: usize = 1 << 16;

/// Candidates lie anywhere in the data, so each is prefetched this many candidates ahead of its use.
const PREFETCH_DISTANCE: usize = 6;

/// The sums of a query and of its mirror image; none where a list does not pay.
pub(crate) type Sums = Option<[Array3<f64>; 2]>;

/// Per query the weighted sums of centred stored pixels of its probe and of its flipped probe, `[channel, row, column]`.
/// The probes of flipped queries follow all others, in the same order.
pub(crate) fn sums<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Sums>> {
    let candidates = scan::candidates(job, scheduler)?;
    let queries = job.queries();
    let (forward, flipped) = candidates.split_at(queries);
    let weigh = |query: usize| {
        let sides = [Some(&forward[query]), flipped.get(query)];
        let pay = sides.into_iter().flatten().all(|candidates| pays(job, candidates));
        pay.then(|| MirrorPair::new(job, query, queries, sides).sums(job))
    };
    let mut sums = Vec::with_capacity(queries);
    for start in (0..queries).step_by(QUERIES_PER_STEP) {
        let step = start..queries.min(start + QUERIES_PER_STEP);
        let listed: usize = candidates.iter().map(|candidates| listed_pixels(job, candidates)).sum();
        let weigh_all = || step.into_par_iter().map(weigh).collect::<Vec<_>>();
        sums.extend(scheduler.run_watched(WEIGHING_COST * listed, weigh_all)?);
        // Where a list was weighed, the second of two passes is not needed.
        let skipped = sums[start..].iter().flatten().count() * job.probes.len() / queries;
        scheduler.skip(skipped * job.bank.len())?;
    }
    Ok(sums)
}

/// Whether weighing the listed images alone, in `f64`, is cheaper than a dense pass over all of them.
fn pays<P: Pixel>(job: &Job<'_, P>, candidates: &Candidates) -> bool {
    !candidates.given_up && listed_pixels(job, candidates) <= max_listed_pixels(job.bank.len(), job.plane())
}

/// The pixels of the windows of all listed images.
fn listed_pixels<P: Pixel>(job: &Job<'_, P>, candidates: &Candidates) -> usize {
    candidates.list.iter().map(|candidate| job.mirrors[0].pixels(candidate.window as usize)).sum()
}

/// One query, its mirror image if flips count, and the candidates of both.
struct MirrorPair<'a> {
    sides: [Option<Side<'a>>; 2],
}

/// A probe and its candidates.
struct Side<'a> {
    probe: &'a Probe,
    components: &'a Components,
    least: &'a [f32],
    error_bound: ErrorBound,
    candidates: ByWindow,
}

impl<'a> MirrorPair<'a> {
    /// Query number `query` of `queries`.
    fn new<P: Pixel>(job: &Job<'a, P>, query: usize, queries: usize, candidates: [Option<&'a Candidates>; 2]) -> Self {
        let side = |side: usize| {
            let (candidates, probe) = (candidates[side]?, &job.probes[query + side * queries]);
            let (least, error_bound) = (&candidates.least, candidates.error_bound);
            Some(Side {
                probe,
                components: job.components_of(probe),
                least,
                error_bound,
                candidates: candidates.by_window(),
            })
        };
        Self { sides: [side(0), side(1)] }
    }

    fn sums<P: Pixel>(&self, job: &Job<'_, P>) -> [Array3<f64>; 2] {
        let count = job.mirrors[0].count();
        let len = count.div_ceil(WINDOW_PARTS);
        let parts: Vec<_> = (0..WINDOW_PARTS)
            .into_par_iter()
            .map(|i| self.sums_of_windows(job, (i * len).min(count)..((i + 1) * len).min(count)))
            .collect();
        let mut sums = [0, 1].map(|_| Array3::zeros(job.bank.image_shape()));
        for part in parts {
            sums.iter_mut().zip(part).filter(|(_, part)| !part.is_empty()).for_each(|(sums, part)| *sums += &part);
        }
        sums
    }

    /// The sums of some windows; those of a side that is missing are empty.
    fn sums_of_windows<P: Pixel>(&self, job: &Job<'_, P>, windows: Range<usize>) -> [Array3<f64>; 2] {
        let mut stages = self.sides.each_ref().map(|side| side.as_ref().map(|side| SideStage::new(job, side)));
        for k in windows.take_while(|_| !job.is_stopped()) {
            let twin = [k, job.mirrors[0].mirror_index(k)];
            let mut stages: Vec<_> = stages.iter_mut().zip(twin).filter_map(|(s, k)| Some((s.as_mut()?, k))).collect();
            let mut least = f64::INFINITY;
            for (stage, k) in &mut stages {
                least = least.min(stage.measure(job, *k));
            }
            let total: f64 = stages.iter_mut().map(|(stage, _)| stage.weigh(least)).sum();
            for (stage, _) in stages {
                stage.add(job, total);
            }
        }
        stages.map(|stage| stage.map_or_else(|| Array3::zeros([0; 3]), |stage| stage.sums))
    }
}

/// Working space that weighs the candidates of one side, window by window.
struct SideStage<'a, P> {
    side: &'a Side<'a>,
    sums: Array3<f64>,
    runs: Vec<Range<usize>>,
    images: Vec<u32>,
    /// The squared distances of the images, then their weights.
    weights: Vec<f64>,
    patches: Patches<P>,
    patch: Vec<f64>,
}

impl<'a, P: Pixel> SideStage<'a, P> {
    fn new(job: &Job<'_, P>, side: &'a Side<'a>) -> Self {
        let sums = Array3::zeros(job.bank.image_shape());
        let (runs, images, weights, patch) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { side, sums, runs, images, weights, patches: Patches::default(), patch }
    }

    /// Moves to window `k` and computes the distances of its candidates; returns the least.
    fn measure(&mut self, job: &Job<'_, P>, k: usize) -> f64 {
        let Side { probe, components, least, error_bound, candidates } = self.side;
        self.runs.clear();
        self.runs.extend(components.runs(k));
        self.patches.start(job.bank.image_shape()[0] * components.pixels(k), job.centre);
        // Few images are listed for a window, so a cut-off at a larger weight still leaves out a negligible part of the
        // sum.
        let candidates = candidates.of(k);
        let bits = job.cutoff.min(TAIL_BITS + (candidates.len().max(1) as f64).log2());
        let bound = error_bound.bound(least[k], (bits / probe.logit_scale) as f32);
        self.images.clear();
        self.images.extend(candidates.iter().filter(|(_, energy)| *energy < bound).map(|&(image, _)| image));
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
        (GATHERED_PIXELS / self.patch.len()).max(1)
    }

    /// Gathers the patches of the images from `first` on.
    fn load(&mut self, job: &Job<'_, P>, first: usize) {
        self.patches.clear();
        let images = &self.images[first..];
        for (i, &image) in images.iter().enumerate().take(self.at_once()) {
            if let Some(&later) = images.get(i + PREFETCH_DISTANCE) {
                Patches::prefetch(job.image(later as usize), job.plane(), &self.runs);
            }
            self.patches.push(job.image(image as usize), job.plane(), &self.runs);
        }
    }

    /// Turns distances into weights relative to the least distance of both sides, and returns their sum.
    fn weigh(&mut self, least: f64) -> f64 {
        let logit_scale = self.side.probe.logit_scale;
        self.weights.iter_mut().for_each(|weight| *weight = (logit_scale * (least - *weight)).exp2());
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
