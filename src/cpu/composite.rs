//! The composite: the second pass after the evidence, or, on the sparse route, both in one.

use super::call::{Call, Work};
use super::dense::{self, arithmetic::Arithmetic};
use super::evidence::{Evidence, Pass, evidence_of_all_images, run_pass, sparse_queries};
use super::full::{self, ImagePosterior};
use super::job::Job;
use super::scheduler::Scheduler;
use super::sparse::{self, WeighedLists};
use super::tile::Pixel;
use crate::error::Result;
use crate::found::MirrorSums;
use crate::posterior::Posterior;

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
        Ok(job.pair_up(dense::composites::<P, A>(job, scheduler, posteriors)?))
    }

    fn full<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&ImagePosterior],
    ) -> Result<Vec<MirrorSums>> {
        Ok(job.pair_up(full::composites(job, scheduler, posteriors)?))
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
