//! Derivatives of the composite along directions. With `b_kn` the sum over window `k` of the pixels of image `n` times the
//! direction, the derivative is the composite with the weights `w_kn (b_kn - mean of b_k)`: one pass finds the posterior and
//! the means, a second one the derivative and the composite. Both form the weights once for all directions.

use super::arithmetic::{Arithmetic, ShardPosterior};
use super::composite::CompositeStage;
use super::energies::Tangents;
use super::group::Group;
use super::weights::GroupWeights;
use super::{
    COMPOSITE_IMAGES, Double, POSTERIOR_IMAGES, Single, does_single_serve, in_double_or_single, normalisers, shifts_of,
};
use crate::cpu::chunks::exact_chunks;
use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::scheduler::{Scheduler, WorkItem, blocks, pilot_and_rest};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::posterior::Posterior;
use crate::regime::negligible_bits;
use crate::simd::{F32x8, F32x16, Kernel, Vector};

use super::accumulate::Flush;

/// The directions of a probe as the kernels read them, `[direction]`: values of z and of the direction.
pub(crate) type Directions = Vec<Vec<f32>>;

/// What is found for a probe: sums of centred stored pixels `[channel][pixel]`.
#[derive(Debug)]
pub(crate) struct ProbeDerivative {
    /// Of the composite, then of every direction.
    pub(crate) sums: Vec<Vec<f64>>,
    /// Per direction and window the sum of the weights of the derivative, which would be zero but for rounding.
    pub(crate) residuals: Vec<Vec<f64>>,
}

impl ProbeDerivative {
    pub(crate) fn new(directions: usize, count: usize, len: usize) -> Self {
        Self { sums: vec![vec![0.0; len]; directions + 1], residuals: vec![vec![0.0; count]; directions] }
    }

    /// Adds those of other images.
    pub(crate) fn add(&mut self, other: &Self) {
        let pairs = self.sums.iter_mut().zip(&other.sums).chain(self.residuals.iter_mut().zip(&other.residuals));
        for (sums, others) in pairs {
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        }
    }
}

/// Per query, direction and window the mean of the sums of products under its posterior.
pub(crate) type Means = Vec<Vec<Vec<f64>>>;

/// The derivative of every probe along its directions, which `directions_of` makes; energies are float64 where float32 does not
/// serve, as in pass 1 of a composite. The probes of flipped queries follow all others, in the same order.
pub(crate) fn derivatives<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    directions_of: impl Fn(&Probe) -> Directions,
) -> Result<Vec<ProbeDerivative>> {
    let (mut double, single) = in_double_or_single(job);
    let mut found: Vec<Option<ProbeDerivative>> = job.probes.iter().map(|_| None).collect();
    let mut place = |queries: &[usize], of_queries: Vec<ProbeDerivative>| {
        job.places_of(queries).zip(of_queries).for_each(|(place, of_probe)| found[place] = Some(of_probe));
    };
    if !single.is_empty() {
        let probes = job.probes_of(&single);
        let job = job.with(&probes);
        let directions: Vec<Directions> = probes.iter().map(&directions_of).collect();
        let (posteriors, means) = evidence_and_means::<P, Single>(&job, scheduler, &directions)?;
        let serves = |&i: &usize| does_single_serve(&job, i, &posteriors[i]);
        let (good, bad): (Vec<usize>, Vec<usize>) = (0..single.len()).partition(serves);
        scheduler.repeat(&job, bad.len());
        double.extend(bad.iter().map(|&i| single[i]));
        if !good.is_empty() {
            let probes = job.probes_of(&good);
            let posteriors: Vec<&Posterior> = good.iter().map(|&i| &posteriors[i]).collect();
            let directions: Vec<_> = job.places_of(&good).map(|place| directions[place].clone()).collect();
            let means: Means = good.iter().map(|&i| means[i].clone()).collect();
            let found = given_means::<P, Single>(&job.with(&probes), scheduler, &posteriors, &means, &directions)?;
            place(&good.iter().map(|&i| single[i]).collect::<Vec<_>>(), found);
        }
    }
    if !double.is_empty() {
        let probes: Vec<Probe> = job.probes_of(&double).into_iter().map(Probe::into_double).collect();
        let job = job.with(&probes);
        let directions: Vec<Directions> = probes.iter().map(&directions_of).collect();
        let (posteriors, means) = evidence_and_means::<P, Double>(&job, scheduler, &directions)?;
        let posteriors: Vec<&Posterior> = posteriors.iter().collect();
        place(&double, given_means::<P, Double>(&job, scheduler, &posteriors, &means, &directions)?);
    }
    Ok(found.into_iter().flatten().collect())
}

/// The second of the two passes: the derivatives of probes under posteriors and means that are known.
pub(crate) fn given_means<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    posteriors: &[&Posterior],
    means: &Means,
    directions: &[Directions],
) -> Result<Vec<ProbeDerivative>> {
    let normalisers = normalisers::<P, A>(job, posteriors);
    let (count, len) = (job.mirrors[0].count(), job.bank.image_len());
    let means = &means_of_probes(job, means);
    let mut found: Vec<_> =
        directions.iter().map(|of_probe| ProbeDerivative::new(of_probe.len(), count, len)).collect();
    scheduler.run(
        job,
        &mut found,
        || (Group::new(job), DerivativeSpace::default()),
        |item, (group, space)| derivatives_of::<P, A>(job, item, (&normalisers, directions, means), group, space),
        |found, of_shard| found.add(&of_shard),
    )?;
    Ok(found)
}

/// Per probe and direction the means, as the kernels read them.
type ProbeMeans = Vec<Vec<Vec<f32>>>;

/// Those of flipped probes are on mirrored windows.
fn means_of_probes<P: Pixel>(job: &Job<'_, P>, means: &Means) -> ProbeMeans {
    let (components, count) = (&job.mirrors[0], job.mirrors[0].count());
    let of_probe = |probe: &Probe, of_query: &Vec<Vec<f64>>| -> Vec<Vec<f32>> {
        let window = |k: usize| if probe.flipped { components.mirror_index(k) } else { k };
        of_query.iter().map(|means| (0..count).map(|k| means[window(k)] as f32).collect()).collect()
    };
    job.probes.iter().zip(means.iter().cycle()).map(|(probe, means)| of_probe(probe, means)).collect()
}

/// The first of the two passes: the posteriors and the means of every query.
pub(crate) fn evidence_and_means<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    directions: &[Directions],
) -> Result<(Vec<Posterior>, Means)> {
    let (components, count) = (&job.mirrors[0], job.mirrors[0].count());
    let start = |(probe, of_probe): (&Probe, &Directions)| {
        (Posterior::empty(count, A::shift_unit(probe)), vec![vec![0.0; count]; of_probe.len()])
    };
    let mut sums: Vec<(Posterior, Products)> = job.probes.iter().zip(directions).map(start).collect();
    for items in pilot_and_rest(job) {
        let shifts = shifts_of(sums.iter().map(|(posterior, _)| posterior));
        scheduler.run_items(
            &items,
            &mut sums,
            || (Group::new(job), DerivativeSpace::default()),
            |item, (group, space)| weighted_sums_of::<P, A>(job, item, (directions, &shifts), group, space),
            |(posterior, products), (shard, of_shard): (ShardPosterior<A::Number>, Products)| {
                posterior.merge_with(&shard.shift, &shard.sum, |k, shares| merge(products, &of_shard, k, k, shares));
            },
        )?;
    }
    job.check_unchanged()?;
    let flipped = sums.split_off(job.queries());
    for ((posterior, products), (other, of_other)) in sums.iter_mut().zip(&flipped) {
        posterior.merge_mirrored_with(other, components, |k, shares| {
            merge(products, of_other, k, components.mirror_index(k), shares);
        });
    }
    let mean = |posterior: &Posterior, products: &Vec<f64>| -> Vec<f64> {
        products.iter().zip(posterior.sums()).map(|(product, sum)| product / sum).collect()
    };
    let of_query = |(posterior, products): (Posterior, Products)| {
        let means = products.iter().map(|products| mean(&posterior, products)).collect();
        (posterior, means)
    };
    Ok(sums.into_iter().map(of_query).unzip())
}

/// Per direction and window the sum of weights times sums of products.
type Products = Vec<Vec<f64>>;

/// Adds window `other_k` of other images to window `k`, each multiplied with its share.
fn merge(products: &mut Products, others: &Products, k: usize, other_k: usize, shares: [f64; 2]) {
    for (products, others) in products.iter_mut().zip(others) {
        products[k] = products[k] * shares[0] + others[other_k] * shares[1];
    }
}

/// Working space of one thread.
#[derive(Default)]
struct DerivativeSpace {
    weights: GroupWeights,
    tangents: Tangents,
    stage: CompositeStage,
}

/// Pass 1 on one work item: of each of its probes the posterior over the images of the shard, and sums of products relative to
/// its shifts.
fn weighted_sums_of<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    item: &WorkItem,
    (directions, shifts): (&[Directions], &[Vec<f64>]),
    group: &mut Group<P, A>,
    DerivativeSpace { weights, tangents, .. }: &mut DerivativeSpace,
) -> Vec<(ShardPosterior<A::Number>, Products)> {
    let (count, (_, columns)) = (job.mirrors[0].count(), job.mirrors[0].grid());
    let start = |probe: usize| {
        let (mut state, lists) = (A::State::default(), directions[probe].len());
        A::start(&mut state, &shifts[probe], negligible_bits(item.images.len()) as f32);
        (state, vec![vec![0.0; count]; lists], vec![vec![F32x8::ZERO; count]; lists])
    };
    let mut states: Vec<(A::State, Products, Vec<Vec<F32x8>>)> = item.probes.clone().map(start).collect();
    let mut rescaled = Vec::new();
    for images in blocks(item.images.clone(), POSTERIOR_IMAGES) {
        for first in images.step_by(Group::<P, A>::IMAGES) {
            group.load(job, first, &item.images);
            for (probe, (state, totals, sums)) in item.probes.clone().zip(&mut states) {
                let any = weights.update(job, group, probe, state, &mut rescaled);
                for (k, share) in rescaled.drain(..) {
                    for (totals, sums) in totals.iter_mut().zip(&mut *sums) {
                        totals[k] *= share;
                        sums[k].0 = sums[k].0.map(|sum| sum * share as f32);
                    }
                }
                let components = job.components_of(&job.probes[probe]);
                for (values, sums) in directions[probe].iter().zip(sums).filter(|_| any) {
                    tangents.sums(job.isa, components, group.tiles(), values, |start, block, all| {
                        for (tile, all) in exact_chunks(all, block).enumerate() {
                            for (row, factors) in exact_chunks(all, columns).enumerate() {
                                let Some(weights) = weights.row(tile, start / columns + row) else { continue };
                                let sums = &mut sums[start + row * columns..][..columns];
                                job.isa.run(AddRow { weights, factors, sums });
                            }
                        }
                    });
                }
            }
        }
        for (state, totals, sums) in &mut states {
            A::settle(job, state);
            totals.iter_mut().zip(sums).for_each(|(totals, sums)| settle(totals, sums));
        }
    }
    states.into_iter().map(|(state, totals, _)| (A::finish(&state), totals)).collect()
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
    (normalisers, directions, means): (&[A::Normaliser], &[Directions], &ProbeMeans),
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

/// Adds to the sums of a row of windows the weights times factors.
struct AddRow<'a> {
    weights: &'a [F32x16],
    factors: &'a [F32x16],
    sums: &'a mut [F32x8],
}

impl Kernel for AddRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { weights, factors, sums } = self;
        let (factors, sums) = (&factors[..weights.len()], &mut sums[..weights.len()]);
        for k in 0..weights.len() {
            V::load(&weights[k]).mul(V::load(&factors[k])).add_to(&mut sums[k]);
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
