//! Derivatives of the composite along directions. With `b_kn` the sum over window `k` of the pixels of image `n` times the
//! direction, the derivative is the composite with the weights `w_kn (b_kn - mean of b_k)`: one pass finds the means, a
//! second one the derivative. Both form the weights once for all directions.

use super::arithmetic::Arithmetic;
use super::composite::CompositeStage;
use super::energies::Tangents;
use super::group::Group;
use super::weights::GroupWeights;
use super::{COMPOSITE_IMAGES, POSTERIOR_IMAGES, normalisers};
use crate::components::Components;
use crate::cpu::chunks::exact_chunks;
use crate::cpu::derivative::ProbeDerivative;
use crate::cpu::job::Job;
use crate::cpu::scheduler::{Scheduler, WorkItem, blocks};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::posterior::Posterior;
use crate::simd::{F32x8, F32x16, Kernel, Vector};

use super::accumulate::Flush;

/// The directions of a probe as the kernels read them, `[direction]`: values of z and of the direction.
pub(crate) type Directions = Vec<Vec<f32>>;

/// Per probe and direction the mean of the sums of products under the posterior of every window.
type Means = Vec<Vec<Vec<f32>>>;

/// The derivative of every probe along its `directions`, given the posteriors of all queries.
pub(crate) fn derivatives<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    posteriors: &[&Posterior],
    directions: &[Directions],
) -> Result<Vec<ProbeDerivative>> {
    let normalisers = normalisers::<P, A>(job, posteriors);
    let means = means::<P, A>(job, scheduler, &normalisers, directions)?;
    let (count, len) = (job.mirrors[0].count(), job.bank.image_len());
    let mut found: Vec<_> =
        directions.iter().map(|of_probe| ProbeDerivative::new(of_probe.len(), count, len)).collect();
    scheduler.run(
        job,
        &mut found,
        || (Group::new(job), DerivativeSpace::default()),
        |item, (group, space)| derivatives_of::<P, A>(job, item, (&normalisers, directions, &means), group, space),
        |found, of_shard| found.add(&of_shard),
    )?;
    Ok(found)
}

/// Finds those means.
fn means<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    normalisers: &[A::Normaliser],
    directions: &[Directions],
) -> Result<Means> {
    let count = job.mirrors[0].count();
    let mut sums: Vec<WeightedSums> =
        directions.iter().map(|of_probe| WeightedSums::new(of_probe.len(), count)).collect();
    scheduler.run(
        job,
        &mut sums,
        || (Group::new(job), DerivativeSpace::default()),
        |item, (group, space)| weighted_sums_of::<P, A>(job, item, (normalisers, directions), group, space),
        |sums, of_shard| sums.add(&of_shard),
    )?;
    let flipped = sums.split_off(job.queries());
    let of_query = |(i, sums): (usize, &WeightedSums)| sums.means(flipped.get(i), &job.mirrors[0]);
    let forward: Vec<_> = sums.iter().enumerate().map(of_query).collect();
    let mirror = |means: &Vec<f32>| (0..count).map(|k| means[job.mirrors[0].mirror_index(k)]).collect::<Vec<f32>>();
    let mirrored: Vec<Vec<Vec<f32>>> =
        forward.iter().take(flipped.len()).map(|of_probe| of_probe.iter().map(mirror).collect()).collect();
    Ok(forward.into_iter().chain(mirrored).collect())
}

/// Per window the sum of weights, and per direction the sum of weights times sums of products.
struct WeightedSums {
    weights: Vec<f64>,
    products: Vec<Vec<f64>>,
}

impl WeightedSums {
    fn new(directions: usize, count: usize) -> Self {
        Self { weights: vec![0.0; count], products: vec![vec![0.0; count]; directions] }
    }

    fn add(&mut self, other: &Self) {
        let pairs = self.products.iter_mut().zip(&other.products).chain([(&mut self.weights, &other.weights)]);
        for (sums, others) in pairs {
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        }
    }

    /// The means of both halves together.
    fn means(&self, flipped: Option<&Self>, components: &Components) -> Vec<Vec<f32>> {
        let both = |k: usize, sums: &[f64], flipped: Option<&Vec<f64>>| {
            sums[k] + flipped.map_or(0.0, |flipped| flipped[components.mirror_index(k)])
        };
        let of_direction = |(i, products): (usize, &Vec<f64>)| {
            let mean = |k: usize| {
                let product = both(k, products, flipped.map(|flipped| &flipped.products[i]));
                (product / both(k, &self.weights, flipped.map(|flipped| &flipped.weights))) as f32
            };
            (0..products.len()).map(mean).collect()
        };
        self.products.iter().enumerate().map(of_direction).collect()
    }
}

/// Working space of one thread.
#[derive(Default)]
struct DerivativeSpace {
    weights: GroupWeights,
    tangents: Tangents,
    stage: CompositeStage,
}

/// The weighted sums of each probe of a work item.
fn weighted_sums_of<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    item: &WorkItem,
    (normalisers, directions): (&[A::Normaliser], &[Directions]),
    group: &mut Group<P, A>,
    DerivativeSpace { weights, tangents, .. }: &mut DerivativeSpace,
) -> Vec<WeightedSums> {
    let (count, (_, columns)) = (job.mirrors[0].count(), job.mirrors[0].grid());
    let start = |probe: usize| {
        let lists = directions[probe].len();
        (WeightedSums::new(lists, count), vec![F32x8::ZERO; count], vec![vec![F32x8::ZERO; count]; lists])
    };
    let mut states: Vec<_> = item.probes.clone().map(start).collect();
    for images in blocks(item.images.clone(), POSTERIOR_IMAGES) {
        for first in images.step_by(Group::<P, A>::IMAGES) {
            group.load(job, first, &item.images);
            for (probe, (_, weight_sums, products)) in item.probes.clone().zip(&mut states) {
                if !weights.fill(job, group, probe, &normalisers[probe]) {
                    continue;
                }
                let (tiles, components) = (group.tiles(), job.components_of(&job.probes[probe]));
                for (tile, row) in ndarray::indices((tiles.len(), weights.rows())) {
                    if let Some(row_weights) = weights.row(tile, row) {
                        let sums = &mut weight_sums[row * columns..][..columns];
                        job.isa.run(AddRow { weights: row_weights, factors: None, sums });
                    }
                }
                for (values, products) in directions[probe].iter().zip(products) {
                    tangents.sums(job.isa, components, tiles, values, |start, block, all| {
                        for (tile, all) in exact_chunks(all, block).enumerate() {
                            for (row, factors) in exact_chunks(all, columns).enumerate() {
                                let Some(weights) = weights.row(tile, start / columns + row) else { continue };
                                let sums = &mut products[start + row * columns..][..columns];
                                job.isa.run(AddRow { weights, factors: Some(factors), sums });
                            }
                        }
                    });
                }
            }
        }
        for (totals, weight_sums, products) in &mut states {
            settle(&mut totals.weights, weight_sums);
            totals.products.iter_mut().zip(products).for_each(|(totals, sums)| settle(totals, sums));
        }
    }
    states.into_iter().map(|(totals, ..)| totals).collect()
}

/// Adds sums to their totals, and starts them over.
fn settle(totals: &mut [f64], sums: &mut [F32x8]) {
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total += f64::from(sum.sum());
        *sum = F32x8::ZERO;
    }
}

/// The derivatives of each probe of a work item, given the `means`.
fn derivatives_of<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    item: &WorkItem,
    (normalisers, directions, means): (&[A::Normaliser], &[Directions], &Means),
    group: &mut Group<P, A>,
    DerivativeSpace { weights, tangents, stage }: &mut DerivativeSpace,
) -> Vec<ProbeDerivative> {
    let (count, len, (_, columns)) = (job.mirrors[0].count(), job.bank.image_len(), job.mirrors[0].grid());
    let start = |probe: usize| {
        let lists = directions[probe].len();
        let sums = vec![vec![0.0_f32; len]; lists + 1];
        (ProbeDerivative::new(lists, count, len), sums, vec![vec![F32x8::ZERO; count]; lists])
    };
    let mut states: Vec<_> = item.probes.clone().map(start).collect();
    for images in blocks(item.images.clone(), COMPOSITE_IMAGES) {
        for first in images.step_by(Group::<P, A>::IMAGES) {
            group.load(job, first, &item.images);
            for (probe, (_, sums, residuals)) in item.probes.clone().zip(&mut states) {
                if !weights.fill(job, group, probe, &normalisers[probe]) {
                    continue;
                }
                let (tiles, components) = (group.tiles(), job.components_of(&job.probes[probe]));
                let (composite, sums) = sums.split_at_mut(1);
                stage.start(components);
                for start in (0..count).step_by(job.windows_at_once()) {
                    stage.add(job.isa, components, tiles, &mut composite[0], |tile, active, out| {
                        weights.copy(tile, start / columns, active, out)
                    });
                }
                stage.finish(job.isa, components, tiles, &mut composite[0]);
                for (i, (sums, residuals)) in sums.iter_mut().zip(residuals).enumerate() {
                    let (values, means) = (&directions[probe][i], &means[probe][i]);
                    stage.start(components);
                    tangents.sums(job.isa, components, tiles, values, |start, block, all| {
                        stage.add(job.isa, components, tiles, sums, |tile, active, out| {
                            let factors = &all[tile * block..][..block];
                            weights.map(tile, start / columns, active, out, |row, from, to| {
                                let windows = row * columns..(row + 1) * columns;
                                job.isa.run(Tilt {
                                    weights: from,
                                    factors: &factors[windows.start - start..][..columns],
                                    means: &means[windows.clone()],
                                    out: to,
                                    residuals: &mut residuals[windows],
                                });
                            })
                        });
                    });
                    stage.finish(job.isa, components, tiles, sums);
                }
            }
        }
        for (totals, sums, residuals) in &mut states {
            for (sums, totals) in sums.iter_mut().zip(totals.sums.iter_mut()) {
                job.isa.run(Flush { sums, totals });
            }
            totals.residuals.iter_mut().zip(residuals).for_each(|(totals, sums)| settle(totals, sums));
        }
    }
    states.into_iter().map(|(totals, ..)| totals).collect()
}

/// Adds to the sums of a row of windows the weights, times factors if there are any.
struct AddRow<'a> {
    weights: &'a [F32x16],
    factors: Option<&'a [F32x16]>,
    sums: &'a mut [F32x8],
}

impl Kernel for AddRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { weights, factors, sums } = self;
        let sums = &mut sums[..weights.len()];
        match factors {
            None => {
                for k in 0..weights.len() {
                    V::load(&weights[k]).add_to(&mut sums[k]);
                }
            }
            Some(factors) => {
                let factors = &factors[..weights.len()];
                for k in 0..weights.len() {
                    V::load(&weights[k]).mul(V::load(&factors[k])).add_to(&mut sums[k]);
                }
            }
        }
    }
}

/// Writes weights times what their factors exceed the means by, and adds them to the residuals, which would be zero but for
/// rounding.
struct Tilt<'a> {
    weights: &'a [F32x16],
    factors: &'a [F32x16],
    means: &'a [f32],
    out: &'a mut [F32x16],
    residuals: &'a mut [F32x8],
}

impl Kernel for Tilt<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { weights, factors, means, out, residuals } = self;
        let count = weights.len();
        let (factors, means) = (&factors[..count], &means[..count]);
        let (out, residuals) = (&mut out[..count], &mut residuals[..count]);
        for k in 0..count {
            let tilted = V::load(&weights[k]).mul(V::load(&factors[k]).sub(V::splat(means[k])));
            tilted.store(&mut out[k]);
            tilted.add_to(&mut residuals[k]);
        }
    }
}
