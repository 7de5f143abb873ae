//! The dense route: the weight of every image on every window is formed, in `f32` with sums merged in `f64`, or with
//! energies in `f64` where those of `f32` round too much.
//!
//! Pass 1 ([`evidence`]) finds the posterior of every window, pass 2 ([`composites`]) computes the energies again and
//! accumulates the composite; computing them again is cheaper than storing them.

pub(crate) mod accumulate;
pub(crate) mod arithmetic;
pub(crate) mod box_adjoint;
mod box_sums;
mod composite;
pub(crate) mod derivative;
mod double;
pub(crate) mod energies;
pub(crate) mod fixed_point;
pub(crate) mod group;
pub(crate) mod masks;
pub(crate) mod moments;
pub(crate) mod online_softmax;
pub(crate) mod residuals;
pub(crate) mod single;
pub(crate) mod statistics;
mod weights;

use ndarray::Array3;

use crate::cpu::buffer_pool::BufferPool;
use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::scheduler::{Scheduler, WorkItem, blocks, pilot_and_rest};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::posterior::Posterior;
use crate::regime::negligible_bits;
use accumulate::Flush;
use arithmetic::{Arithmetic, ShardPosterior};
use composite::{CompositeStage, weights_of};
pub(crate) use double::Double;
use group::Group;
pub(crate) use single::Single;

/// Images whose weights are summed in float32 before they are added to those of others: each addition rounds, and where all
/// images have the same weight, always in the same direction.
const POSTERIOR_IMAGES: usize = 512;

/// Images whose weighted pixels are summed in float32 before they are added to others in float64.
const COMPOSITE_IMAGES: usize = 256;

/// Pass 1: the posterior of every query, which it shares with its mirror image, and whether its energies are float64.
///
/// A query is computed in float32, unless that is hopeless from the start, or its logits turn out to be too large.
pub(crate) fn evidence<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
) -> Result<Vec<(Posterior, bool)>> {
    let (mut double, single) = in_double_or_single(job);
    let mut found: Vec<Option<(Posterior, bool)>> = vec![None; job.queries()];
    if !single.is_empty() {
        let probes = job.probes_of(&single);
        for (&query, posterior) in single.iter().zip(evidence_in::<P, Single>(&job.with(&probes), scheduler)?) {
            if does_single_serve(job, query, &posterior) {
                found[query] = Some((posterior, false));
            } else {
                double.push(query);
                scheduler.repeat(job, 1);
            }
        }
    }
    if !double.is_empty() {
        let probes: Vec<Probe> = job.probes_of(&double).into_iter().map(Probe::into_double).collect();
        for (&query, posterior) in double.iter().zip(evidence_in::<P, Double>(&job.with(&probes), scheduler)?) {
            found[query] = Some((posterior, true));
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// The queries for which float32 is hopeless from the start, and the others.
fn in_double_or_single<P: Pixel>(job: &Job<'_, P>) -> (Vec<usize>, Vec<usize>) {
    (0..job.queries()).partition(|&query| job.sides(query).any(|probe| probe.needs_double))
}

/// Whether the posterior of a query, found in float32, shows that float32 serves.
fn does_single_serve<P: Pixel>(job: &Job<'_, P>, query: usize, posterior: &Posterior) -> bool {
    let bits = posterior.largest_bits();
    job.sides(query).all(|probe| probe.rounding.allows(bits, probe.logit_scale))
}

/// The same in the given numbers.
fn evidence_in<P: Pixel, A: Arithmetic>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Posterior>> {
    let components = &job.mirrors[0];
    let empty = |probe: &Probe| Posterior::empty(components.count(), A::shift_unit(probe));
    let mut posteriors: Vec<_> = job.probes.iter().map(empty).collect();
    for items in pilot_and_rest(job) {
        let shifts = shifts_of(posteriors.iter());
        scheduler.run_items(
            &items,
            &mut posteriors,
            || (Group::new(job), Vec::new()),
            |item, (group, states)| posteriors_of::<P, A>(job, item, &shifts, group, states),
            |posterior, shard| posterior.merge(&shard.shift, &shard.sum),
        )?;
    }
    job.check_unchanged()?;
    let flipped = posteriors.split_off(job.queries());
    for (posterior, flipped) in posteriors.iter_mut().zip(&flipped) {
        posterior.merge_mirrored(flipped, components);
    }
    Ok(posteriors)
}

/// The shifts of every probe, where the search over further images starts.
fn shifts_of<'a>(posteriors: impl Iterator<Item = &'a Posterior>) -> Vec<Vec<f64>> {
    posteriors.map(|posterior| posterior.shifts().to_vec()).collect()
}

/// What turns the energies of every probe into weights, given the posteriors of all queries.
fn normalisers<P: Pixel, A: Arithmetic>(job: &Job<'_, P>, posteriors: &[&Posterior]) -> Vec<A::Normaliser> {
    let mirrored =
        job.probes[job.queries()..].iter().zip(posteriors).map(|(_, p)| A::normaliser(&p.mirrored(&job.mirrors[0])));
    posteriors.iter().map(|posterior| A::normaliser(posterior)).chain(mirrored).collect()
}

/// Pass 2: per probe the weighted sum of centred stored pixels, `[channel, row, column]`, given the posteriors of all
/// queries. The probes of flipped queries follow all others, in the same order.
pub(crate) fn composites<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    posteriors: &[&Posterior],
) -> Result<Vec<Array3<f64>>> {
    let normalisers = normalisers::<P, A>(job, posteriors);
    let mut sums = vec![Array3::<f64>::zeros(job.bank.image_shape()); job.probes.len()];
    let buffers = BufferPool::new();
    scheduler.run(
        job,
        &mut sums,
        || (Group::new(job), CompositeStage::default(), Vec::new()),
        |item, space| composites_of::<P, A>(job, item, &normalisers, &buffers, space),
        |sums, of_shard| {
            sums.iter_mut().zip(&of_shard).for_each(|(sum, &value)| *sum += value);
            buffers.release(of_shard);
        },
    )?;
    Ok(sums)
}

/// Pass 1 on one work item: the posterior of each of its probes over the images of the shard, which starts at the `shifts` of all
/// probes.
fn posteriors_of<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    item: &WorkItem,
    shifts: &[Vec<f64>],
    group: &mut Group<P, A>,
    states: &mut Vec<A::State>,
) -> Vec<ShardPosterior<A::Number>> {
    states.resize_with(item.probes.len(), A::State::default);
    for (state, probe) in states.iter_mut().zip(item.probes.clone()) {
        A::start(state, &shifts[probe], negligible_bits(item.images.len()) as f32);
    }
    for images in blocks(item.images.clone(), POSTERIOR_IMAGES) {
        if images.start > item.images.start {
            for state in &mut *states {
                A::settle(job, state);
            }
        }
        for first in images.step_by(Group::<P, A>::IMAGES) {
            group.load(job, first, &item.images);
            for (probe, state) in item.probes.clone().zip(&mut *states) {
                group.energies(job, probe, |block| A::update(job, &block, state));
            }
        }
    }
    states.iter().map(A::finish).collect()
}

/// Pass 2 on one work item: for each of its probes the weighted sum of the shard's centred pixels, `[channel][pixel]`.
fn composites_of<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    item: &WorkItem,
    normalisers: &[A::Normaliser],
    buffers: &BufferPool<Vec<f64>>,
    (group, stage, sums): &mut (Group<P, A>, CompositeStage, Vec<Vec<f32>>),
) -> Vec<Vec<f64>> {
    let len = job.bank.image_len();
    let mut totals: Vec<_> = item.probes.clone().map(|_| buffers.acquire_filled(len, 0.0)).collect();
    sums.resize_with(item.probes.len(), || vec![0.0; len]);
    for images in blocks(item.images.clone(), COMPOSITE_IMAGES) {
        for first in images.step_by(Group::<P, A>::IMAGES) {
            group.load(job, first, &item.images);
            for (probe, sums) in item.probes.clone().zip(&mut *sums) {
                let components = job.components_of(&job.probes[probe]);
                stage.start(components);
                group.energies(job, probe, |block| {
                    let fill = weights_of::<P, A>(job, &block, &normalisers[probe]);
                    stage.add(job.isa, components, block.tiles, sums, fill);
                });
                stage.finish(job.isa, components, group.tiles(), sums);
            }
        }
        for (totals, sums) in totals.iter_mut().zip(&mut *sums) {
            job.isa.run(Flush { sums, totals });
        }
    }
    totals
}
