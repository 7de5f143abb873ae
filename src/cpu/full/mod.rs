//! The full route: with the full image as the only window there is one weight per image, so energies are few enough to
//! keep, and pass 2 is a weighted mean. Where energies of float32 round too much, those of the images that may carry
//! weight are computed again in float64 ([`refine`]).

pub(crate) mod image_panel;
pub(crate) mod pixel_panel;
mod refine;
mod single_query;

use std::ops::Range;

use ndarray::Array3;
use rayon::prelude::*;

use crate::cpu::buffer_pool::BufferPool;
use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::scheduler::{Scheduler, WorkItem, blocks, probes_of_items};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::simd::{F32x16, LANES};
use image_panel::{ImagePanel, QueryPanel};
use pixel_panel::{AddMeans, IMAGES, PixelPanel, vectors};
use single_query::{AddMean, Energies};

/// The fewest probes for which it pays to lay out images in panels.
const PANEL_FROM: usize = 3;

/// Per probe the weighted sum of centred stored pixels, `[channel, row, column]`. The probes of flipped queries follow all
/// others, in the same order.
pub(crate) fn sums<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Array3<f64>>> {
    let mut weights = energies(job, scheduler)?;
    refine::refine(job, scheduler, &mut weights)?;
    scheduler.install(|| normalise(job, &mut weights));
    let mut sums = vec![vec![0.0; job.bank.image_len()]; job.probes.len()];
    let buffers = BufferPool::new();
    scheduler.run(
        job,
        &mut sums,
        PixelPanel::default,
        |item, panel| means_of(job, item, &weights, &buffers, panel),
        |sums, of_shard| {
            sums.iter_mut().zip(F32x16::flat(&of_shard)).for_each(|(sum, &value)| *sum += f64::from(value));
            buffers.release(of_shard);
        },
    )?;
    let shape = job.bank.image_shape();
    Ok(sums.into_iter().map(|sums| Array3::from_shape_vec(shape, sums).expect("as long as an image")).collect())
}

/// The energies of all images for each probe.
fn energies<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Vec<f32>>> {
    let values: Vec<PreparedValues> = probes_of_items(job).map(|probes| PreparedValues::of(job, probes)).collect();
    let mut energies: Vec<Vec<f32>> = job.probes.iter().map(|_| Vec::with_capacity(job.bank.len())).collect();
    scheduler.run(
        job,
        &mut energies,
        ImagePanel::default,
        |item, panel| {
            let first = values.partition_point(|values| values.probes.end <= item.probes.start);
            energies_of(job, item, &values[first], panel)
        },
        Vec::extend,
    )?;
    Ok(energies)
}

/// A probe's values in vectors, padded with zeros as in a panel.
fn values_of(probe: &Probe) -> Vec<F32x16> {
    let mut vectors = vec![F32x16::ZERO; vectors(probe.values.len())];
    for (lanes, values) in vectors.iter_mut().zip(probe.values.chunks(LANES)) {
        lanes.0[..values.len()].copy_from_slice(values);
    }
    vectors
}

/// The values of the probes of a work item, laid out for the kernels.
struct PreparedValues {
    probes: Range<usize>,
    /// Of each probe, below [`PANEL_FROM`] probes.
    single: Vec<Vec<F32x16>>,
    /// Of all probes together, otherwise.
    panels: Vec<QueryPanel>,
}

impl PreparedValues {
    fn of<P: Pixel>(job: &Job<'_, P>, probes: Range<usize>) -> Self {
        let single: Vec<_> = job.probes[probes.clone()].iter().map(values_of).collect();
        if probes.len() < PANEL_FROM {
            return Self { probes, single, panels: Vec::new() };
        }
        let parts: Vec<_> = PixelPanel::parts(job.bank.image_len()).collect();
        let forms = job.probes[probes.clone()].iter().map(|probe| probe.regime.is_expanded());
        let panels = QueryPanel::all(&single.iter().map(Vec::as_slice).zip(forms).collect::<Vec<_>>(), &parts);
        Self { probes, single: Vec::new(), panels }
    }
}

/// The energies of the images of a work item for each of its probes.
fn energies_of<P: Pixel>(
    job: &Job<'_, P>,
    item: &WorkItem,
    values: &PreparedValues,
    panel: &mut ImagePanel<P>,
) -> Vec<Vec<f32>> {
    let (image_len, probes) = (job.bank.image_len(), values.probes.len());
    if probes < PANEL_FROM {
        return single_energies_of(job, item, values);
    }
    let mut energies = vec![F32x16::ZERO; item.images.len().div_ceil(LANES) * probes];
    // The values of a part of all probes stay in the second-level cache while the images are read.
    for part in PixelPanel::parts(image_len) {
        for (images, energies) in images_at_once(item, LANES).zip(energies.chunks_exact_mut(probes)) {
            if job.is_stopped() {
                break;
            }
            if part.start == 0 {
                job.check_images(images.clone());
            }
            panel.load(job.isa, job.images(images), job.centre, image_len, part.clone());
            for queries in &values.panels {
                panel.add(job.isa, queries, energies);
            }
        }
    }
    let of_probe = |probe: usize| {
        let mut of_images: Vec<f32> =
            energies[probe..].iter().step_by(probes).flat_map(|energies| energies.0).collect();
        of_images.truncate(item.images.len());
        of_images
    };
    (0..probes).map(of_probe).collect()
}

/// The same for one or two probes.
fn single_energies_of<P: Pixel>(job: &Job<'_, P>, item: &WorkItem, values: &PreparedValues) -> Vec<Vec<f32>> {
    let (image_len, centre) = (job.bank.image_len(), job.centre);
    let mut energies: Vec<_> = values.single.iter().map(|_| vec![0.0; item.images.len()]).collect();
    let probes = &job.probes[values.probes.clone()];
    for images in images_at_once(item, LANES).take_while(|_| !job.is_stopped()) {
        job.check_images(images.clone());
        let place = images.start - item.images.start..images.end - item.images.start;
        let images = job.images(images);
        for ((values, probe), energies) in values.single.iter().zip(probes).zip(&mut energies) {
            let (expanded, out) = (probe.regime.is_expanded(), &mut energies[place.clone()]);
            job.isa.run(Energies { images, centre, image_len, values, expanded, out });
        }
    }
    energies
}

/// The images of a work item, `count` at a time.
fn images_at_once(item: &WorkItem, count: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    blocks(item.images.clone(), count)
}

/// Turns energies into weights, each query's with its mirror image's summing to one.
fn normalise<P: Pixel>(job: &Job<'_, P>, energies: &mut [Vec<f32>]) {
    let (forward, flipped) = energies.split_at_mut(job.queries());
    let mut flipped = flipped.iter_mut();
    let mut pairs: Vec<[&mut [f32]; 2]> = forward
        .iter_mut()
        .map(|energies| [energies.as_mut_slice(), flipped.next().map_or(&mut [], Vec::as_mut_slice)])
        .collect();
    pairs.par_iter_mut().enumerate().for_each(|(i, pair)| {
        let logit_scale = job.probes[i].logit_scale;
        let least = f64::from(pair.iter().flat_map(|energies| energies.iter()).copied().fold(f32::MAX, f32::min));
        let mut total = 0.0;
        for energy in pair.iter_mut().flat_map(|energies| energies.iter_mut()) {
            let logit = logit_scale * (least - f64::from(*energy));
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

/// The weighted sums of the images of a work item for each of its probes, `[probe][vector]`.
fn means_of<P: Pixel>(
    job: &Job<'_, P>,
    item: &WorkItem,
    weights: &[Vec<f32>],
    buffers: &BufferPool<Vec<F32x16>>,
    panel: &mut PixelPanel,
) -> Vec<Vec<F32x16>> {
    let (image_len, probes) = (job.bank.image_len(), item.probes.len());
    let acquire = || buffers.acquire(|| vec![F32x16::ZERO; vectors(image_len)]);
    let mut sums: Vec<_> = item.probes.clone().map(|_| acquire()).collect();
    if probes < PANEL_FROM {
        for (weights, sums) in weights[item.probes.clone()].iter().zip(&mut sums) {
            sums.fill(F32x16::ZERO);
            add_single_mean(job, item, weights, sums);
        }
        return sums;
    }
    let weights_of = |images: Range<usize>| {
        // Rows of a panel without an image still hold an earlier image, so their weight is zero.
        let mut of_panel = vec![[0.0; IMAGES]; probes];
        for (of_panel, weights) in of_panel.iter_mut().zip(&weights[item.probes.clone()]) {
            of_panel[..images.len()].copy_from_slice(&weights[images.clone()]);
        }
        of_panel
    };
    let weights: Vec<_> = images_at_once(item, IMAGES).map(weights_of).collect();
    // The sums of a part of all probes stay in the second-level cache while the panels are read.
    for part in PixelPanel::parts(image_len) {
        let mut fresh = true;
        for (images, weights) in images_at_once(item, IMAGES).zip(&weights) {
            if job.is_stopped() {
                break;
            }
            if fresh || weights.as_flattened().iter().any(|&weight| weight != 0.0) {
                panel.load(job.isa, job.images(images), job.centre, image_len, part.clone());
                job.isa.run(AddMeans { panel, weights, fresh, sums: &mut sums });
                fresh = false;
            }
        }
    }
    sums
}

/// Adds the weighted sum of the images of a work item for one probe.
fn add_single_mean<P: Pixel>(job: &Job<'_, P>, item: &WorkItem, weights: &[f32], sums: &mut [F32x16]) {
    let image_len = job.bank.image_len();
    for images in images_at_once(item, IMAGES).take_while(|_| !job.is_stopped()) {
        let weights = &weights[images.clone()];
        if weights.iter().any(|&weight| weight != 0.0) {
            job.isa.run(AddMean { images: job.images(images), centre: job.centre, image_len, weights, sums });
        }
    }
}
