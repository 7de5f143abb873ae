//! Derivatives on the full window: means of images under weights that are tilted by inner products with a direction.

use ndarray::Array3;
use rayon::prelude::*;

use super::{ImagePosterior, means, products, weights_of_probes};
use crate::cpu::dense::residuals::PRODUCTS;
use crate::cpu::job::Job;
use crate::cpu::scheduler::Scheduler;
use crate::cpu::tile::Pixel;
use crate::error::Result;

/// Per probe the sum of centred stored pixels, `[channel, row, column]`, under the weights `w_n (b_n - mean of b)`, with `b_n`
/// the inner product of image n and the probe's `direction` `[channel][pixel]`; and per query what those weights sum to, which
/// would be zero but for rounding.
pub(crate) fn derivatives<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    posteriors: &[&ImagePosterior],
    directions: &[Vec<f64>],
) -> Result<(Vec<Array3<f64>>, Vec<f64>)> {
    let in_float = |values: &Vec<f64>| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
    let values: Vec<_> =
        directions.iter().map(|direction| (products::in_vectors(&in_float(direction)), PRODUCTS)).collect();
    let rough = products::sums_of_images(job, scheduler, &values)?;
    let weights = weights_of_probes(job, posteriors);
    let mut tilted: Vec<Vec<f64>> = scheduler.install(|| {
        let products =
            |(probe, rough): (usize, Vec<f32>)| exact_products(job, weights[probe], &directions[probe], &rough);
        rough.into_par_iter().enumerate().map(products).collect()
    });
    let queries = job.queries();
    let mut residuals = vec![0.0; queries];
    for (query, residual) in residuals.iter_mut().enumerate() {
        let sides: Vec<usize> = (query..tilted.len()).step_by(queries).collect();
        let (mut mean, mut total) = (0.0, 0.0);
        for &side in &sides {
            for (&weight, product) in weights[side].iter().zip(&tilted[side]) {
                mean += f64::from(weight) * product;
                total += f64::from(weight);
            }
        }
        mean /= total;
        for side in sides {
            for (&weight, value) in weights[side].iter().zip(&mut tilted[side]) {
                *value = f64::from((f64::from(weight) * (*value - mean)) as f32);
                *residual += *value;
            }
        }
    }
    let tilted: Vec<Vec<f32>> = tilted.iter().map(in_float).collect();
    let sums = means::weighted_sums(job, scheduler, &tilted.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    Ok((sums.into_iter().map(|sums| job.in_shape(sums)).collect(), residuals))
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
