//! The full route: with the full image as the only window there is one weight per image, so weights are few enough to
//! keep, and pass 2 is a weighted mean. Where energies of float32 round too much, those of the images that may carry
//! weight are computed again in float64 ([`refine`]).

mod derivative;
pub(crate) mod image_panel;
mod means;
pub(crate) mod pixel_panel;
mod products;
mod refine;
mod single_query;
mod squares;

use std::ops::Range;

use ndarray::Array3;
use rayon::prelude::*;

use crate::cpu::job::Job;
use crate::cpu::penalties::Penalties;
use crate::cpu::probe::Probe;
use crate::cpu::scheduler::{Scheduler, WorkItem, blocks};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::simd::LANES;

pub(crate) use derivative::{Products, derivatives};
pub(crate) use squares::squares;

/// The fewest probes for which it pays to lay out images in panels.
const PANEL_FROM: usize = 3;

/// The posterior of a query over images, on the full window.
#[derive(Debug, Clone)]
pub(crate) struct ImagePosterior {
    /// The weight of every image, by position, of the query and, where flips count, of its mirror image.
    pub(crate) sides: Vec<Vec<f32>>,
    /// The logarithm of the sum of weights that are not normalised, in nats.
    pub(crate) log_evidence: f64,
    /// The entropy of the weights, in nats.
    pub(crate) entropy: f64,
}

impl ImagePosterior {
    /// The posterior of one of several ranks, of whose weights its images have a share with this base-2 logarithm; the entropy
    /// is what these add to that of all.
    pub(crate) fn shared(&self, log2_share: f64) -> Self {
        let (share, nats) = (log2_share.exp2(), log2_share * std::f64::consts::LN_2);
        let of_side = |weights: &Vec<f32>| weights.iter().map(|weight| weight * share as f32).collect();
        Self {
            sides: self.sides.iter().map(of_side).collect(),
            log_evidence: self.log_evidence - nats,
            entropy: if share > 0.0 { share * (self.entropy - nats) } else { 0.0 },
        }
    }
}

/// Pass 1: the posterior of every query.
pub(crate) fn evidence<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<ImagePosterior>> {
    let in_form = |probe: &Probe| (products::in_vectors(&probe.values), probe.terms().form);
    let values: Vec<_> = job.probes.iter().map(in_form).collect();
    let mut energies = products::sums_of_images(job, scheduler, &values)?;
    scheduler.install(|| penalise(job, &mut energies));
    let refined = refine::refine(job, scheduler, &mut energies)?;
    let mut flipped = energies.split_off(job.queries()).into_iter();
    let sides = energies.into_iter().map(|energies| [Some(energies), flipped.next()].into_iter().flatten().collect());
    let sides: Vec<Vec<Vec<f32>>> = sides.collect();
    let of_query = |(query, sides)| normalised(job, query, sides, refined[query]);
    Ok(scheduler.install(|| sides.into_par_iter().enumerate().map(of_query).collect()))
}

/// Pass 2: per probe the weighted sum of centred stored pixels, `[channel, row, column]`. The probes of flipped queries
/// follow all others, in the same order.
pub(crate) fn composites<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    posteriors: &[&ImagePosterior],
) -> Result<Vec<Array3<f64>>> {
    let sums = means::weighted_sums(job, scheduler, &weights_of_probes(job, posteriors))?;
    Ok(sums.into_iter().map(|sums| job.in_shape(sums)).collect())
}

/// The weights of every probe of a job.
fn weights_of_probes<'a, P: Pixel>(job: &Job<'_, P>, posteriors: &[&'a ImagePosterior]) -> Vec<&'a [f32]> {
    let queries = job.queries();
    (0..job.probes.len()).map(|probe| posteriors[probe % queries].sides[probe / queries].as_slice()).collect()
}

/// Adds the numbers for priors to the energies `[image]` of every probe; those of images that do not count become the largest
/// number.
fn penalise<P: Pixel>(job: &Job<'_, P>, energies: &mut [Vec<f32>]) {
    energies.par_iter_mut().zip(job.probes).for_each(|(energies, probe)| {
        if job.sources.has_prior() {
            for (energies, positions) in energies.chunks_mut(LANES).zip(blocks(0..job.len(), LANES)) {
                let bias = job.penalties(probe, positions).map_or([0.0; LANES], |Penalties { bias, .. }| bias);
                energies.iter_mut().zip(bias).for_each(|(energy, bias)| *energy += bias as f32);
            }
        }
        probe.left_out.iter().for_each(|&position| energies[position as usize] = f32::MAX);
    });
}

/// The images of a work item, `count` at a time.
fn images_at_once(item: &WorkItem, count: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    blocks(item.images.clone(), count)
}

/// Turns the energies of a query and its mirror image into weights that sum to one. Where the energies were `refined`, they
/// are distances from this least one.
fn normalised<P: Pixel>(
    job: &Job<'_, P>,
    query: usize,
    mut sides: Vec<Vec<f32>>,
    refined: Option<f64>,
) -> ImagePosterior {
    let probe = &job.probes[query];
    let logit_scale = probe.logit_scale;
    let least = f64::from(sides.iter().flatten().copied().fold(f32::MAX, f32::min));
    let (mut total, mut mean_logit) = (0.0, 0.0);
    for energy in sides.iter_mut().flat_map(|energies| energies.iter_mut()) {
        let logit = logit_scale * (least - f64::from(*energy));
        // Far below the cutoff a weight is zero, so that no product with it is subnormal.
        let share = if logit < -job.cutoff - 40.0 { 0.0 } else { logit.exp2() };
        total += share;
        mean_logit += if share > 0.0 { share * logit } else { 0.0 };
        *energy = share as f32;
    }
    for share in sides.iter_mut().flatten() {
        *share *= (1.0 / total) as f32;
    }
    let exact_least = refined.unwrap_or(least) + probe.energy_left_out(refined.is_some()).sum::<f64>();
    let bits = total.log2() - logit_scale * exact_least;
    ImagePosterior {
        sides,
        log_evidence: bits * std::f64::consts::LN_2 + job.sources.log_prior,
        entropy: (total.log2() - mean_logit / total).max(0.0) * std::f64::consts::LN_2,
    }
}
