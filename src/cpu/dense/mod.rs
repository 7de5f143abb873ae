//! The dense route: the weight of every image on every window is formed, in `f32` with sums merged in `f64`.
//!
//! Pass 1 ([`evidence`]) finds the posterior of every window, pass 2 ([`composites`]) computes the energies again and
//! accumulates the composite; computing them again is cheaper than storing them.

pub(crate) mod accumulate;
pub(crate) mod box_adjoint;
mod box_sums;
mod composite;
pub(crate) mod energies;
pub(crate) mod fixed_point;
pub(crate) mod group;
pub(crate) mod online_softmax;
pub(crate) mod residuals;

use ndarray::Array3;

use crate::cpu::buffer_pool::BufferPool;
use crate::cpu::job::Job;
use crate::cpu::scheduler::{Scheduler, WorkItem};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::posterior::Posterior;
use composite::{CompositeStage, Normaliser};
use group::Group;
use online_softmax::{OnlineSoftmax, Update};

/// Per probe the weighted sum of centred stored pixels, `[channel, row, column]`. The probes of flipped queries follow all
/// others, in the same order.
pub(crate) fn sums<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Array3<f64>>> {
    let posteriors = evidence(job, scheduler)?;
    let queries = posteriors.len();
    let normalisers: Vec<Normaliser> = (0..job.probes.len())
        .map(|i| match i.checked_sub(queries) {
            None => posteriors[i].normaliser(),
            Some(i) => posteriors[i].mirrored_normaliser(&job.mirrors[0]),
        })
        .collect();
    composites(job, scheduler, &normalisers)
}

/// Pass 1: the posteriors of every query, which it shares with its mirror image.
fn evidence<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Posterior>> {
    let components = &job.mirrors[0];
    let mut posteriors: Vec<_> = job.probes.iter().map(|_| Posterior::empty(components.count())).collect();
    scheduler.run(
        job,
        &mut posteriors,
        || (Group::new(job), Vec::new()),
        |item, (group, states)| posteriors_of(job, item, group, states),
        |posterior, shard| posterior.merge(&shard.shift, &shard.sum),
    )?;
    let queries = job.probes.iter().filter(|probe| !probe.flipped).count();
    let flipped = posteriors.split_off(queries);
    for (posterior, flipped) in posteriors.iter_mut().zip(&flipped) {
        posterior.merge_mirrored(flipped, components);
    }
    Ok(posteriors)
}

/// Pass 2: the weighted sums of every probe.
fn composites<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    normalisers: &[Normaliser],
) -> Result<Vec<Array3<f64>>> {
    let mut sums = vec![Array3::<f64>::zeros(job.bank.image_shape()); job.probes.len()];
    let buffers = BufferPool::new();
    scheduler.run(
        job,
        &mut sums,
        || (Group::new(job), CompositeStage::default()),
        |item, (group, stage)| composites_of(job, item, normalisers, &buffers, group, stage),
        |sums, of_shard| {
            sums.iter_mut().zip(&of_shard).for_each(|(sum, &value)| *sum += f64::from(value));
            buffers.release(of_shard);
        },
    )?;
    Ok(sums)
}

/// What pass 1 finds on one shard, per window.
struct ShardPosterior {
    shift: Vec<f32>,
    sum: Vec<f32>,
}

/// Pass 1 on one work item: the posterior of each of its probes over the images of the shard.
fn posteriors_of<P: Pixel>(
    job: &Job<'_, P>,
    item: &WorkItem,
    group: &mut Group<P>,
    states: &mut Vec<OnlineSoftmax>,
) -> Vec<ShardPosterior> {
    let count = job.mirrors[0].count();
    let (_, columns) = job.mirrors[0].grid();
    states.resize_with(item.probes.len(), OnlineSoftmax::default);
    for state in &mut *states {
        state.start(count);
    }
    for first in item.images.clone().step_by(Group::<P>::IMAGES) {
        group.load(job, first, &item.images);
        for (probe, state) in item.probes.clone().zip(&mut *states) {
            let logit_scale = job.probes[probe].logit_scale as f32;
            group.energies(job, probe, |block| {
                let (energies, count, first) = (block.energies, block.count, block.first);
                job.isa.run(Update { energies, count, first, logit_scale, columns, state });
            });
        }
    }
    let of_shard = |state: &OnlineSoftmax| {
        let (shift, sum) = state.sums_over_lanes();
        ShardPosterior { shift, sum }
    };
    states.iter().map(of_shard).collect()
}

/// Pass 2 on one work item: for each of its probes the weighted sum of the shard's centred pixels, `[channel][pixel]`.
fn composites_of<P: Pixel>(
    job: &Job<'_, P>,
    item: &WorkItem,
    normalisers: &[Normaliser],
    buffers: &BufferPool<Vec<f32>>,
    group: &mut Group<P>,
    stage: &mut CompositeStage,
) -> Vec<Vec<f32>> {
    let mut sums: Vec<_> = item.probes.clone().map(|_| buffers.acquire_filled(job.bank.image_len(), 0.0)).collect();
    for first in item.images.clone().step_by(Group::<P>::IMAGES) {
        group.load(job, first, &item.images);
        for (probe, sums) in item.probes.clone().zip(&mut sums) {
            stage.start(job.components_of(&job.probes[probe]));
            group.energies(job, probe, |block| stage.add(job, &block, &normalisers[probe], sums));
            stage.finish(job, group.tiles(), sums);
        }
    }
    sums
}
