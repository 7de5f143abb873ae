//! Sums of squared differences from a mean, on the full window: variances of pixels.

use ndarray::Array3;

use super::{ImagePosterior, images_at_once, weights_of_probes};
use crate::cpu::job::Job;
use crate::cpu::scheduler::Scheduler;
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::simd::{Kernel, Vector};

/// Per probe the sums of squared differences between the images and `means`, `[channel][pixel]`, under the weights.
pub(crate) fn squares<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    posteriors: &[&ImagePosterior],
    means: &[Vec<f64>],
) -> Result<Vec<Array3<f64>>> {
    let weights = weights_of_probes(job, posteriors);
    let len = job.bank.image_len();
    let mut sums: Vec<Vec<f64>> = job.probes.iter().map(|_| vec![0.0; len]).collect();
    let in_float: Vec<Vec<f32>> = means.iter().map(|means| means.iter().map(|&mean| mean as f32).collect()).collect();
    scheduler.run(
        job,
        &mut sums,
        || (),
        |item, ()| {
            let of_probe = |probe: usize| {
                let mut totals = vec![0.0; len];
                for images in images_at_once(item, SQUARED_IMAGES) {
                    let mut sums = vec![0.0_f32; len];
                    for position in images.filter(|&position| weights[probe][position] > 0.0 && !job.is_stopped()) {
                        let (image, weight) = (job.image(position), weights[probe][position]);
                        job.isa.run(AddSquares {
                            image,
                            centre: job.centre,
                            means: &in_float[probe],
                            weight,
                            sums: &mut sums,
                        });
                    }
                    totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += f64::from(sum));
                }
                totals
            };
            item.probes.clone().map(of_probe).collect()
        },
        |sums, of_shard| sums.iter_mut().zip(of_shard).for_each(|(sum, value)| *sum += value),
    )?;
    Ok(sums.into_iter().map(|sums| job.in_shape(sums)).collect())
}

/// Images whose squares are summed in float32 before they are added to others in float64.
const SQUARED_IMAGES: usize = 256;

/// Adds the squared differences between an image and means, times a weight.
struct AddSquares<'a, P: Pixel> {
    image: &'a [P],
    centre: f32,
    means: &'a [f32],
    weight: f32,
    sums: &'a mut [f32],
}

impl<P: Pixel> Kernel for AddSquares<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { image, centre, means, weight, sums } = self;
        for ((pixel, mean), sum) in image.iter().zip(means).zip(sums) {
            let difference = pixel.number(centre) as f32 - mean;
            *sum += weight * difference * difference;
        }
    }
}
