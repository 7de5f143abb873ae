//! The full window: one weight an image, so energies are few enough to keep, and the second pass is a weighted mean.

use ndarray::Array3;
use rayon::prelude::*;

use super::isa::dispatched;
use super::job::{Group, Job};
use super::rounds::{Item, Rounds};
use super::simd::{LANES, Lanes, Vector};
use super::tile::{Pixel, Tile};
use crate::error::Result;

/// Tiles a group: with one window their energies take no room, and the more tiles, the fewer sums across lanes.
const TILES: usize = 8;

/// Probes whose means share the pixels of a tile.
const TOGETHER: usize = 4;

/// Working space of one thread.
struct Space<P: Pixel> {
    group: Group<P>,
    /// Weights of the group's images, `[probe][tile]`.
    weights: Vec<Lanes>,
}

/// Per probe the weighted sum of centred stored pixels, `[channel, row, column]`. The probes of flipped queries follow all
/// others, in the same order.
pub(super) fn sums<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<Array3<f64>>> {
    let mut energies: Vec<Vec<f32>> = job.probes.iter().map(|_| Vec::with_capacity(job.bank.len())).collect();
    rounds.run(
        job,
        || Group::new(job, TILES),
        |item, group| energies_of(job, item, group),
        |probe, part| energies[probe].extend(part),
    )?;
    rounds.install(|| normalise(job, &mut energies));
    let mut sums = vec![Array3::<f64>::zeros(job.bank.image_shape()); job.probes.len()];
    rounds.run(
        job,
        || Space { group: Group::new(job, TILES), weights: Vec::new() },
        |item, space| means_of(job, item, &energies, space),
        |probe, part| sums[probe].iter_mut().zip(part).for_each(|(sum, value)| *sum += f64::from(value)),
    )?;
    Ok(sums)
}

/// The energies of an item's images for each of its probes.
fn energies_of<P: Pixel>(job: &Job<'_, P>, item: &Item, group: &mut Group<P>) -> Vec<Vec<f32>> {
    let mut found = vec![Vec::with_capacity(item.images.len() + LANES); item.probes.len()];
    for first in group.firsts(&item.images) {
        group.load(job, first, &item.images);
        for pair in job.pairs(item.probes.clone()) {
            group.energies(job, pair.clone());
            for (which, probe) in pair.enumerate() {
                let lanes = group.energies_of(job, which).iter().flat_map(|tile| tile.0);
                found[probe - item.probes.start].extend(lanes);
            }
        }
    }
    // Only the last tile of a shard has lanes without an image.
    for found in &mut found {
        found.truncate(item.images.len());
    }
    found
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
            let share = (rate * (least - f64::from(*energy))).exp2();
            total += share;
            // Far below the cutoff a weight is zero, so that no product with it is subnormal.
            *energy = if share < (-job.cutoff - 40.0).exp2() { 0.0 } else { share as f32 };
        }
        for share in pair.iter_mut().flat_map(|shares| shares.iter_mut()) {
            *share *= (1.0 / total) as f32;
        }
    });
}

/// The weighted sums of an item's images for each of its probes.
fn means_of<P: Pixel>(job: &Job<'_, P>, item: &Item, weights: &[Vec<f32>], space: &mut Space<P>) -> Vec<Vec<f32>> {
    let mut sums = vec![vec![0.0; job.bank.image_len()]; item.probes.len()];
    for first in space.group.firsts(&item.images) {
        let images = first..item.images.end.min(first + TILES * LANES);
        let weights = &weights[item.probes.clone()];
        if weights.iter().all(|weights| weights[images.clone()].iter().all(|&weight| weight == 0.0)) {
            continue;
        }
        space.group.load(job, first, &item.images);
        space.weights.clear();
        space.weights.resize(weights.len() * TILES, Lanes::ZERO);
        for (lanes, weights) in space.weights.chunks_exact_mut(TILES).zip(weights) {
            let lanes = lanes.iter_mut().flat_map(|lanes| &mut lanes.0);
            lanes.zip(&weights[images.clone()]).for_each(|(lane, &weight)| *lane = weight);
        }
        add_means(job.isa, space.group.tiles(), &space.weights, &mut sums);
    }
    sums
}

dispatched! {
    /// Adds to `sums` `[probe][channel, pixel]` the images of a group's tiles times their weights `[probe][tile]`, of
    /// which there are [`TILES`] a probe.
    fn add_means<P: Pixel>(tiles: &[Tile<P>], weights: &[Lanes], sums: &mut [Vec<f32>]) = add_means_body
}

#[inline(always)]
fn add_means_body<V: Vector, P: Pixel>(tiles: &[Tile<P>], weights: &[Lanes], sums: &mut [Vec<f32>]) {
    for (weights, sums) in weights.chunks(TOGETHER * TILES).zip(sums.chunks_mut(TOGETHER)) {
        match sums.len() {
            4 => add_means_of::<V, P, 4>(tiles, weights, sums),
            3 => add_means_of::<V, P, 3>(tiles, weights, sums),
            2 => add_means_of::<V, P, 2>(tiles, weights, sums),
            _ => add_means_of::<V, P, 1>(tiles, weights, sums),
        }
    }
}

#[inline(always)]
fn add_means_of<V: Vector, P: Pixel, const Q: usize>(tiles: &[Tile<P>], weights: &[Lanes], sums: &mut [Vec<f32>]) {
    let image_len = tiles[0].pixels.len();
    let whole = image_len - image_len % 4;
    for p in (0..whole).step_by(4) {
        // Four sums across lanes share most of their shuffles.
        let lanes = lanes_of::<V, P, Q, 4>(tiles, weights, p);
        for q in 0..Q {
            let totals = V::sums(lanes[q]);
            for i in 0..4 {
                sums[q][p + i] += totals[i];
            }
        }
    }
    for p in whole..image_len {
        let lanes = lanes_of::<V, P, Q, 1>(tiles, weights, p);
        for q in 0..Q {
            sums[q][p] += lanes[q][0].sum();
        }
    }
}

/// The weighted sums over tiles of `N` pixels from `p` on, lane by lane.
#[inline(always)]
fn lanes_of<V: Vector, P: Pixel, const Q: usize, const N: usize>(
    tiles: &[Tile<P>],
    weights: &[Lanes],
    p: usize,
) -> [[V; N]; Q] {
    let mut lanes = [[V::splat(0.0); N]; Q];
    for (t, tile) in tiles.iter().enumerate() {
        let pixels = &tile.pixels[p..p + N];
        for i in 0..N {
            let a: V = P::centred(&pixels[i]);
            for q in 0..Q {
                lanes[q][i] = a.mul_add(V::load(&weights[q * TILES + t]), lanes[q][i]);
            }
        }
    }
    lanes
}
