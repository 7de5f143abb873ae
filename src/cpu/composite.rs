//! The composite: the second pass after the evidence, or, on the sparse route, both in one.

use ndarray::{Array3, ArrayViewMut3};

use super::call::{Call, Work};
use super::dense::{self, arithmetic::Arithmetic};
use super::evidence::{Evidence, Pass, evidence_of_all_images, run_pass, sparse_queries};
use super::full::{self, ImagePosterior};
use super::job::Job;
use super::scheduler::Scheduler;
use super::sparse::{self, WeighedLists};
use super::tile::Pixel;
use crate::bank::Bank;
use crate::error::Result;
use crate::posterior::Posterior;

/// The weighted sums of centred stored pixels, `[channel, row, column]`, of a query and of its mirror image.
pub(crate) type MirrorSums = [Array3<f64>; 2];

/// The sums of a composite, given the evidence.
pub(crate) struct Composite;

impl Pass for Composite {
    type Found = MirrorSums;

    fn dense<P: Pixel, A: Arithmetic>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&Posterior],
    ) -> Result<Vec<MirrorSums>> {
        Ok(pair_up(job, dense::composites::<P, A>(job, scheduler, posteriors)?))
    }

    fn full<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&ImagePosterior],
    ) -> Result<Vec<MirrorSums>> {
        Ok(pair_up(job, full::composites(job, scheduler, posteriors)?))
    }

    fn sparse<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        lists: &[&WeighedLists],
    ) -> Result<Vec<MirrorSums>> {
        sparse::composites(job, scheduler, lists)
    }
}

/// Both passes of a composite.
pub(crate) struct WholeComposite;

impl Work for WholeComposite {
    type Found = MirrorSums;

    fn passes(&self, _call: &Call<'_, '_>) -> usize {
        2
    }

    fn run<P: Pixel>(&self, job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<MirrorSums>> {
        let mut sums: Vec<Option<MirrorSums>> = vec![None; job.queries()];
        let sparse = sparse_queries(job);
        if !sparse.is_empty() {
            let probes = job.probes_of(&sparse);
            for (&query, found) in sparse.iter().zip(sparse::sums(&job.with(&probes), scheduler)?) {
                sums[query] = found;
            }
        }
        let rest: Vec<usize> = (0..sums.len()).filter(|&query| sums[query].is_none()).collect();
        if !rest.is_empty() {
            let probes = job.probes_of(&rest);
            let job = job.with(&probes);
            let evidence = evidence_of_all_images(&job, scheduler)?;
            let found = run_pass(&Composite, &job, scheduler, &evidence.iter().collect::<Vec<&Evidence>>())?;
            rest.iter().zip(found).for_each(|(&query, found)| sums[query] = Some(found));
        }
        Ok(sums.into_iter().flatten().collect())
    }
}

/// The sums of queries' probes, followed by those of their flipped probes if there are any, as pairs.
pub(crate) fn pair_up<P: Pixel>(job: &Job<'_, P>, mut sums: Vec<Array3<f64>>) -> Vec<MirrorSums> {
    let mut flipped = sums.split_off(job.queries()).into_iter();
    let zero = || Array3::zeros(job.bank.image_shape());
    sums.into_iter().map(|sums| [sums, flipped.next().unwrap_or_else(zero)]).collect()
}

/// Adds the mirrored half, divides by the cover and returns to the units of the images.
pub(crate) fn finish(bank: &Bank<'_>, cover: &[u32], [sums, flipped]: &MirrorSums, mut out: ArrayViewMut3<'_, f32>) {
    let (unit, centre, width) = (bank.unit(), bank.range().centre, sums.dim().2);
    for ((c, y, x), value) in out.indexed_iter_mut() {
        let sum = sums[[c, y, x]] + flipped[[c, y, width - 1 - x]];
        *value = (sum / (f64::from(cover[y * width + x]) * unit) + centre) as f32;
    }
}
