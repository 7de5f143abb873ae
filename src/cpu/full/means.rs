//! Weighted means of images.

use std::ops::Range;

use super::pixel_panel::{AddMeans, IMAGES, PixelPanel, vectors};
use super::single_query::AddMean;
use super::{PANEL_FROM, images_at_once};
use crate::cpu::buffer_pool::BufferPool;
use crate::cpu::job::Job;
use crate::cpu::scheduler::{Scheduler, WorkItem};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::simd::F32x16;

/// Per probe the sum of centred stored pixels `[channel][pixel]` of all images times their weights.
pub(super) fn weighted_sums<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    weights: &[&[f32]],
) -> Result<Vec<Vec<f64>>> {
    let mut sums = vec![vec![0.0; job.bank.image_len()]; job.probes.len()];
    let buffers = BufferPool::new();
    scheduler.run(
        job,
        &mut sums,
        PixelPanel::default,
        |item, panel| sums_of(job, item, weights, &buffers, panel),
        |sums, of_shard| {
            sums.iter_mut().zip(F32x16::flat(&of_shard)).for_each(|(sum, &value)| *sum += f64::from(value));
            buffers.release(of_shard);
        },
    )?;
    Ok(sums)
}

/// The weighted sums of the images of a work item for each of its probes, `[probe][vector]`.
fn sums_of<P: Pixel>(
    job: &Job<'_, P>,
    item: &WorkItem,
    weights: &[&[f32]],
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
                panel.load(job.isa, &job.images(images), job.centre, image_len, part.clone());
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
            let images = &job.images(images)[..];
            job.isa.run(AddMean { images, centre: job.centre, image_len, weights, sums });
        }
    }
}
