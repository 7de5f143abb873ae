//! What a posterior says about images, on every route: entropies, the heaviest images, and sums of weights per image.

use super::dense::{self, arithmetic::Arithmetic};
use super::evidence::Pass;
use super::full::ImagePosterior;
use super::job::Job;
use super::scheduler::Scheduler;
use super::sparse::{self, WeighedLists};
use super::tile::Pixel;
use crate::error::Result;
use crate::heaviest::{ProbeStatistics, Wanted};
use crate::posterior::Posterior;

/// The statistics of every query.
pub(crate) struct Statistics {
    pub(crate) wanted: Wanted,
}

impl Pass for Statistics {
    type Found = ProbeStatistics;

    fn dense<P: Pixel, A: Arithmetic>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&Posterior],
    ) -> Result<Vec<ProbeStatistics>> {
        let mut found = dense::statistics::statistics::<P, A>(job, scheduler, posteriors, self.wanted)?;
        let flipped = found.split_off(job.queries());
        for (found, flipped) in found.iter_mut().zip(&flipped) {
            found.merge_mirrored(flipped, &job.mirrors[0]);
        }
        Ok(found)
    }

    fn full<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&ImagePosterior],
    ) -> Result<Vec<ProbeStatistics>> {
        let of_query = |posterior: &&ImagePosterior| {
            let mut found = ProbeStatistics::new(1, job.len(), self.wanted);
            found.entropy[0] = posterior.entropy * std::f64::consts::LOG2_E;
            for (side, weights) in posterior.sides.iter().enumerate() {
                // Weights are float32, whose logarithms are not exact.
                const BELOW: f64 = 1.0 - 1e-9;
                let mut least = 0.0;
                for (position, &weight) in weights.iter().enumerate().filter(|_| self.wanted.top > 0) {
                    if f64::from(weight) > least {
                        least =
                            found.heaviest.insert(0, f64::from(weight).log2(), position, side as u32).exp2() * BELOW;
                    }
                }
                found.attribution.iter_mut().zip(weights).for_each(|(sum, &weight)| *sum += f64::from(weight));
            }
            found
        };
        scheduler.skip(job.probes.len() * job.len())?;
        Ok(posteriors.iter().map(of_query).collect())
    }

    fn sparse<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        lists: &[&WeighedLists],
    ) -> Result<Vec<ProbeStatistics>> {
        let count = job.mirrors[0].count();
        sparse::read_all(job, scheduler, lists, |_, lists| {
            let mut found = ProbeStatistics::new(count, job.len(), self.wanted);
            for k in 0..count {
                for side in 0..2 {
                    for atom in lists.of(side, k).iter().filter(|atom| atom.weight > 0.0) {
                        let (log, position) = (atom.weight.log2(), atom.position as usize);
                        found.entropy[k] -= atom.weight * log;
                        if self.wanted.top > 0 {
                            found.heaviest.insert(k, log, position, side as u32);
                        }
                        if self.wanted.attribution {
                            found.attribution[position] += atom.weight;
                        }
                    }
                }
            }
            found
        })
    }
}
