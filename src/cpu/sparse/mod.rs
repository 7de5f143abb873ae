//! The sparse route, for small sigma: a scan finds the few images that carry weight on each window, and only those are
//! weighed, in `f64`. A composite takes them in one go; for anything else their weights are kept ([`lists`]).
//!
//! Where so many images carry weight that a list does not pay, the query is left to the dense or full route. The lists
//! depend on the data alone, and so does the result.

mod candidates;
pub(crate) mod fixed_point_scan;
pub(crate) mod lists;
mod patches;
mod readings;
mod scan;
mod stage;

use std::ops::Range;

use ndarray::Array3;
use rayon::prelude::*;

use crate::cpu::job::Job;
use crate::cpu::scheduler::Scheduler;
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::found::MirrorSums;
use crate::regime::{TAIL_BITS, max_candidates, max_listed_pixels};
use candidates::{ByWindow, Candidate, Candidates};
pub(crate) use lists::WeighedLists;
use lists::WindowsOfLists;
pub(crate) use readings::{Moments, composites, derivatives, mean_products, moments, read_all, variances};
use stage::SideStage;

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

/// Per query the weighted sums of centred stored pixels of its probe and of its flipped probe, `[channel, row, column]`; none
/// where a list does not pay.
pub(crate) fn sums<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Option<MirrorSums>>> {
    let weigh = |pair: &MirrorPair<'_>| {
        let parts = in_parts(job, |windows| {
            pair.weigh(job, windows, TAIL_BITS, |_, stages, totals| {
                for (stage, _) in stages {
                    stage.add(job, 1.0 / totals.sum);
                }
            })
        });
        add_up(job, parts.map(|stages| stages.map(|stage| stage.map(|stage| stage.sums))))
    };
    weigh_all(job, scheduler, weigh)
}

/// Per query the images that carry weight on every window, and their weights; none where a list does not pay.
pub(crate) fn evidence<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
) -> Result<Vec<Option<WeighedLists>>> {
    let weigh = |pair: &MirrorPair<'_>| {
        let part = |windows| {
            let mut lists = WindowsOfLists::default();
            // Derivatives divide what is left out by sigma^2, so that nothing is.
            pair.weigh(job, windows, f64::INFINITY, |_, stages, totals| {
                lists.push(totals.log2(job.probes[pair.query].logit_scale), |side| {
                    let stage = stages.iter().find(|(stage, _)| usize::from(stage.probe.flipped) == side);
                    stage.map(|(stage, _)| stage.weighed(1.0 / totals.sum))
                });
            });
            lists
        };
        WeighedLists::joined(in_parts(job, part))
    };
    weigh_all(job, scheduler, weigh)
}

/// Scans for the images of every query that carry weight, and weighs those of each whose lists pay.
fn weigh_all<P: Pixel, R: Send>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    weigh: impl Fn(&MirrorPair<'_>) -> R + Sync,
) -> Result<Vec<Option<R>>> {
    let candidates = scan::candidates(job, scheduler)?;
    let queries = job.queries();
    let (forward, flipped) = candidates.split_at(queries);
    let weigh_query = |query: usize| {
        let sides = [Some(&forward[query]), flipped.get(query)];
        let pay = sides.into_iter().flatten().all(|candidates| pays(job, candidates));
        pay.then(|| weigh(&MirrorPair::new(query, sides)))
    };
    let listed: usize = candidates.iter().map(|candidates| listed_pixels(job, candidates)).sum();
    let mut found = Vec::with_capacity(queries);
    for start in (0..queries).step_by(QUERIES_PER_STEP) {
        let step = start..queries.min(start + QUERIES_PER_STEP);
        let all = || step.into_par_iter().map(weigh_query).collect::<Vec<_>>();
        found.extend(scheduler.run_watched(WEIGHING_COST * listed, all)?);
        // Where a list was weighed, the second of two passes is not needed.
        let skipped = found[start..].iter().flatten().count() * job.probes.len() / queries;
        scheduler.skip(skipped * job.len())?;
    }
    Ok(found)
}

/// What `work` finds for consecutive parts of the windows, which threads share.
pub(crate) fn in_parts<P: Pixel, R: Send>(
    job: &Job<'_, P>,
    work: impl Fn(Range<usize>) -> R + Sync,
) -> impl Iterator<Item = R> {
    let count = job.mirrors[0].count();
    let len = count.div_ceil(WINDOW_PARTS);
    let part = |i: usize| work((i * len).min(count)..((i + 1) * len).min(count));
    (0..WINDOW_PARTS).into_par_iter().map(part).collect::<Vec<_>>().into_iter()
}

/// The sums of parts of the windows, added up side by side.
pub(crate) fn add_up<P: Pixel>(job: &Job<'_, P>, parts: impl Iterator<Item = [Option<Array3<f64>>; 2]>) -> MirrorSums {
    let mut sums = [0, 1].map(|_| Array3::zeros(job.bank.image_shape()));
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sums, part)| part.into_iter().for_each(|part| *sums += &part));
    }
    sums
}

/// Window `k` of a query as its probe (side 0) or its flipped probe sees it.
pub(crate) fn window_of_side<P: Pixel>(job: &Job<'_, P>, k: usize, side: usize) -> usize {
    if side == 0 { k } else { job.mirrors[0].mirror_index(k) }
}

/// Working space for each probe of a query.
pub(crate) fn stages_of<'a, P: Pixel>(job: &Job<'a, P>, query: usize) -> Vec<SideStage<'a, P>> {
    job.sides(query).map(|probe| SideStage::new(job, probe)).collect()
}

/// Whether weighing the listed images alone, in `f64`, is cheaper than a dense pass over all of them.
fn pays<P: Pixel>(job: &Job<'_, P>, candidates: &Candidates) -> bool {
    !candidates.given_up && listed_pixels(job, candidates) <= max_listed_pixels(job.len(), job.plane())
}

/// The pixels of the windows of all listed images.
fn listed_pixels<P: Pixel>(job: &Job<'_, P>, candidates: &Candidates) -> usize {
    candidates.list.iter().map(|candidate| job.mirrors[0].pixels(candidate.window as usize)).sum()
}

/// The candidates of a query, and of its mirror image if flips count.
struct MirrorPair<'a> {
    query: usize,
    sides: [Option<(&'a Candidates, ByWindow)>; 2],
}

/// The sum of the weights on a window, relative to the least energy.
struct Totals {
    least: f64,
    sum: f64,
}

impl Totals {
    /// The base-2 logarithm of the sum of weights.
    fn log2(&self, logit_scale: f64) -> f64 {
        self.sum.log2() - logit_scale * self.least
    }
}

impl<'a> MirrorPair<'a> {
    fn new(query: usize, candidates: [Option<&'a Candidates>; 2]) -> Self {
        Self { query, sides: candidates.map(|of_side| of_side.map(|candidates| (candidates, candidates.by_window()))) }
    }

    /// Weighs the candidates of some windows, but for those `cutoff` powers of two below the best, all together; `consume` gets every window, the stage of each side with the window as that
    /// side sees it, and the sum of weights.
    fn weigh<P: Pixel>(
        &self,
        job: &Job<'a, P>,
        windows: Range<usize>,
        cutoff: f64,
        mut consume: impl FnMut(usize, &mut [(&mut SideStage<'a, P>, usize)], &Totals),
    ) -> [Option<SideStage<'a, P>>; 2] {
        let mut of_query = stages_of(job, self.query).into_iter();
        let mut stages = [of_query.next(), of_query.next()];
        for k in windows.take_while(|_| !job.is_stopped()) {
            let sides = stages.iter_mut().enumerate();
            let mut twins: Vec<_> =
                sides.filter_map(|(side, stage)| Some((stage.as_mut()?, window_of_side(job, k, side)))).collect();
            let mut least = f64::INFINITY;
            for ((stage, k), side) in twins.iter_mut().zip(self.sides.iter().flatten()) {
                least = least.min(stage.measure(job, *k, side, cutoff));
            }
            let sum = twins.iter_mut().map(|(stage, _)| stage.weigh(least)).sum();
            consume(k, &mut twins, &Totals { least, sum });
        }
        stages
    }
}
