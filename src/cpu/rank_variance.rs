//! Moments of pixels under the posteriors of one of several ranks, on every route. Those of all ranks sum up to the moments that
//! variances are computed from.

use ndarray::{ArrayView3, Axis};

use super::call::{Call, Memory};
use super::dense::arithmetic::Arithmetic;
use super::dense::moments::{Places, moments};
use super::evidence::Pass;
use super::full::{self, ImagePosterior};
use super::job::Job;
use super::scheduler::Scheduler;
use super::sparse::{self, WeighedLists};
use super::tile::Pixel;
use super::variance::{Variance, merge_first};
use crate::components::Components;
use crate::error::Result;
use crate::found::{MomentLayout, merged};
use crate::posterior::Posterior;

/// Moments of the differences from means `[query, channel, pixel]`, in centred stored units, which all ranks have in common.
/// The evidence is that of the shares of the rank.
pub(crate) struct RankMoments<'a> {
    pub(crate) means: ArrayView3<'a, f64>,
}

impl RankMoments<'_> {
    /// Bytes that they take besides those of a composite.
    pub(crate) fn memory(components: &Components, channels: usize, image_len: usize, queries: usize) -> Memory {
        let of_query = size_of::<f64>() * MomentLayout::new(components, channels).len();
        let of_variances = Variance::memory(components, channels, image_len, queries);
        Memory { per_query: of_variances.per_query + 2 * of_query, results: queries * of_query, ..of_variances }
    }

    /// The means of every probe `[channel][pixel]`: mirrored for those that are flipped.
    fn of_probes<P: Pixel>(&self, job: &Job<'_, P>) -> Vec<Vec<f64>> {
        let of_probe = |probe: &super::probe::Probe| {
            let mut means: Vec<f64> = self.means.index_axis(Axis(0), probe.query).iter().copied().collect();
            if probe.flipped {
                means.chunks_exact_mut(job.mirrors[0].width()).for_each(<[f64]>::reverse);
            }
            means
        };
        job.probes.iter().map(of_probe).collect()
    }
}

impl Pass for RankMoments<'_> {
    type Found = Vec<f64>;

    fn passes(&self, call: &Call<'_, '_>) -> usize {
        Variance.passes(call)
    }

    fn dense<P: Pixel, A: Arithmetic>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&Posterior],
    ) -> Result<Vec<Vec<f64>>> {
        let (channels, plane, queries) = (job.bank.image_shape()[0], job.plane(), job.queries());
        let in_float = |means: Vec<f64>| means.into_iter().map(|mean| mean as f32).collect();
        let means: Vec<Vec<f32>> = self.of_probes(job).into_iter().map(in_float).collect();
        let mut all = vec![(vec![0.0; channels * plane], Vec::new(), Vec::new()); queries];
        let mut image = vec![0.0; channels * plane];
        for places in Places::all(&job.mirrors[0], channels) {
            let mirrored = places.mirrored(&job.mirrors[0]);
            let found = moments::<P, A>(job, scheduler, posteriors, &means, [&places, &mirrored])?;
            let (forward, flipped) = found.split_at(queries);
            for (query, (second, first, middles)) in all.iter_mut().enumerate() {
                let found = [Some(&forward[query]), flipped.get(query)];
                for k in places.windows.clone() {
                    middles.extend(merge_first(job, found, [&places, &mirrored], k, &mut image));
                    for p in job.mirrors[0].runs(k).flatten() {
                        first.extend((0..channels).map(|c| image[c * plane + p]));
                    }
                }
                let sides = found.map(|found| found.map_or_else(|| vec![0.0; second.len()], |one| one.second.clone()));
                let of_both = merged(&sides.map(|side| job.in_shape(side)));
                second.iter_mut().zip(&of_both).for_each(|(sum, value)| *sum += value);
            }
        }
        Ok(all.into_iter().map(|(second, first, middles)| [second, first, middles].concat()).collect())
    }

    fn full<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&ImagePosterior],
    ) -> Result<Vec<Vec<f64>>> {
        let (channels, plane, middle) = (job.bank.image_shape()[0], job.plane(), job.mirrors[0].middle(0));
        let means = self.of_probes(job);
        let composites = job.pair_up(full::composites(job, scheduler, posteriors)?);
        let squares = job.pair_up(full::squares(job, scheduler, posteriors, &means)?);
        let of_query = |(query, (composite, squares)): (usize, (_, _))| -> Vec<f64> {
            let share: f64 = posteriors[query].sides.iter().flatten().map(|&weight| f64::from(weight)).sum();
            let (composite, squares) = (merged(&composite), merged(&squares));
            let above: Vec<f64> = composite.iter().zip(&means[query]).map(|(sum, mean)| sum - share * mean).collect();
            let second: Vec<f64> = squares.iter().copied().collect();
            let first = (0..plane).flat_map(|p| (0..channels).map(move |c| c * plane + p)).map(|i| above[i]);
            let middles = (0..channels).map(|c| second[c * plane + middle]);
            second.iter().copied().chain(first).chain(middles).collect()
        };
        Ok(composites.into_iter().zip(squares).enumerate().map(of_query).collect())
    }

    fn sparse<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        lists: &[&WeighedLists],
    ) -> Result<Vec<Vec<f64>>> {
        let found = sparse::moments(job, scheduler, lists, &self.of_probes(job))?;
        let of_query = |found: sparse::Moments| {
            let second: Vec<f64> = merged(&found.second).iter().copied().collect();
            [second, found.first, found.middles].concat()
        };
        Ok(found.into_iter().map(of_query).collect())
    }
}
