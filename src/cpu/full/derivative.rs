//! Derivatives on the full window: means of images under weights that are tilted by inner products with a direction.

use ndarray::Array3;
use rayon::prelude::*;

use super::{ImagePosterior, means, products, weights_of_probes};
use crate::cpu::dense::residuals::PRODUCTS;
use crate::cpu::job::Job;
use crate::cpu::scheduler::Scheduler;
use crate::cpu::tile::Pixel;
use crate::error::Result;

/// Per probe the inner products of every image and the probe's direction `[channel][pixel]`.
pub(crate) struct Products(Vec<Vec<f64>>);

impl Products {
    pub(crate) fn new<P: Pixel>(
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&ImagePosterior],
        directions: &[Vec<f64>],
    ) -> Result<Self> {
        let values: Vec<_> =
            directions.iter().map(|direction| (products::in_vectors(&in_float(direction)), PRODUCTS)).collect();
        let rough = products::sums_of_images(job, scheduler, &values)?;
        let weights = weights_of_probes(job, posteriors);
        let of_probe =
            |(probe, rough): (usize, Vec<f32>)| exact_products(job, weights[probe], &directions[probe], &rough);
        Ok(Self(scheduler.install(|| rough.into_par_iter().enumerate().map(of_probe).collect())))
    }

    /// Their mean under the posterior of every query, mirror images included.
    pub(crate) fn means<P: Pixel>(&self, job: &Job<'_, P>, posteriors: &[&ImagePosterior]) -> Vec<f64> {
        let weights = weights_of_probes(job, posteriors);
        let of_query = |query: usize| {
            let (mut mean, mut total) = (0.0, 0.0);
            for side in (query..self.0.len()).step_by(job.queries()) {
                for (&weight, product) in weights[side].iter().zip(&self.0[side]) {
                    mean += f64::from(weight) * product;
                    total += f64::from(weight);
                }
            }
            mean / total
        };
        (0..job.queries()).map(of_query).collect()
    }
}

/// Per probe the sum of centred stored pixels, `[channel, row, column]`, under the weights `w_n (b_n - mean of b)`, with `b_n`
/// the products and one mean for every query; and per query what those weights sum to, which would be zero but for rounding.
pub(crate) fn derivatives<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    posteriors: &[&ImagePosterior],
    Products(mut tilted): Products,
    means: &[f64],
) -> Result<(Vec<Array3<f64>>, Vec<f64>)> {
    let (weights, queries) = (weights_of_probes(job, posteriors), job.queries());
    let mut residuals = vec![0.0; queries];
    for (side, tilted) in tilted.iter_mut().enumerate() {
        let (mean, residual) = (means[side % queries], &mut residuals[side % queries]);
        for (&weight, value) in weights[side].iter().zip(tilted) {
            *value = f64::from((f64::from(weight) * (*value - mean)) as f32);
            *residual += *value;
        }
    }
    let tilted: Vec<Vec<f32>> = tilted.iter().map(|tilted| in_float(tilted)).collect();
    let sums = means::weighted_sums(job, scheduler, &tilted.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    Ok((sums.into_iter().map(|sums| job.in_shape(sums)).collect(), residuals))
}

fn in_float(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// The inner products of all images and a direction; in float64 where few images carry weight, which then differ by little.
fn exact_products<P: Pixel>(job: &Job<'_, P>, weights: &[f32], direction: &[f64], rough: &[f32]) -> Vec<f64> {
    /// Where one image in so many carries weight, or fewer, float64 costs no more than the pass before it.
    const FEW: usize = 16;
    let is_heavy = |weight: f32| weight > f32::EPSILON * f32::EPSILON;
    if weights.iter().filter(|&&weight| is_heavy(weight)).count() > weights.len().div_ceil(FEW) {
        return rough.iter().map(|&product| f64::from(product)).collect();
    }
    let product = |position: usize| {
        job.image(position).iter().zip(direction).map(|(pixel, value)| pixel.number(job.centre) * value).sum()
    };
    let of_image = |(position, (&weight, &rough)): (usize, (&f32, &f32))| {
        if is_heavy(weight) { product(position) } else { f64::from(rough) }
    };
    weights.iter().zip(rough).enumerate().map(of_image).collect()
}
