//! The full window: one weight an image, so energies are few enough to keep, and the second pass is a weighted mean.

use ndarray::Array3;
use rayon::prelude::*;

use super::energy::mark_missing;
use super::isa::{Isa, dispatched};
use super::job::{Group, Job};
use super::probe::Probe;
use super::rounds::{Item, Rounds};
use super::simd::{LANES, Lanes, Vector};
use super::tile::{Pixel, RUN, Tile};
use crate::error::Result;

/// Tiles a group: with one window their energies take no room, and the more tiles, the fewer sums across lanes.
const TILES: usize = 8;

/// Probes that share the pixels of a tile: with two registers a probe, eight sums hide the latency of the fused
/// multiply-add, and one read of the pixels serves eight of them.
pub(super) const TOGETHER: usize = 4;

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
        for block in job.blocks(item.probes.clone()) {
            group.energies(job, block, |part| {
                found[part.probe - item.probes.start].extend(part.energies.iter().flat_map(|tile| tile.0));
            });
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
        // Tiles without images keep old ones, with weights of zero.
        space.weights.clear();
        space.weights.resize(weights.len() * TILES, Lanes::ZERO);
        for (lanes, weights) in space.weights.chunks_exact_mut(TILES).zip(weights) {
            let lanes = lanes.iter_mut().flat_map(|lanes| &mut lanes.0);
            lanes.zip(&weights[images.clone()]).for_each(|(lane, &weight)| *lane = weight);
        }
        add_means(job.isa, space.group.all_tiles(), &space.weights, &mut sums);
    }
    sums
}

/// Writes the energies of up to [`TOGETHER`] probes of one form on tiles to `out[probe * stride + tile]`.
pub(super) fn energies<P: Pixel>(isa: Isa, tiles: &[Tile<P>], probes: &[Probe], stride: usize, out: &mut [Lanes]) {
    energies_together(isa, tiles, probes, stride, out);
    for out in out.chunks_mut(stride).take(probes.len()) {
        for (tile, energy) in tiles.iter().zip(out) {
            mark_missing(tile, std::slice::from_mut(energy));
        }
    }
}

dispatched! {
    fn energies_together<P: Pixel>(tiles: &[Tile<P>], probes: &[Probe], stride: usize, out: &mut [Lanes]) = energies_body
}

/// Eight sums are in flight whatever the number of probes: few probes take several tiles at once.
#[inline(always)]
fn energies_body<V: Vector, P: Pixel>(tiles: &[Tile<P>], probes: &[Probe], stride: usize, out: &mut [Lanes]) {
    match probes {
        [a, b, c, d] => on_tiles::<V, P, 4, 1>(tiles, [a, b, c, d], stride, out),
        [a, b, c] => on_tiles::<V, P, 3, 1>(tiles, [a, b, c], stride, out),
        [a, b] => on_tiles::<V, P, 2, 2>(tiles, [a, b], stride, out),
        probes => {
            for (i, a) in probes.iter().enumerate() {
                on_tiles::<V, P, 1, 4>(tiles, [a], stride, &mut out[i * stride..]);
            }
        }
    }
}

#[inline(always)]
fn on_tiles<V: Vector, P: Pixel, const Q: usize, const T: usize>(
    tiles: &[Tile<P>],
    probes: [&Probe; Q],
    stride: usize,
    out: &mut [Lanes],
) {
    let (some, rest) = tiles.as_chunks::<T>();
    let mut put = |t: usize, q: usize, energy: V| energy.store(&mut out[q * stride + t]);
    for (i, tiles) in some.iter().enumerate() {
        let energies = energies_of_tiles::<V, P, Q, T>(std::array::from_fn(|t| &tiles[t]), probes);
        for t in 0..T {
            for q in 0..Q {
                put(i * T + t, q, energies[t][q]);
            }
        }
    }
    for (i, tile) in rest.iter().enumerate() {
        let [energies] = energies_of_tiles::<V, P, Q, 1>([tile], probes);
        for q in 0..Q {
            put(some.len() * T + i, q, energies[q]);
        }
    }
}

#[inline(always)]
fn energies_of_tiles<V: Vector, P: Pixel, const Q: usize, const T: usize>(
    tiles: [&Tile<P>; T],
    probes: [&Probe; Q],
) -> [[V; Q]; T] {
    if probes[0].expanded {
        runs_of::<V, P, Q, T, true>(tiles, probes)
    } else {
        runs_of::<V, P, Q, T, false>(tiles, probes)
    }
}

#[inline(always)]
fn runs_of<V: Vector, P: Pixel, const Q: usize, const T: usize, const EXPANDED: bool>(
    tiles: [&Tile<P>; T],
    probes: [&Probe; Q],
) -> [[V; Q]; T] {
    let mut total = [[V::splat(0.0); Q]; T];
    for start in (0..tiles[0].pixels.len()).step_by(RUN) {
        let end = tiles[0].pixels.len().min(start + RUN);
        let pixels: [&[P::Lanes]; T] = tiles.map(|tile| &tile.pixels[start..end]);
        let values: [&[f32]; Q] = probes.map(|probe| &probe.values[start..end]);
        let mut run = [[V::splat(0.0); Q]; T];
        if EXPANDED {
            for t in 0..T {
                run[t] = [V::load(&tiles[t].run_squares[start / RUN]); Q];
            }
        }
        for x in 0..end - start {
            for t in 0..T {
                let a: V = P::centred(&pixels[t][x]);
                for q in 0..Q {
                    let z = V::splat(values[q][x]);
                    let (factor, other) = if EXPANDED { (a, z) } else { (a.sub(z), a.sub(z)) };
                    run[t][q] = factor.mul_add(other, run[t][q]);
                }
            }
        }
        for t in 0..T {
            for q in 0..Q {
                total[t][q] = total[t][q].add(run[t][q]);
            }
        }
    }
    total
}

dispatched! {
    /// Adds to `sums` `[probe][channel, pixel]` the images of all of a group's tiles times their weights `[probe][tile]`.
    fn add_means<P: Pixel>(tiles: &[Tile<P>], weights: &[Lanes], sums: &mut [Vec<f32>]) = add_means_body
}

#[inline(always)]
fn add_means_body<V: Vector, P: Pixel>(tiles: &[Tile<P>], weights: &[Lanes], sums: &mut [Vec<f32>]) {
    let image_len = tiles[0].pixels.len();
    let pixels: [&[P::Lanes]; TILES] = std::array::from_fn(|t| &tiles[t].pixels[..image_len]);
    let (weights, _) = weights.as_chunks::<TILES>();
    for (weights, sums) in weights.chunks(TOGETHER).zip(sums.chunks_mut(TOGETHER)) {
        match (weights, sums) {
            ([a, b, c, d], [e, f, g, h]) => add_means_together::<V, P>(pixels, [a, b, c, d], [e, f, g, h]),
            (weights, sums) => {
                for (weights, sums) in weights.iter().zip(sums) {
                    add_mean::<V, P>(pixels, weights, sums);
                }
            }
        }
    }
}

/// Four sums across lanes share most of their shuffles: here those of four probes.
#[inline(always)]
fn add_means_together<V: Vector, P: Pixel>(
    pixels: [&[P::Lanes]; TILES],
    weights: [&[Lanes; TILES]; TOGETHER],
    sums: [&mut [f32]; TOGETHER],
) {
    let image_len = pixels[0].len();
    let sums = sums.map(|sums| &mut sums[..image_len]);
    for p in 0..image_len {
        let mut lanes = [V::splat(0.0); TOGETHER];
        for t in 0..TILES {
            let a: V = P::centred(&pixels[t][p]);
            for q in 0..TOGETHER {
                lanes[q] = a.mul_add(V::load(&weights[q][t]), lanes[q]);
            }
        }
        let totals = V::sums(lanes);
        for q in 0..TOGETHER {
            sums[q][p] += totals[q];
        }
    }
}

/// And here those of four pixels.
#[inline(always)]
fn add_mean<V: Vector, P: Pixel>(pixels: [&[P::Lanes]; TILES], weights: &[Lanes; TILES], sums: &mut [f32]) {
    let (fours, rest) = sums.as_chunks_mut::<4>();
    let done = 4 * fours.len();
    for (i, four) in fours.iter_mut().enumerate() {
        let mut lanes = [V::splat(0.0); 4];
        for t in 0..TILES {
            let (weight, pixels) = (V::load(&weights[t]), &pixels[t][4 * i..4 * i + 4]);
            for j in 0..4 {
                lanes[j] = P::centred::<V>(&pixels[j]).mul_add(weight, lanes[j]);
            }
        }
        let totals = V::sums(lanes);
        for j in 0..4 {
            four[j] += totals[j];
        }
    }
    for (i, sum) in rest.iter_mut().enumerate() {
        let mut lanes = [V::splat(0.0); 4];
        for t in 0..TILES {
            lanes[0] = P::centred::<V>(&pixels[t][done + i]).mul_add(V::load(&weights[t]), lanes[0]);
        }
        *sum += V::sums(lanes)[0];
    }
}
