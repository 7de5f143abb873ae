//! The two dense passes: every image's weight on every window is formed, in `f32` with sums merged in `f64`.

use ndarray::Array3;

use super::composites::{Composites, Normaliser};
use super::job::{Group, Job};
use super::rounds::{Item, Rounds};
use super::spare::Spare;
use super::tile::Pixel;
use super::weigh::{LaneState, absorb, fold_lanes};
use crate::error::Result;
use crate::posterior::Posterior;

/// What pass 1 finds on one shard.
struct ShardPosterior {
    shift: Vec<f32>,
    sum: Vec<f32>,
}

/// Working space of one thread.
struct Space<P: Pixel> {
    group: Group<P>,
    states: Vec<LaneState>,
    composites: Composites,
}

/// Both passes; returns per probe the weighted sum of centred stored pixels, `[channel, row, column]`. The probes of
/// flipped queries follow all others, in the same order.
pub(super) fn passes<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<Array3<f64>>> {
    let windows = &job.views[0];
    let count = windows.count();
    let mut posteriors: Vec<_> = job.probes.iter().map(|_| Posterior::empty(count)).collect();
    rounds.run(
        job,
        &mut posteriors,
        || space(job),
        |item, space| posteriors_of(job, item, space),
        |posterior, shard| posterior.merge(&shard.shift, &shard.sum),
    )?;

    let forward = job.probes.iter().filter(|probe| !probe.flipped).count();
    let (joint, flipped) = posteriors.split_at_mut(forward);
    for (posterior, flipped) in joint.iter_mut().zip(&*flipped) {
        posterior.merge_mirrored(flipped, windows);
    }
    let normalisers: Vec<Normaliser> = (0..job.probes.len())
        .map(|i| match i.checked_sub(forward) {
            None => joint[i].normaliser(),
            Some(i) => joint[i].mirrored_normaliser(windows),
        })
        .collect();

    let mut sums = vec![Array3::<f64>::zeros(job.bank.image_shape()); job.probes.len()];
    let spare = Spare::new();
    rounds.run(
        job,
        &mut sums,
        || space(job),
        |item, space| composites_of(job, item, &normalisers, &spare, space),
        |sums, part| {
            sums.iter_mut().zip(&part).for_each(|(sum, &value)| *sum += f64::from(value));
            spare.keep(part);
        },
    )?;
    Ok(sums)
}

fn space<P: Pixel>(job: &Job<'_, P>) -> Space<P> {
    Space { group: Group::new(job), states: Vec::new(), composites: Composites::default() }
}

/// Pass 1 on one item: the posterior of each of its probes over the images of the shard.
fn posteriors_of<P: Pixel>(job: &Job<'_, P>, item: &Item, space: &mut Space<P>) -> Vec<ShardPosterior> {
    let count = job.views[0].count();
    let (_, columns) = job.views[0].grid();
    space.states.resize_with(item.probes.len(), LaneState::default);
    space.states.iter_mut().for_each(|state| state.start(count));
    for first in item.images.clone().step_by(Group::<P>::IMAGES) {
        space.group.load(job, first, &item.images);
        for (probe, state) in item.probes.clone().zip(&mut space.states) {
            let rate = job.probes[probe].rate as f32;
            space.group.energies(job, probe, |part| {
                absorb(job.isa, part.energies, part.count, part.first, rate, columns, state);
            });
        }
    }
    let fold = |state: &LaneState| {
        let mut part = ShardPosterior { shift: vec![0.0; count], sum: vec![0.0; count] };
        fold_lanes(state, &mut part.shift, &mut part.sum);
        part
    };
    space.states.iter().map(fold).collect()
}

/// Pass 2 on one item: for each of its probes the weighted sum of the shard's centred pixels, `[channel][pixel]`.
fn composites_of<P: Pixel>(
    job: &Job<'_, P>,
    item: &Item,
    normalisers: &[Normaliser],
    spare: &Spare<Vec<f32>>,
    space: &mut Space<P>,
) -> Vec<Vec<f32>> {
    let mut sums: Vec<_> = item.probes.clone().map(|_| spare.filled(job.bank.image_len(), 0.0)).collect();
    for first in item.images.clone().step_by(Group::<P>::IMAGES) {
        space.group.load(job, first, &item.images);
        for (probe, sums) in item.probes.clone().zip(&mut sums) {
            let Space { group, composites, .. } = space;
            composites.start(job.view(&job.probes[probe]));
            group.energies(job, probe, |part| composites.add(job, &part, &normalisers[probe], sums));
            composites.finish(job, group.tiles(), sums);
        }
    }
    sums
}
