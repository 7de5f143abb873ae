//! The full window: one weight an image, so energies are few enough to keep, and the second pass is a weighted mean.

use std::ops::Range;

use ndarray::Array3;
use rayon::prelude::*;

use super::candidates::Candidates;
use super::job::Job;
use super::lone;
use super::panel::{IMAGES, Panel, add_means, vectors};
use super::probe::Probe;
use super::rounds::{Item, Rounds, probes_of_items};
use super::simd::{LANES, Lanes};
use super::spare::Spare;
use super::stack::{Block, Stack};
use super::tile::Pixel;
use crate::error::Result;

/// So many probes pay for laying out images for all of them.
const MANY_FROM: usize = 3;

/// Per probe the weighted sum of centred stored pixels, `[channel, row, column]`. The probes of flipped queries follow all
/// others, in the same order.
pub(super) fn sums<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<Array3<f64>>> {
    let mut weights = energies(job, rounds)?;
    rounds.install(|| normalise(job, &mut weights));
    let mut sums = vec![vec![0.0; job.bank.image_len()]; job.probes.len()];
    let spare = Spare::new();
    rounds.run(
        job,
        &mut sums,
        Panel::default,
        |item, panel| means_of(job, item, &weights, &spare, panel),
        |sums, part| {
            sums.iter_mut().zip(Lanes::flat(&part)).for_each(|(sum, &value)| *sum += f64::from(value));
            spare.keep(part);
        },
    )?;
    let shape = job.bank.image_shape();
    Ok(sums.into_iter().map(|sums| Array3::from_shape_vec(shape, sums).expect("as long as an image")).collect())
}

/// Adds to each probe's candidates the images near the least energy, its own or that of its mirror image.
pub(super) fn candidates<P: Pixel>(
    job: &Job<'_, P>,
    rounds: &mut Rounds<'_, '_>,
    found: &mut [Candidates],
    share_least: impl Fn(&mut [Candidates]),
) -> Result<()> {
    let energies = energies(job, rounds)?;
    for (found, energies) in found.iter_mut().zip(&energies) {
        found.least[0] = energies.iter().copied().fold(f32::MAX, f32::min);
    }
    share_least(found);
    rounds.install(|| found.par_iter_mut().zip(&energies).for_each(|(found, energies)| found.take(energies)));
    Ok(())
}

/// The energies of all images for each probe.
fn energies<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<Vec<f32>>> {
    let values: Vec<Values> = probes_of_items(job).map(|probes| Values::of(job, probes)).collect();
    let mut energies: Vec<Vec<f32>> = job.probes.iter().map(|_| Vec::with_capacity(job.bank.len())).collect();
    rounds.run(
        job,
        &mut energies,
        Stack::default,
        |item, stack| {
            let first = values.partition_point(|values| values.probes.end <= item.probes.start);
            energies_of(job, item, &values[first], stack)
        },
        Vec::extend,
    )?;
    Ok(energies)
}

/// A probe's values in vectors; zeros fill the last one, as they do in a panel.
fn values_of(probe: &Probe) -> Vec<Lanes> {
    let mut vectors = vec![Lanes::ZERO; vectors(probe.values.len())];
    for (lanes, values) in vectors.iter_mut().zip(probe.values.chunks(LANES)) {
        lanes.0[..values.len()].copy_from_slice(values);
    }
    vectors
}

/// The values of an item's probes, as its energies need them.
struct Values {
    probes: Range<usize>,
    /// Of each probe, where they are few.
    lone: Vec<Vec<Lanes>>,
    /// Of all together, where they are many.
    blocks: Vec<Block>,
}

impl Values {
    fn of<P: Pixel>(job: &Job<'_, P>, probes: Range<usize>) -> Self {
        let lone: Vec<_> = job.probes[probes.clone()].iter().map(values_of).collect();
        if probes.len() < MANY_FROM {
            return Self { probes, lone, blocks: Vec::new() };
        }
        let parts: Vec<_> = Panel::parts(job.bank.image_len()).collect();
        let forms = job.probes[probes.clone()].iter().map(|probe| probe.expanded);
        let blocks = Block::all(&lone.iter().map(Vec::as_slice).zip(forms).collect::<Vec<_>>(), &parts);
        Self { probes, lone: Vec::new(), blocks }
    }
}

/// The energies of an item's images for each of its probes.
fn energies_of<P: Pixel>(job: &Job<'_, P>, item: &Item, values: &Values, stack: &mut Stack<P>) -> Vec<Vec<f32>> {
    let (image_len, probes) = (job.bank.image_len(), values.probes.len());
    if probes < MANY_FROM {
        let images = job.images(item.images.clone());
        let energies_of = |(values, probe): (&Vec<Lanes>, &Probe)| {
            let mut energies = vec![0.0; item.images.len()];
            lone::energies(job.isa, images, image_len, values, probe.expanded, &mut energies);
            energies
        };
        return values.lone.iter().zip(&job.probes[values.probes.clone()]).map(energies_of).collect();
    }
    let mut energies = vec![Lanes::ZERO; item.images.len().div_ceil(LANES) * probes];
    // The values of a part of all probes stay in the second-level cache while images pass by.
    for part in Panel::parts(image_len) {
        for (images, energies) in images_at_once(item, LANES).zip(energies.chunks_exact_mut(probes)) {
            stack.load(job.isa, job.images(images), image_len, part.clone());
            for block in &values.blocks {
                stack.add(job.isa, block, energies);
            }
        }
    }
    let of_probe = |probe: usize| {
        let mut found: Vec<f32> = energies[probe..].iter().step_by(probes).flat_map(|energies| energies.0).collect();
        found.truncate(item.images.len());
        found
    };
    (0..probes).map(of_probe).collect()
}

/// The images of an item, so many at a time.
fn images_at_once(item: &Item, count: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let images = item.images.clone();
    images.clone().step_by(count).map(move |first| first..images.end.min(first + count))
}

/// Turns energies into weights, each query's with its mirror image's summing to one.
fn normalise<P: Pixel>(job: &Job<'_, P>, energies: &mut [Vec<f32>]) {
    let queries = job.probes.iter().filter(|probe| !probe.flipped).count();
    let (forward, flipped) = energies.split_at_mut(queries);
    let mut flipped = flipped.iter_mut();
    let mut pairs: Vec<[&mut [f32]; 2]> =
        forward.iter_mut().map(|one| [one.as_mut_slice(), flipped.next().map_or(&mut [], Vec::as_mut_slice)]).collect();
    pairs.par_iter_mut().enumerate().for_each(|(i, pair)| {
        let rate = job.probes[i].rate;
        let least = f64::from(pair.iter().flat_map(|energies| energies.iter()).copied().fold(f32::MAX, f32::min));
        let mut total = 0.0;
        for energy in pair.iter_mut().flat_map(|energies| energies.iter_mut()) {
            let logit = rate * (least - f64::from(*energy));
            // Far below the cutoff a weight is zero, so that no product with it is subnormal.
            let share = if logit < -job.cutoff - 40.0 { 0.0 } else { logit.exp2() };
            total += share;
            *energy = share as f32;
        }
        for share in pair.iter_mut().flat_map(|shares| shares.iter_mut()) {
            *share *= (1.0 / total) as f32;
        }
    });
}

/// The weighted sums of an item's images for each of its probes, `[probe][vector]`.
fn means_of<P: Pixel>(
    job: &Job<'_, P>,
    item: &Item,
    weights: &[Vec<f32>],
    spare: &Spare<Vec<Lanes>>,
    panel: &mut Panel,
) -> Vec<Vec<Lanes>> {
    let (image_len, probes) = (job.bank.image_len(), item.probes.len());
    let room = || spare.take_or(|| vec![Lanes::ZERO; vectors(image_len)]);
    let mut sums: Vec<_> = item.probes.clone().map(|_| room()).collect();
    if probes < MANY_FROM {
        for (weights, sums) in weights[item.probes.clone()].iter().zip(&mut sums) {
            sums.fill(Lanes::ZERO);
            add_lone_mean(job, item, weights, sums);
        }
        return sums;
    }
    let weights_of = |images: Range<usize>| {
        // Rows of a panel without an image hold another's.
        let mut here = vec![[0.0; IMAGES]; probes];
        for (here, weights) in here.iter_mut().zip(&weights[item.probes.clone()]) {
            here[..images.len()].copy_from_slice(&weights[images.clone()]);
        }
        here
    };
    let weights: Vec<_> = images_at_once(item, IMAGES).map(weights_of).collect();
    // The sums of a part of all probes stay in the second-level cache while panels pass by.
    for part in Panel::parts(image_len) {
        let mut fresh = true;
        for (images, weights) in images_at_once(item, IMAGES).zip(&weights) {
            if fresh || weights.as_flattened().iter().any(|&weight| weight != 0.0) {
                panel.load(job.isa, job.images(images), image_len, part.clone());
                add_means(job.isa, panel, weights, fresh, &mut sums);
                fresh = false;
            }
        }
    }
    sums
}

/// Adds the weighted sum of an item's images for one probe.
fn add_lone_mean<P: Pixel>(job: &Job<'_, P>, item: &Item, weights: &[f32], sums: &mut [Lanes]) {
    let image_len = job.bank.image_len();
    for images in images_at_once(item, IMAGES) {
        let weights = &weights[images.clone()];
        if weights.iter().any(|&weight| weight != 0.0) {
            lone::add_mean(job.isa, job.images(images), image_len, weights, sums);
        }
    }
}
