//! Passes over the images that are known to carry weight: composites, derivatives, variances.

use rayon::prelude::*;

use super::lists::WeighedLists;
use super::stage::SideStage;
use super::{QUERIES_PER_STEP, WEIGHING_COST, add_up, in_parts, stages_of, window_of_side};
use crate::cpu::job::Job;
use crate::cpu::scheduler::Scheduler;
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::found::MirrorSums;

/// Per query the sums of a composite, given the images that carry weight and their weights.
pub(crate) fn composites<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    lists: &[&WeighedLists],
) -> Result<Vec<MirrorSums>> {
    read_all(job, scheduler, lists, |query, lists| {
        let parts = in_parts(job, |windows| {
            let mut stages = stages_of(job, query);
            for k in windows.take_while(|_| !job.is_stopped()) {
                for (side, stage) in stages.iter_mut().enumerate() {
                    stage.recall(job, window_of_side(job, k, side), lists.of(side, k));
                    stage.add(job, 1.0);
                }
            }
            let mut sums = stages.into_iter().map(|stage| stage.sums);
            [sums.next(), sums.next()]
        });
        add_up(job, parts)
    })
}

/// Per query the sums of the derivative along a direction, given for each probe, `[channel][pixel]`: those of a composite with
/// the weights `w_kn (b_kn - mean of b_k)`, with `b_kn` the sum over window k of image n times the direction.
pub(crate) fn derivatives<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    lists: &[&WeighedLists],
    directions: &[Vec<f64>],
) -> Result<Vec<MirrorSums>> {
    let queries = job.queries();
    read_all(job, scheduler, lists, |query, lists| {
        let parts = in_parts(job, |windows| {
            let mut stages = stages_of(job, query);
            for k in windows.take_while(|_| !job.is_stopped()) {
                let mut mean = 0.0;
                let mut products = Vec::with_capacity(stages.len());
                for (side, stage) in stages.iter_mut().enumerate() {
                    stage.recall(job, window_of_side(job, k, side), lists.of(side, k));
                    let of_side = stage.products(job, &directions[query + side * queries]);
                    mean += stage.weights.iter().zip(&of_side).map(|(weight, product)| weight * product).sum::<f64>();
                    products.push(of_side);
                }
                for (stage, products) in stages.iter_mut().zip(products) {
                    stage.weights.iter_mut().zip(products).for_each(|(weight, product)| *weight *= product - mean);
                    stage.add(job, 1.0);
                }
            }
            let mut sums = stages.into_iter().map(|stage| stage.sums);
            [sums.next(), sums.next()]
        });
        add_up(job, parts)
    })
}

/// Per query the sums over the windows at a pixel of its variances, and the variances of the middle pixels, `[window][channel]`.
pub(crate) fn variances<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    lists: &[&WeighedLists],
) -> Result<Vec<(MirrorSums, Vec<f64>)>> {
    let (channels, len) = (job.bank.image_shape()[0], job.bank.image_len());
    read_all(job, scheduler, lists, |query, lists| {
        let parts = in_parts(job, |windows| {
            let mut stages = stages_of(job, query);
            let (mut middles, mut mean) = (Vec::with_capacity(windows.len() * channels), vec![0.0; len]);
            for k in windows.take_while(|_| !job.is_stopped()) {
                middles.extend(variances_of_window(job, &mut stages, lists, k, &mut mean));
            }
            let mut sums = stages.into_iter().map(|stage| stage.sums);
            ([sums.next(), sums.next()], middles)
        });
        let (sums, middles): (Vec<_>, Vec<Vec<f64>>) = parts.unzip();
        (add_up(job, sums.into_iter()), middles.concat())
    })
}

/// Adds the variances of a window to the sums of each side; returns those of its middle pixel. `mean` is working space as long
/// as an image.
fn variances_of_window<P: Pixel>(
    job: &Job<'_, P>,
    stages: &mut [SideStage<'_, P>],
    lists: &WeighedLists,
    k: usize,
    mean: &mut [f64],
) -> Vec<f64> {
    let (components, plane, width) = (&job.mirrors[0], job.plane(), job.mirrors[0].width());
    let channels = mean.len() / plane;
    let clear = |image: &mut [f64]| {
        components.runs(k).flatten().for_each(|p| (0..channels).for_each(|c| image[c * plane + p] = 0.0));
    };
    let mirror = |image: &mut [f64]| image.chunks_exact_mut(width).for_each(<[f64]>::reverse);
    clear(mean);
    for (side, stage) in stages.iter_mut().enumerate() {
        stage.recall(job, window_of_side(job, k, side), lists.of(side, k));
        if side == 1 {
            mirror(mean);
        }
        stage.add_mean(job, mean);
    }
    let at = components.middle(k);
    let mut middle = vec![0.0; channels];
    for (side, stage) in stages.iter_mut().enumerate().rev() {
        let at = if side == 0 { at } else { at - at % width + (width - 1 - at % width) };
        if side == 0 && job.probes.len() > job.queries() {
            mirror(mean);
        }
        for (c, sum) in middle.iter_mut().enumerate() {
            *sum -= stage.sums.as_slice().unwrap_or_default()[c * plane + at];
        }
        stage.add_squares(job, mean);
        for (c, sum) in middle.iter_mut().enumerate() {
            *sum += stage.sums.as_slice().unwrap_or_default()[c * plane + at];
        }
    }
    middle
}

/// Reads the lists of every query.
pub(crate) fn read_all<P: Pixel, R: Send>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    lists: &[&WeighedLists],
    read: impl Fn(usize, &WeighedLists) -> R + Sync,
) -> Result<Vec<R>> {
    let queries = job.queries();
    let mut found = Vec::with_capacity(queries);
    for start in (0..queries).step_by(QUERIES_PER_STEP) {
        let step = start..queries.min(start + QUERIES_PER_STEP);
        let listed: usize = lists[step.clone()].iter().map(|lists| lists.len()).sum();
        let pixels = job.mirrors[0].pixels(0).saturating_mul(listed);
        let count = step.len() * job.probes.len() / queries;
        let all = || step.into_par_iter().map(|query| read(query, lists[query])).collect::<Vec<_>>();
        found.extend(scheduler.run_watched(WEIGHING_COST.saturating_mul(pixels), all)?);
        scheduler.skip(count * job.len())?;
    }
    Ok(found)
}
