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

/// Per query and window the mean of `b_kn`, the sum over window k of image n times a direction, given for each probe,
/// `[channel][pixel]`.
pub(crate) fn mean_products<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    lists: &[&WeighedLists],
    directions: &[Vec<f64>],
) -> Result<Vec<Vec<f64>>> {
    read_all(job, scheduler, lists, |query, lists| {
        let parts = in_parts(job, |windows| {
            let mut stages = stages_of(job, query);
            let mean = |k: usize| products_of_window(job, &mut stages, lists, (query, k), directions).1;
            windows.take_while(|_| !job.is_stopped()).map(mean).collect::<Vec<_>>()
        });
        parts.flatten().collect()
    })
}

/// The products of every image that carries weight on a window with the direction of its side, and their mean. The stages are
/// then at the window.
fn products_of_window<P: Pixel>(
    job: &Job<'_, P>,
    stages: &mut [SideStage<'_, P>],
    lists: &WeighedLists,
    (query, k): (usize, usize),
    directions: &[Vec<f64>],
) -> (Vec<Vec<f64>>, f64) {
    let mut mean = 0.0;
    let mut products = Vec::with_capacity(stages.len());
    for (side, stage) in stages.iter_mut().enumerate() {
        stage.recall(job, window_of_side(job, k, side), lists.of(side, k));
        let of_side = stage.products(job, &directions[query + side * job.queries()]);
        mean += stage.weights.iter().zip(&of_side).map(|(weight, product)| weight * product).sum::<f64>();
        products.push(of_side);
    }
    (products, mean)
}

/// Per query the sums of the derivative along a direction, given for each probe, `[channel][pixel]`: those of a composite with
/// the weights `w_kn (b_kn - mean of b_k)`, see [`mean_products`]. The means `[query][window]` are those of the lists, if none are
/// given.
pub(crate) fn derivatives<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    lists: &[&WeighedLists],
    directions: &[Vec<f64>],
    means: Option<&[Vec<f64>]>,
) -> Result<Vec<MirrorSums>> {
    read_all(job, scheduler, lists, |query, lists| {
        let parts = in_parts(job, |windows| {
            let mut stages = stages_of(job, query);
            for k in windows.take_while(|_| !job.is_stopped()) {
                let (products, own_mean) = products_of_window(job, &mut stages, lists, (query, k), directions);
                let mean = means.map_or(own_mean, |means| means[query][k]);
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

/// Moments of a query.
pub(crate) struct Moments {
    /// First moments of every window `[window][pixel of the window][channel]`.
    pub(crate) first: Vec<f64>,
    /// Second moments of the middle pixels `[window][channel]`.
    pub(crate) middles: Vec<f64>,
    /// Second moments, summed over the windows at a pixel.
    pub(crate) second: MirrorSums,
}

/// Per query the moments of the differences from means, which are given for each probe, `[channel][pixel]`.
pub(crate) fn moments<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    lists: &[&WeighedLists],
    means: &[Vec<f64>],
) -> Result<Vec<Moments>> {
    let (channels, plane, queries) = (job.bank.image_shape()[0], job.plane(), job.queries());
    read_all(job, scheduler, lists, |query, lists| {
        let parts = in_parts(job, |windows| {
            let mut stages = stages_of(job, query);
            let (mut first, mut middles) = (Vec::new(), Vec::with_capacity(windows.len() * channels));
            let mut mean = vec![0.0; channels * plane];
            for k in windows.take_while(|_| !job.is_stopped()) {
                recall_mean(job, &mut stages, lists, k, &mut mean);
                if stages.len() > 1 {
                    mirror(job, &mut mean);
                }
                let share: f64 = stages.iter().flat_map(|stage| &stage.weights).sum();
                for p in job.mirrors[0].runs(k).flatten() {
                    let places = (0..channels).map(|c| c * plane + p);
                    first.extend(places.map(|place| mean[place] - share * means[query][place]));
                }
                let mut middle = vec![0.0; channels];
                for (side, stage) in stages.iter_mut().enumerate() {
                    add_squares(job, stage, (side, k), &means[query + side * queries], &mut middle);
                }
                middles.extend(middle);
            }
            let mut sums = stages.into_iter().map(|stage| stage.sums);
            (first, middles, [sums.next(), sums.next()])
        });
        let (mut first, mut middles, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            first.extend(part.0);
            middles.extend(part.1);
            sums.push(part.2);
        }
        Moments { first, middles, second: add_up(job, sums.into_iter()) }
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
    recall_mean(job, stages, lists, k, mean);
    let (mut middle, sides) = (vec![0.0; job.bank.image_shape()[0]], stages.len());
    for (side, stage) in stages.iter_mut().enumerate().rev() {
        if side == 0 && sides > 1 {
            mirror(job, mean);
        }
        add_squares(job, stage, (side, k), mean, &mut middle);
    }
    middle
}

/// Moves every stage to a window, and finds the weighted sum of its images there `[channel][pixel]`, as the last side sees it.
fn recall_mean<P: Pixel>(
    job: &Job<'_, P>,
    stages: &mut [SideStage<'_, P>],
    lists: &WeighedLists,
    k: usize,
    mean: &mut [f64],
) {
    let plane = job.plane();
    for p in job.mirrors[0].runs(k).flatten() {
        mean[p..].iter_mut().step_by(plane).for_each(|sum| *sum = 0.0);
    }
    for (side, stage) in stages.iter_mut().enumerate() {
        stage.recall(job, window_of_side(job, k, side), lists.of(side, k));
        if side == 1 {
            mirror(job, mean);
        }
        stage.add_mean(job, mean);
    }
}

/// Adds the squared differences from a mean `[channel][pixel]` to the sums of a side, whose stage is at window k, and those of the
/// middle pixel to `middle` `[channel]`.
fn add_squares<P: Pixel>(
    job: &Job<'_, P>,
    stage: &mut SideStage<'_, P>,
    (side, k): (usize, usize),
    mean: &[f64],
    middle: &mut [f64],
) {
    let (plane, width, at) = (job.plane(), job.mirrors[0].width(), job.mirrors[0].middle(k));
    let at = if side == 0 { at } else { at - at % width + (width - 1 - at % width) };
    let of_middle = |stage: &SideStage<'_, P>, c: usize| stage.sums.as_slice().unwrap_or_default()[c * plane + at];
    middle.iter_mut().enumerate().for_each(|(c, sum)| *sum -= of_middle(stage, c));
    stage.add_squares(job, mean);
    middle.iter_mut().enumerate().for_each(|(c, sum)| *sum += of_middle(stage, c));
}

/// Mirrors an image `[channel][row][column]` left to right.
fn mirror<P: Pixel>(job: &Job<'_, P>, image: &mut [f64]) {
    image.chunks_exact_mut(job.mirrors[0].width()).for_each(<[f64]>::reverse);
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
