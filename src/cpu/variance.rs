//! Variances of pixels under the posteriors, on every route: per pixel the mean over the windows at it, and per window that
//! of its middle pixel.

use ndarray::{Array3, s};

use super::call::{Call, Memory};
use super::dense::moments::{MAX_FIRST, Moments, Places, moments};
use super::dense::{arithmetic::Arithmetic, composites};
use super::evidence::Pass;
use super::full::{self, ImagePosterior};
use super::job::Job;
use super::scheduler::Scheduler;
use super::sparse::{self, WeighedLists};
use super::tile::Pixel;
use crate::components::{Components, Kind};
use crate::error::Result;
use crate::found::{MirrorSums, QueryVariance, merged};
use crate::posterior::Posterior;

/// The variances of every query.
pub(crate) struct Variance;

impl Variance {
    /// Bytes that they take besides those of a composite.
    pub(crate) fn memory(components: &Components, channels: usize, image_len: usize, queries: usize) -> Memory {
        let (of_image, of_windows) = (size_of::<f64>() * image_len, size_of::<f64>() * components.count() * channels);
        let first = size_of::<f64>()
            * (0..components.count()).map(|k| components.pixels(k) * channels).max().unwrap_or(0).max(MAX_FIRST);
        Memory {
            per_query: 8 * of_image + 4 * of_windows + 4 * first,
            per_probe: 4 * of_image + 2 * of_windows + 2 * first,
            results: queries * (of_image + of_windows),
        }
    }
}

/// The composite under every probe of a job, centred, `[channel][pixel]`: the mirror image for those that are flipped.
fn means_of_probes<P: Pixel>(job: &Job<'_, P>, composites: &[MirrorSums]) -> Vec<Vec<f64>> {
    let (cover, width) = (job.mirrors[0].cover(), job.mirrors[0].width());
    let queries = job.queries();
    let of_query = |sums: &MirrorSums| {
        let mut mean = merged(sums);
        mean.indexed_iter_mut().for_each(|((_, y, x), value)| *value /= f64::from(cover[y * width + x]));
        mean
    };
    let of_queries: Vec<Array3<f64>> = composites.iter().map(of_query).collect();
    let of_probe = |probe: usize| -> Vec<f64> {
        let mean = &of_queries[probe % queries];
        mean.slice(s![.., .., ..;if probe < queries { 1 } else { -1 }]).iter().copied().collect()
    };
    (0..job.probes.len()).map(of_probe).collect()
}

impl Pass for Variance {
    type Found = QueryVariance;

    fn passes(&self, call: &Call<'_, '_>) -> usize {
        match call.mirrors[0].kind() {
            Kind::Full => 2,
            Kind::Square { .. } | Kind::Masks(_) => 1 + Places::all(&call.mirrors[0], call.bank.image_shape()[0]).len(),
        }
    }

    fn dense<P: Pixel, A: Arithmetic>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&Posterior],
    ) -> Result<Vec<QueryVariance>> {
        let (channels, len, queries) = (job.bank.image_shape()[0], job.bank.image_len(), job.queries());
        let sums = job.pair_up(composites::<P, A>(job, scheduler, posteriors)?);
        let means = means_of_probes(job, &sums);
        let means: Vec<Vec<f32>> =
            means.into_iter().map(|means| means.into_iter().map(|mean| mean as f32).collect()).collect();
        let mut totals: Vec<(Vec<f64>, Vec<f64>, Vec<f64>)> =
            (0..queries).map(|_| (vec![0.0; len], vec![0.0; len], Vec::new())).collect();
        for places in Places::all(&job.mirrors[0], channels) {
            let mirrored = places.mirrored(&job.mirrors[0]);
            let found = moments::<P, A>(job, scheduler, posteriors, &means, [&places, &mirrored])?;
            let (forward, flipped) = found.split_at(queries);
            for (query, totals) in totals.iter_mut().enumerate() {
                add_moments(job, [Some(&forward[query]), flipped.get(query)], [&places, &mirrored], totals);
            }
        }
        let of_query =
            |(sums, flipped, middle)| QueryVariance { sums: [job.in_shape(sums), job.in_shape(flipped)], middle };
        Ok(totals.into_iter().map(of_query).collect())
    }

    fn full<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&ImagePosterior],
    ) -> Result<Vec<QueryVariance>> {
        let composites = job.pair_up(full::composites(job, scheduler, posteriors)?);
        let means = means_of_probes(job, &composites);
        let squares = job.pair_up(full::squares(job, scheduler, posteriors, &means)?);
        let (middle, width) = (job.mirrors[0].middle(0), job.mirrors[0].width());
        let (y, x) = (middle / width, middle % width);
        let of_query = |sums: MirrorSums| QueryVariance { middle: merged(&sums).slice(s![.., y, x]).to_vec(), sums };
        Ok(squares.into_iter().map(of_query).collect())
    }

    fn sparse<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        lists: &[&WeighedLists],
    ) -> Result<Vec<QueryVariance>> {
        let found = sparse::variances(job, scheduler, lists)?;
        Ok(found.into_iter().map(|(sums, middle)| QueryVariance { sums, middle }).collect())
    }
}

/// Adds the variances on some windows to `(sums of the query, sums of its mirror image, those of middle pixels)`.
fn add_moments<P: Pixel>(
    job: &Job<'_, P>,
    found: [Option<&Moments>; 2],
    places: [&Places; 2],
    (sums, flipped_sums, middles): &mut (Vec<f64>, Vec<f64>, Vec<f64>),
) {
    let (components, channels, plane) = (&job.mirrors[0], job.bank.image_shape()[0], job.plane());
    for (sums, found) in [&mut *sums, flipped_sums].into_iter().zip(found) {
        sums.iter_mut().zip(found.into_iter().flat_map(|found| &found.second)).for_each(|(sum, value)| *sum += value);
    }
    let mut first = vec![0.0; channels * plane];
    for k in places[0].windows.clone() {
        let middle = merge_first(job, found, places, k, &mut first);
        for p in components.runs(k).flatten() {
            (0..channels).for_each(|c| sums[c * plane + p] -= first[c * plane + p].powi(2));
        }
        let at = components.middle(k);
        middles.extend((0..channels).map(|c| (middle[c] - first[c * plane + at].powi(2)).max(0.0)));
    }
}

/// Writes the first moments of a window, of both sides, where the query has its pixels in an image `[channel][pixel]`; returns the
/// second moments of its middle pixel.
pub(super) fn merge_first<P: Pixel>(
    job: &Job<'_, P>,
    found: [Option<&Moments>; 2],
    places: [&Places; 2],
    k: usize,
    first: &mut [f64],
) -> Vec<f64> {
    let (components, channels, plane) = (&job.mirrors[0], job.bank.image_shape()[0], job.plane());
    let width = components.width();
    let sides = [(k, &job.mirrors[0]), (components.mirror_index(k), &job.mirrors[1])];
    components.runs(k).flatten().for_each(|p| (0..channels).for_each(|c| first[c * plane + p] = 0.0));
    let mut middle = vec![0.0; channels];
    for (side, ((k, windows), found)) in sides.into_iter().zip(found).enumerate() {
        let Some(found) = found else { continue };
        let mut values = places[side].of(&found.first, k).iter();
        for run in windows.runs(k) {
            for c in 0..channels {
                for (p, value) in run.clone().zip(values.by_ref().take(run.len())) {
                    let p = if side == 0 { p } else { p - p % width + (width - 1 - p % width) };
                    first[c * plane + p] += value;
                }
            }
        }
        let from = (k - places[side].windows.start) * channels;
        middle.iter_mut().zip(&found.middle[from..]).for_each(|(sum, value)| *sum += value);
    }
    middle
}
