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
mod double;
pub(crate) mod energies;
pub(crate) mod fixed_point;
pub(crate) mod group;
pub(crate) mod online_softmax;
pub(crate) mod residuals;
pub(crate) mod single;

use ndarray::Array3;

use crate::cpu::buffer_pool::BufferPool;
use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::scheduler::{Scheduler, WorkItem, blocks};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::posterior::Posterior;
use crate::regime::negligible_bits;
use accumulate::Flush;
use arithmetic::{Arithmetic, ShardPosterior};
use composite::CompositeStage;
use double::Double;
use group::Group;
use single::Single;

/// Images whose weights are summed in float32 before they are added to those of others: each addition rounds, and where all
/// images have the same weight, always in the same direction.
const POSTERIOR_IMAGES: usize = 512;

/// Images whose weighted pixels are summed in float32 before they are added to others in float64.
const COMPOSITE_IMAGES: usize = 256;

/// Per probe the weighted sum of centred stored pixels, `[channel, row, column]`. The probes of flipped queries follow all
/// others, in the same order.
///
/// A query is computed in float32, unless that is hopeless from the start, or its logits turn out to be too large.
pub(crate) fn sums<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Array3<f64>>> {
    let is_hopeless = |&query: &usize| job.sides(query).any(|probe| probe.needs_double);
    let (mut double, single): (Vec<usize>, Vec<usize>) = (0..job.queries()).partition(is_hopeless);
    let mut sums = vec![Array3::zeros([0; 3]); job.probes.len()];
    if !single.is_empty() {
        let probes = job.probes_of(&single);
        let posteriors = evidence::<P, Single>(&job.with(&probes), scheduler)?;
        let bits: Vec<f64> = posteriors.iter().map(Posterior::largest_bits).collect();
        let serves = |&i: &usize| job.sides(single[i]).all(|probe| probe.rounding.allows(bits[i]));
        let (good, bad): (Vec<usize>, Vec<usize>) = (0..single.len()).partition(serves);
        let kept: Vec<usize> = good.iter().map(|&i| single[i]).collect();
        let posteriors: Vec<Posterior> = good.iter().map(|&i| posteriors[i].clone()).collect();
        let probes = job.probes_of(&kept);
        job.place(&kept, composites::<P, Single>(&job.with(&probes), scheduler, &posteriors)?, &mut sums);
        double.extend(bad.iter().map(|&i| single[i]));
        scheduler.repeat(job, bad.len());
    }
    if !double.is_empty() {
        let probes: Vec<Probe> = job.probes_of(&double).into_iter().map(Probe::into_double).collect();
        let job_in_double = job.with(&probes);
        let posteriors = evidence::<P, Double>(&job_in_double, scheduler)?;
        job.place(&double, composites::<P, Double>(&job_in_double, scheduler, &posteriors)?, &mut sums);
    }
    Ok(sums)
}

/// Pass 1: the posteriors of every query, which it shares with its mirror image.
fn evidence<P: Pixel, A: Arithmetic>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Posterior>> {
    let components = &job.mirrors[0];
    let empty = |probe: &Probe| Posterior::empty(components.count(), A::shift_unit(probe));
    let mut posteriors: Vec<_> = job.probes.iter().map(empty).collect();
    scheduler.run(
        job,
        &mut posteriors,
        || (Group::new(job), Vec::new()),
        |item, (group, states)| posteriors_of::<P, A>(job, item, group, states),
        |posterior, shard| posterior.merge(&shard.shift, &shard.sum),
    )?;
    let flipped = posteriors.split_off(job.queries());
    for (posterior, flipped) in posteriors.iter_mut().zip(&flipped) {
        posterior.merge_mirrored(flipped, components);
    }
    Ok(posteriors)
}

/// Pass 2: the weighted sums of every probe, given the posteriors of all queries.
fn composites<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    posteriors: &[Posterior],
) -> Result<Vec<Array3<f64>>> {
    let mirrored =
        job.probes[job.queries()..].iter().zip(posteriors).map(|(_, p)| A::normaliser(&p.mirrored(&job.mirrors[0])));
    let normalisers: Vec<A::Normaliser> = posteriors.iter().map(A::normaliser).chain(mirrored).collect();
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

/// Pass 1 on one work item: the posterior of each of its probes over the images of the shard.
fn posteriors_of<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    item: &WorkItem,
    group: &mut Group<P, A>,
    states: &mut Vec<A::State>,
) -> Vec<ShardPosterior<A::Number>> {
    let (count, negligible) = (job.mirrors[0].count(), negligible_bits(item.images.len()) as f32);
    states.resize_with(item.probes.len(), A::State::default);
    for state in &mut *states {
        A::start(state, count, negligible);
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
                stage.start(job.components_of(&job.probes[probe]));
                group.energies(job, probe, |block| stage.add::<P, A>(job, &block, &normalisers[probe], sums));
                stage.finish(job, group.tiles(), sums);
            }
        }
        for (totals, sums) in totals.iter_mut().zip(&mut *sums) {
            job.isa.run(Flush { sums, totals });
        }
    }
    totals
}
