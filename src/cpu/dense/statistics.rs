//! Statistics of the posterior of every window, from a pass that forms the weights again: its entropy, its heaviest images,
//! and the sums of weights of every image over the windows.

use super::arithmetic::{Arithmetic, EnergyBlock};
use super::group::Group;
use super::online_softmax::MIN_EXPONENT;
use super::{POSTERIOR_IMAGES, normalisers};
use crate::cpu::chunks::{exact_chunks, exact_chunks_mut};
use crate::cpu::job::Job;
use crate::cpu::scheduler::{AMORTISED_IMAGES, Scheduler, WorkItem, blocks, epochs, work_items};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::heaviest::{Heaviest, ProbeStatistics, Wanted};
use crate::posterior::Posterior;
use crate::simd::{F32x8, F32x16, Kernel, LANES, Vector};

/// The statistics of every probe, given the posteriors of all queries.
pub(crate) fn statistics<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    posteriors: &[&Posterior],
    wanted: Wanted,
) -> Result<Vec<ProbeStatistics>> {
    let normalisers = normalisers::<P, A>(job, posteriors);
    let log_scales: Vec<Vec<f32>> =
        normalisers.iter().map(|normaliser| A::scale(normaliser).iter().map(|scale| scale.log2()).collect()).collect();
    let count = job.mirrors[0].count();
    let mut found: Vec<_> = job.probes.iter().map(|_| ProbeStatistics::new(count, job.len(), wanted)).collect();
    // What is already among the heaviest bounds the search in later images, which are many times as many.
    for epoch in epochs(&work_items(job, AMORTISED_IMAGES)) {
        let thresholds: Vec<Vec<f32>> = found.iter().map(|found| found.heaviest.thresholds(job.dense_cutoff)).collect();
        let inputs = Inputs { normalisers: &normalisers, log_scales: &log_scales, thresholds: &thresholds };
        scheduler.run_items(
            epoch,
            &mut found,
            || (Group::new(job), Observation::default()),
            |item, (group, observation)| observe_item::<P, A>(job, item, wanted, &inputs, group, observation),
            |found, of_shard| found.merge(&of_shard),
        )?;
        job.check_unchanged()?;
    }
    Ok(found)
}

/// What is known of every probe.
struct Inputs<'a, N> {
    normalisers: &'a [N],
    /// Per window the logarithm of the normaliser's scale.
    log_scales: &'a [Vec<f32>],
    /// Per window the logarithm that the weight of an image must exceed to be among the heaviest.
    thresholds: &'a [Vec<f32>],
}

/// The statistics of each probe of a work item.
fn observe_item<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    item: &WorkItem,
    wanted: Wanted,
    inputs: &Inputs<'_, A::Normaliser>,
    group: &mut Group<P, A>,
    space: &mut Observation,
) -> Vec<ProbeStatistics> {
    let count = job.mirrors[0].count();
    let start = |probe: usize| {
        let mut found = ProbeStatistics::new(count, item.images.len(), wanted);
        found.first = item.images.start;
        (found, inputs.thresholds[probe].clone(), vec![F32x8::ZERO; count])
    };
    let mut states: Vec<_> = item.probes.clone().map(start).collect();
    for images in blocks(item.images.clone(), POSTERIOR_IMAGES) {
        for first in images.step_by(Group::<P, A>::IMAGES) {
            group.load(job, first, &item.images);
            for (probe, (found, threshold, entropy)) in item.probes.clone().zip(&mut states) {
                let of_probe = (&inputs.normalisers[probe], &inputs.log_scales[probe][..]);
                group.energies(job, probe, |block| {
                    space.observe::<P, A>(job, &block, of_probe, (first, wanted), (found, threshold, entropy));
                });
            }
        }
        for (found, _, entropy) in &mut states {
            for (total, sum) in found.entropy.iter_mut().zip(entropy) {
                *total -= f64::from(sum.sum());
                *sum = F32x8::ZERO;
            }
        }
    }
    states.into_iter().map(|(found, ..)| found).collect()
}

/// Working space: the logarithms of weights.
#[derive(Default)]
struct Observation {
    logs: Vec<F32x16>,
}

impl Observation {
    /// Adds a block of energies to what is found for a probe; the first image of the group is at position `first`.
    fn observe<P: Pixel, A: Arithmetic>(
        &mut self,
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, A::Lanes>,
        (normaliser, log_scale): (&A::Normaliser, &[f32]),
        (first, wanted): (usize, Wanted),
        (found, threshold, entropy): (&mut ProbeStatistics, &mut [f32], &mut [F32x8]),
    ) {
        let (_, columns) = job.mirrors[0].grid();
        self.logs.resize(block.count, F32x16::ZERO);
        let windows = block.first..block.first + block.count;
        for (tile, energies) in exact_chunks(block.energies, block.count).enumerate() {
            A::log_weights(job, block, energies, normaliser, log_scale, &mut self.logs);
            let cutoff = -job.dense_cutoff as f32;
            let (threshold, entropy) = (&mut threshold[windows.clone()], &mut entropy[windows.clone()]);
            let mut image_sums = F32x16::ZERO;
            let sums = &mut image_sums;
            let position = first + tile * LANES;
            let rows = exact_chunks(&self.logs, columns)
                .zip(exact_chunks_mut(threshold, columns))
                .zip(exact_chunks_mut(entropy, columns));
            for (row, ((logs, threshold), entropy)) in rows.enumerate() {
                let observe = ObserveRow { logs, cutoff, wanted, threshold, entropy, sums: &mut *sums };
                for k in job.isa.run(observe) {
                    let window = block.first + row * columns + k;
                    threshold[k] = found.heaviest.insert_lanes(window, &logs[k], position, threshold[k]);
                }
            }
            if wanted.attribution {
                let from = position - found.first;
                found.attribution[from..].iter_mut().zip(image_sums.0).for_each(|(sum, w)| *sum += f64::from(w));
            }
        }
    }
}

/// Adds a row of windows to sums of weights times their logarithms, per window, and to sums of weights, per lane. Returns the
/// windows on which a logarithm is above the threshold.
struct ObserveRow<'a> {
    logs: &'a [F32x16],
    /// Rows of windows on which no logarithm is above this are passed over.
    cutoff: f32,
    wanted: Wanted,
    threshold: &'a [f32],
    entropy: &'a mut [F32x8],
    sums: &'a mut F32x16,
}

impl Kernel for ObserveRow<'_> {
    type Output = Vec<usize>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<usize> {
        let Self { logs, cutoff, wanted, threshold, entropy, sums } = self;
        let mut above = Vec::new();
        if !logs.iter().any(|log| V::splat(cutoff).any_below(V::load(log))) {
            return above;
        }
        let mut total = V::load(sums);
        for k in 0..logs.len() {
            let log = V::load(&logs[k]);
            let bounded = log.max(V::splat(MIN_EXPONENT));
            let weight = bounded.exp2();
            total = total.add(weight);
            weight.mul(bounded).add_to(&mut entropy[k]);
            if wanted.top > 0 && V::splat(threshold[k]).any_below(log) {
                above.push(k);
            }
        }
        total.store(sums);
        above
    }
}

impl Heaviest {
    /// Adds the images of a tile that are above `threshold` on a window; returns the new threshold.
    fn insert_lanes(&mut self, window: usize, logs: &F32x16, position: usize, threshold: f32) -> f32 {
        let mut threshold = threshold;
        for (lane, &log) in logs.0.iter().enumerate() {
            if log > threshold {
                threshold = threshold.max(self.insert(window, f64::from(log), position + lane, 0) as f32);
            }
        }
        threshold
    }
}
